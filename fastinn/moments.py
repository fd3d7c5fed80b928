"""Means and covariances of many views of the same tokens, from one pass over the rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from fastinn import _checks
from fastinn._arrays import as_tensor, like
from fastinn._saved import load_tensors, save_tensors
from fastinn._types import Array, Precision, View
from fastinn.ops.second_moments import second_moments

Pairs: TypeAlias = Literal["all", "within-layer"] | Sequence[tuple[View, View]]
_Product: TypeAlias = tuple[tuple[View, ...], tuple[View, ...]]

_BLOCK_ROWS = 16_384

# Enough for a provisional mean, too few to show in the time of an update.
_SHIFT_ROWS = 1024

_SUM_ROWS = 256

_METADATA = "moments"


class Moments:
    """Count, means and covariances of paired rows, in memory independent of their number.

    Rows are shifted by a rounded mean of the first block before they are multiplied, so that
    large means cost no digits, and blocks are merged in float64 by the pairwise update.

    Args:
        n_features: Width of each view, ``{view: d}``; a view is a name or ``(seed, layer)``.
        pairs: Which views are multiplied with which: ``"all"``, ``"within-layer"`` (views of the
            same layer, in one product a layer) or a list of pairs. Each view's own covariance is
            always there.
        precision: Rounding of the products, see :func:`fastinn.ops.second_moments`.

    Attributes:
        n_rows: Number of rows seen, whatever their weights.
        resolution: Smallest eigenvalue of a unit-diagonal covariance that stands out of the
            rounding of the rows and products seen; what is below counts as zero.

    Raises:
        ValueError: If a width is not positive, or a pair names an unknown view.

    Source: Chan, Golub and LeVeque 1979; Pebay 2008, SAND2008-6212.
    """

    def __init__(
        self,
        n_features: Mapping[Any, int],
        *,
        pairs: Pairs = "all",
        precision: Precision = "high",
    ) -> None:
        _checks.one_of(precision, get_args(Precision), "precision")
        self.n_features = _checked_widths(n_features)
        self.pairs = pairs
        self.precision: Precision = precision
        self.n_rows = 0
        self.resolution = 0.0
        self._products = _products(self.views, self.pairs)
        self._columns = _columns(self.n_features)
        self._total = _Total.zero([self._sides(product) for product in self._products])
        self._kind: Array = torch.empty(0)

    @property
    def views(self) -> tuple[View, ...]:
        """The views, in the order of ``n_features``."""
        return tuple(self.n_features)

    @property
    def count(self) -> float:
        """Sum of the weights: the number of rows where none were given."""
        return self._total.count

    def update(self, rows: Mapping[Any, Array], weight: Array | None = None) -> Self:
        """Add a block of paired rows.

        Args:
            rows: One matrix ``(n, d)`` a view; row ``i`` is the same token in all of them.
            weight: Non-negative weight of each row, shape ``(n,)``.

        Returns:
            Itself.

        Raises:
            ValueError: If a view is missing or unknown, widths or numbers of rows differ, or a
                row holds NaN or infinity. Nothing is added then.
        """
        block = self._checked_rows(rows)
        n = len(next(iter(block.values())))
        weights = None if weight is None else _checked_weight(weight, n)
        first = self.views[0]
        self._kind = like(block[first].new_empty(0), rows[first])
        for start in range(0, n, _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            self._add(
                {view: x[part] for view, x in block.items()},
                None if weights is None else weights[part],
            )
        return self

    def merge(self, other: "Moments") -> Self:
        """Add the rows that ``other`` has seen.

        Returns:
            Itself.

        Raises:
            ValueError: If ``other`` has other views, widths or pairs.
        """
        if self.n_features != other.n_features or self._products != other._products:
            raise ValueError(
                f"cannot merge moments of views {_listed(other.views)} into moments of views "
                f"{_listed(self.views)}: views, widths and pairs must be the same"
            )
        self._kind = self._kind if self.n_rows else other._kind
        self._total = self._total.joined(other._total)
        self._seen(other.n_rows, other.resolution)
        return self

    def all_reduce(self) -> Self:
        """Merge the moments of all ranks of ``torch.distributed``, in float64, on every rank.

        Does nothing in a single process.

        Returns:
            Itself.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return self
        own = self._total.mean.new_tensor([self.count, self.n_rows, self.resolution])
        ranks = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(ranks, own)
        counts, n_rows, resolutions = torch.stack(ranks).cpu().T
        self._total = self._total.all_reduced(counts.tolist())
        self.n_rows = int(n_rows.sum())
        self.resolution = float(resolutions.max())
        return self

    def mean(self, view: View) -> Array:
        """Return the mean of a view, shape ``(d,)``, float64, in the kind of the rows."""
        self._check_ready(view)
        columns = slice(*self._columns[view])
        return like(self._total.shift[columns] + self._total.mean[columns], self._kind)

    def cov(self, a: View, b: View | None = None) -> Array:
        """Return the covariance of two views, divided by the count.

        Args:
            a: View of the rows of the result.
            b: View of its columns; ``None`` stands for ``a``.

        Returns:
            Shape ``(d_a, d_b)``, float64, in the kind of the rows; ``cov(b, a)`` is exactly its
            transpose.

        Raises:
            ValueError: If a view is unknown, the pair was not asked for, or nothing was added.
        """
        b = a if b is None else b
        self._check_ready(a, b)
        return like(self._comoment(a, b) / self.count, self._kind)

    def save(self, path: str | PathLike[str]) -> None:
        """Write to one safetensors file with JSON metadata."""
        metadata = {
            "n_features": list(self.n_features.items()),
            "pairs": self.pairs,
            "precision": self.precision,
            "count": self.count,
            "n_rows": self.n_rows,
            "resolution": self.resolution,
        }
        save_tensors(Path(path), self._total.tensors(), {_METADATA: json.dumps(metadata)})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Moments":
        """Read a file of :meth:`save`; means and covariances are then given as tensors.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged or holds something else.
        """
        tensors, metadata = load_tensors(Path(path))
        if _METADATA not in metadata:
            raise ValueError(f"{path} holds no moments; pass a file that Moments.save wrote")
        record = json.loads(metadata[_METADATA])
        moments = cls(
            dict(_with_tuples(record["n_features"])),
            pairs=_with_tuples(record["pairs"]),
            precision=record["precision"],
        )
        moments._seen(record["n_rows"], record["resolution"])
        moments._total.restore(record["count"], tensors)
        return moments

    def _add(self, block: Mapping[View, Tensor], weight: Tensor | None) -> None:
        """Add checked rows, few enough to be multiplied at once."""
        if not self.count:
            self._total.begin(torch.cat([_coarse_mean(x[:_SHIFT_ROWS]) for x in block.values()]))
        shifted = {view: self._shifted(x, view) for view, x in block.items()}
        self._total = self._total.joined(self._block_total(shifted, weight))
        self._seen(
            len(shifted[self.views[0]]),
            max(_resolution(x.dtype, self.precision) for x in block.values()),
        )

    def _shifted(self, x: Tensor, view: View) -> Tensor:
        dtype = torch.float64 if self.precision == "exact" else torch.float32
        x = x.to(torch.promote_types(x.dtype, dtype))
        return x - self._total.shift[slice(*self._columns[view])].to(x)

    def _block_total(self, shifted: Mapping[View, Tensor], weight: Tensor | None) -> "_Total":
        first = shifted[self.views[0]]
        count = float(len(first) if weight is None else weight.sum())
        # Rows of weight zero have no mean; their count of zero then keeps them out.
        mean = torch.cat([_weighted_sum(x, weight) for x in shifted.values()]) / (count or 1.0)
        comoments = []
        for (left, right), (i, j) in zip(self._products, self._total.sides, strict=True):
            x = torch.cat([shifted[view] for view in left], dim=1)
            y = None if left == right else torch.cat([shifted[view] for view in right], dim=1)
            product = second_moments(x, y, weight=weight, precision=self.precision)
            comoments.append(product.addr_(mean[i], mean[j], alpha=-count))
        return _Total(self._total.sides, count, self._total.shift, mean, comoments)

    def _seen(self, n_rows: int, resolution: float) -> None:
        self.n_rows += n_rows
        self.resolution = max(self.resolution, resolution)

    def _sides(self, product: _Product) -> tuple[Tensor, Tensor]:
        """Return the columns, among those of all views, of both sides of a product."""
        left, right = ([torch.arange(*self._columns[view]) for view in side] for side in product)
        return torch.cat(left), torch.cat(right)

    def _comoment(self, a: View, b: View) -> Tensor:
        for (left, right), total in zip(self._products, self._total.comoments, strict=True):
            if a in left and b in right:
                return total[self._within(a, left), self._within(b, right)]
            if b in left and a in right:
                return total[self._within(b, left), self._within(a, right)].T
        raise ValueError(
            f"the product of views {a!r} and {b!r} was not accumulated: pairs is {self.pairs!r}"
        )

    def _within(self, view: View, side: tuple[View, ...]) -> slice:
        """Return the place of ``view`` on a side of a product."""
        start = sum(self.n_features[other] for other in side[: side.index(view)])
        return slice(start, start + self.n_features[view])

    def _check_known(self, views: Iterable[View]) -> None:
        for view in views:
            if view not in self.n_features:
                raise ValueError(f"unknown view {view!r}, the views are {_listed(self.views)}")

    def _check_ready(self, *views: View) -> None:
        self._check_known(views)
        if not self.count:
            raise ValueError("these moments hold no rows yet; call update first")

    def _checked_rows(self, rows: Mapping[View, Array]) -> dict[View, Tensor]:
        """Return the rows of all views, in the order of the views."""
        self._check_known(rows)
        missing = [view for view in self.views if view not in rows]
        if missing:
            raise ValueError(f"rows of views {_listed(missing)} are missing from this block")
        block = {view: _checks.rows(rows[view], f"view {view!r}") for view in self.views}
        first, *others = self.views
        for view, x in block.items():
            _checks.n_features(x, self.n_features[view], f"view {view!r}", "expected")
        for view in others:
            _checks.same_rows(block[first], block[view], (f"view {first!r}", f"view {view!r}"))
        return block


@dataclass
class _Total:
    """Sums over rows about their mean, with the columns of all views side by side."""

    sides: list[tuple[Tensor, Tensor]]
    """Columns of the left and the right side of each product."""
    count: float
    shift: Tensor
    """Provisional mean, on a grid so coarse that differences of shifts are exact."""
    mean: Tensor
    """Mean of the shifted rows."""
    comoments: list[Tensor]
    """Sum over rows of the products of both sides' deviations from the mean."""

    @classmethod
    def zero(cls, sides: list[tuple[Tensor, Tensor]]) -> "_Total":
        width = 1 + max(int(left.max()) for left, _ in sides)
        comoments = [torch.zeros(len(i), len(j), dtype=torch.float64) for i, j in sides]
        zeros = torch.zeros(width, dtype=torch.float64)
        return cls(sides, 0.0, zeros, zeros, comoments)

    def begin(self, shift: Tensor) -> None:
        """Take the shift and the device of the first rows."""
        self.sides = [(i.to(shift.device), j.to(shift.device)) for i, j in self.sides]
        self.comoments = [total.to(shift.device) for total in self.comoments]
        self.shift, self.mean = shift, torch.zeros_like(shift)

    def joined(self, other: "_Total") -> "_Total":
        """Return the total of both sets of rows (the pairwise update of Chan et al.)."""
        if not self.count or not other.count:
            return other if not self.count else self
        count = self.count + other.count
        delta = other.mean - self.mean + (other.shift - self.shift)
        factor = self.count * other.count / count
        comoments = [
            (mine + theirs).addr_(delta[i], delta[j], alpha=factor)
            for (i, j), mine, theirs in zip(
                self.sides, self.comoments, other.comoments, strict=True
            )
        ]
        mean = self.mean + delta * (other.count / count)
        return _Total(self.sides, count, self.shift, mean, comoments)

    def all_reduced(self, counts: list[float]) -> "_Total":
        """Return the total over ranks, given the count of each."""
        count = sum(counts)
        if not count:
            return self
        filled = next(rank for rank, rows in enumerate(counts) if rows)
        shift = self.shift.clone()
        dist.broadcast(shift, src=filled)
        local = self.mean + (self.shift - shift)
        mean = local * (self.count / count)
        dist.all_reduce(mean)
        delta = local - mean
        comoments = [
            total + torch.outer(delta[i], delta[j]) * self.count
            for (i, j), total in zip(self.sides, self.comoments, strict=True)
        ]
        for total in comoments:
            dist.all_reduce(total)
        return _Total(self.sides, count, shift, mean, comoments)

    def tensors(self) -> dict[str, Tensor]:
        """Return what :meth:`restore` needs besides the count."""
        numbered = {f"comoment.{k}": total for k, total in enumerate(self.comoments)}
        return {"shift": self.shift, "mean": self.mean, **numbered}

    def restore(self, count: float, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave."""
        self.count, self.shift, self.mean = count, tensors["shift"], tensors["mean"]
        self.comoments = [tensors[f"comoment.{k}"] for k in range(len(self.sides))]


def _checked_widths(n_features: Mapping[Any, int]) -> dict[View, int]:
    if not n_features:
        raise ValueError("n_features is empty; name at least one view, {view: width}")
    for view, width in n_features.items():
        if width < 1:
            raise ValueError(f"view {view!r} has width {width}, expected 1 or more")
    return dict(n_features)


def _checked_weight(weight: Array, n: int) -> Tensor:
    checked = as_tensor(weight).double()
    if checked.shape != (n,):
        raise ValueError(f"weight has shape {tuple(checked.shape)}, expected ({n},)")
    if not (checked.isfinite() & (checked >= 0)).all():
        raise ValueError("weight holds negative or non-finite entries; pass 0 to skip a row")
    return checked


def _columns(n_features: Mapping[Any, int]) -> dict[View, tuple[int, int]]:
    """Return the first column of each view and the one after its last, views side by side."""
    ends = list(accumulate(n_features.values(), initial=0))
    return dict(zip(n_features, pairwise(ends), strict=True))


def _products(views: tuple[View, ...], pairs: Pairs) -> list[_Product]:
    """Return the fewest products that hold the wanted pairs and each view's own covariance."""
    if isinstance(pairs, str):
        _checks.one_of(pairs, ("all", "within-layer"), "pairs")
        groups = [views] if pairs == "all" else _layers(views)
        return [(group, group) for group in groups]
    unknown = [view for pair in pairs for view in pair if view not in views]
    if unknown:
        raise ValueError(f"pairs names unknown view {unknown[0]!r}, the views are {_listed(views)}")
    own: list[_Product] = [((view,), (view,)) for view in views]
    wanted = {frozenset(pair): ((pair[0],), (pair[1],)) for pair in pairs if pair[0] != pair[1]}
    return [*own, *wanted.values()]


def _layers(views: tuple[View, ...]) -> list[tuple[View, ...]]:
    """Group ``(seed, layer)`` views by layer."""
    layers: dict[View, list[View]] = {}
    for view in views:
        if not (isinstance(view, tuple) and len(view) == 2):
            raise ValueError(f"pairs='within-layer' needs (seed, layer) views, not {view!r}")
        layers.setdefault(view[1], []).append(view)
    return [tuple(group) for group in layers.values()]


def _coarse_mean(x: Tensor) -> Tensor:
    """Return the column means, rounded to a power of two near the standard deviation.

    On such a grid subtracting the mean costs no digits; a constant column gives its value, so
    that its variance is exactly zero.
    """
    x = x.double()
    deviation = x.std(dim=0, correction=0)
    grid = torch.exp2(torch.log2(deviation.clamp_min(torch.finfo(torch.float64).tiny)).ceil())
    constant = (x == x[0]).all(dim=0)
    return torch.where(constant, x[0], (x.mean(dim=0) / grid).round() * grid)


def _weighted_sum(x: Tensor, weight: Tensor | None) -> Tensor:
    if weight is not None:
        return weight @ x.double()
    # A sum with dtype=float64 would convert all rows first; so few lose no digits in their own.
    parts = [part.sum(dim=0) for part in x.split(_SUM_ROWS)]
    return torch.stack(parts).sum(dim=0, dtype=torch.float64)


def _resolution(dtype: torch.dtype, precision: Precision) -> float:
    """Return the smallest eigenvalue of a correlation matrix that stands out of rounding."""
    if dtype == torch.float64:
        return 1e-10
    products = 1e-10 if precision == "exact" else 1e-6
    rows = torch.bfloat16 if precision == "fast" else dtype
    # Rounding puts noise of eps^2 / 12 (1 + mean^2 / variance) into null directions; the factor
    # allows for means of ten deviations.
    return max(products, 8 * torch.finfo(rows).eps ** 2)


def _with_tuples(value: Any) -> Any:
    """Undo what JSON does to tuples; dictionaries are left as they are."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _listed(views: Iterable[View]) -> str:
    return ", ".join(map(repr, views))
