"""The class that users hold: checks, blocks of rows, and the files of save and load."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from fastinn import _checks
from fastinn._arrays import as_tensor, like
from fastinn._saved import load_tensors, save_tensors
from fastinn._types import Array, Precision, View
from fastinn.moments._joined import Joined
from fastinn.moments._mispaired import Mispaired
from fastinn.moments._products import Pairs, Place, groups_apart, n_entries, products_of
from fastinn.moments._storage import MomentsSize, zeros
from fastinn.moments._total import Total
from fastinn.ops.second_moments import second_moments
from fastinn.ops.second_moments.reference import product_dtype

_BLOCK_ROWS = 16_384

# Enough for a provisional mean, too few to show in the time of an update.
_SHIFT_ROWS = 1024

_METADATA = "moments"

# Rows that are shifted and summed while they are in the cache; float32 sums of so few lose less
# than the products do. A GPU sums in a tree, and there a launch costs more than the cache saves.
_SUMMED_ROWS = 256


class Moments:
    """Count, means and covariances of paired rows, in memory independent of their number.

    Rows are shifted by a rounded mean of the first block before they are multiplied, so that
    large means cost no digits, and blocks are merged in float64 by the pairwise update, in place.

    Args:
        n_features: Width of each view, ``{view: d}``; a view is a name or ``(seed, layer)``.
        pairs: Which views are multiplied with which: ``"all"``, ``"within-layer"`` (views of the
            same layer), ``"across-seeds"`` (views of different seeds, at any layers) or a list of
            pairs. Each view's own covariance is always there.
        precision: Rounding of the products, see :func:`fastinn.ops.second_moments`.
        mispaired: Whether to accumulate each pair a second time with the rows of every view moved
            by another distance within their block, for :attr:`mispaired`. Doubles the work, but
            for own covariances.
        storage: Folder in which to keep the totals, in an unnamed file that is gone with the
            moments; ``None`` keeps them in memory, on the device of the first rows.

    Attributes:
        n_rows: Number of rows seen, whatever their weights.
        resolution: Smallest eigenvalue of a unit-diagonal covariance that stands out of the
            rounding of the rows and products seen; what is below counts as zero.

    Raises:
        ValueError: If a width is not positive, a pair names an unknown view, there is no room (see
            :meth:`estimate`), or ``storage`` is no folder.

    Source: Chan, Golub and LeVeque 1979; Pebay 2008, SAND2008-6212.
    """

    def __init__(
        self,
        n_features: Mapping[Any, int],
        *,
        pairs: Pairs = "all",
        precision: Precision = "high",
        mispaired: bool = False,
        storage: str | os.PathLike[str] | None = None,
    ) -> None:
        _checks.one_of(precision, get_args(Precision), "precision")
        self.n_features = _checked_widths(n_features)
        self.pairs = pairs
        self.precision: Precision = precision
        self.n_rows = 0
        self.resolution = 0.0
        self.estimate(n_features, pairs=pairs, mispaired=mispaired).check(storage)
        self._has_mispaired = mispaired
        self._products = products_of(self.n_features, pairs, mispaired=mispaired)
        self._groups = groups_apart(self.views, self._products)
        self._total = Total(self.n_features, self._products, storage)
        self._kind: Array = torch.empty(0)

    @staticmethod
    def estimate(
        n_features: Mapping[Any, int], *, pairs: Pairs = "all", mispaired: bool = False
    ) -> MomentsSize:
        """Return what such moments will take, without making them.

        Args:
            n_features: See :class:`Moments`, as for the others.
            pairs: See :class:`Moments`.
            mispaired: See :class:`Moments`.
        """
        products = products_of(n_features, pairs, mispaired=mispaired)
        n_covariances = sum(1 for product in products for _ in product.places())
        return MomentsSize(n_covariances, 8 * n_entries(n_features, products))

    @property
    def views(self) -> tuple[View, ...]:
        """The views, in the order of ``n_features``."""
        return tuple(self.n_features)

    @property
    def count(self) -> float:
        """Sum of the weights: the number of rows where none were given."""
        return self._total.count

    @property
    def mispaired(self) -> Mispaired:
        """The moments of the same rows where no row of a pair of views meets its own token.

        What any statistic gives there it gives where nothing is shared, small-sample bias
        included. A row meets no row of its document either, if documents are shorter than the
        block over the number of groups of views (seeds, for pairs across seeds). Blocks of fewer
        rows than groups are too short to be mispaired; pass larger ones.

        Raises:
            ValueError: If they were not asked for.
        """
        if not self._has_mispaired:
            raise ValueError("no mispaired rows were accumulated; make Moments(mispaired=True)")
        return Mispaired(self)

    def update(self, rows: Mapping[Any, Array], weight: Array | None = None) -> Self:
        """Add a block of paired rows.

        Args:
            rows: One matrix ``(n, d)`` a view; row ``i`` is the same token in all of them.
            weight: Non-negative weight of each row, shape ``(n,)``.

        Returns:
            Itself.

        Raises:
            ValueError: If a view is missing or unknown, widths or numbers of rows differ, a row
                holds NaN or infinity, or rows that are also mispaired are weighted. Nothing is
                added then.
        """
        if weight is not None and self._has_mispaired:
            raise ValueError("mispaired rows have no common weight; leave weight or mispaired out")
        block = self._checked_rows(rows)
        n = len(next(iter(block.values())))
        weights = None if weight is None else _checked_weight(weight, n)
        parts = _parts(n)
        shift = self._shift_of(block)
        sums = [self._shifted_sums(block, part, weights, shift) for part in parts]
        # A sum is finite unless a row is bad (or overflows), and looking costs no other pass.
        if not torch.stack(sums).isfinite().all():
            for view, x in block.items():
                _checks.finite(x, f"view {view!r}")
        first = self.views[0]
        self._kind = like(block[first].new_empty(0), rows[first])
        if not self.count:
            self._total.begin(shift)
        joined = Joined(), Joined()
        for part, total in zip(parts, sums, strict=True):
            self._add(
                {view: x[part] for view, x in block.items()},
                None if weights is None else weights[part],
                total,
                joined,
            )
        return self

    def n_meeting_themselves(self, labels: Tensor) -> int:
        """Count the rows of a block that meet their own label where two views are mispaired.

        Args:
            labels: Integer label of each row of a block as :meth:`update` takes it, such as its
                document, shape ``(n,)``.

        Returns:
            The number for the two views that are moved apart least: of other pairs, fewer meet
            if rows of one label follow one another.
        """
        return sum(
            int((rows == rows.roll(self._least_distance(len(rows)))).sum())
            for rows in (labels[part] for part in _parts(len(labels)))
        )

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
        self._total.merge(other._total)
        self._seen(other.n_rows, other.resolution)
        return self

    def to(self, device: torch.device | str) -> Self:
        """Keep the totals on ``device``, but for those in a file: they stay on the CPU.

        Returns:
            Itself.
        """
        self._total.move(torch.device(device))
        if isinstance(self._kind, Tensor):
            self._kind = self._kind.to(device)
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
        self._total.all_reduce(counts.tolist())
        self.n_rows = int(n_rows.sum())
        self.resolution = float(resolutions.max())
        return self

    def mean(self, view: View) -> Array:
        """Return the mean of a view, shape ``(d,)``, float64, in the kind of the rows."""
        self._check_ready(view)
        columns = self._total.columns[view]
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
        return self.covariance(a, a if b is None else b)

    def covariance(self, a: View, b: View, *, mispaired: bool = False) -> Array:
        """Return what :meth:`cov` does, of mispaired rows if asked and ``b`` is not ``a``."""
        self._check_ready(a, b)
        return like(self._comoment(a, b, mispaired and a != b) / self.count, self._kind)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one safetensors file with JSON metadata; a file that is there is replaced."""
        self.save_with(path, {})

    def save_with(self, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
        """Do what :meth:`save` does, with more metadata in the same file."""
        own = {
            "n_features": list(self.n_features.items()),
            "pairs": self.pairs,
            "precision": self.precision,
            "mispaired": self._has_mispaired,
            "count": self.count,
            "n_rows": self.n_rows,
            "resolution": self.resolution,
        }
        record = {**metadata, _METADATA: json.dumps(own)}
        save_tensors(Path(path), self._total.tensors(), record)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, storage: str | os.PathLike[str] | None = None
    ) -> "Moments":
        """Read a file of :meth:`save`; means and covariances are then given as tensors.

        Args:
            path: The file.
            storage: Folder to keep the totals in, see :class:`Moments`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged or holds something else.
        """
        return cls.load_with(path, storage=storage)[0]

    @classmethod
    def load_with(
        cls, path: str | os.PathLike[str], *, storage: str | os.PathLike[str] | None = None
    ) -> tuple["Moments", dict[str, str]]:
        """Read a file of :meth:`save_with`: the moments and the other metadata."""

        def allocate(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            if name == "comoments":
                return zeros(shape[0], torch.device("cpu"), storage)
            return torch.empty(shape, dtype=dtype)

        tensors, metadata = load_tensors(Path(path), allocate)
        if _METADATA not in metadata:
            raise ValueError(f"{path} holds no moments; pass a file that Moments.save wrote")
        try:
            moments = cls._of_record(json.loads(metadata.pop(_METADATA)), tensors, storage)
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{path} does not describe its moments ({type(error).__name__}: {error}); save "
                "them again"
            ) from error
        return moments, metadata

    @classmethod
    def _of_record(
        cls,
        record: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        storage: str | os.PathLike[str] | None,
    ) -> "Moments":
        moments = cls(
            dict(_with_tuples(record["n_features"])),
            pairs=_with_tuples(record["pairs"]),
            precision=record["precision"],
            mispaired=record["mispaired"],
            storage=storage,
        )
        moments._seen(record["n_rows"], record["resolution"])
        moments._total.restore(record["count"], tensors)
        return moments

    def _shift_of(self, block: Mapping[View, Tensor]) -> Tensor:
        """Return the shift, where the rows are; of the first rows, if there were none."""
        if not self.count:
            return torch.cat([_coarse_mean(x[:_SHIFT_ROWS]) for x in block.values()])
        self._total.move(block[self.views[0]].device)
        return self._total.shift

    def _shifted_sums(
        self, block: Mapping[View, Tensor], part: slice, weight: Tensor | None, shift: Tensor
    ) -> Tensor:
        """Return the weighted sum of some shifted rows of all views, one after the other."""
        weight = None if weight is None else weight[part]
        return torch.cat(
            [
                self._shifted_sum(x[part], shift[self._total.columns[view]], weight)
                for view, x in block.items()
            ]
        )

    def _shifted_sum(self, x: Tensor, shift: Tensor, weight: Tensor | None) -> Tensor:
        """Return the weighted sum of the shifted rows, rounded as they are for the products."""
        dtype = product_dtype(x.dtype, self.precision)
        shift = shift.to(dtype)
        total = torch.zeros_like(shift, dtype=torch.float64)
        at_once = _SUMMED_ROWS if x.device.type == "cpu" else _BLOCK_ROWS
        memory = shift.new_empty(min(at_once, len(x)), len(shift))
        for start in range(0, len(x), at_once):
            part = slice(start, start + at_once)
            rows = x[part]
            shifted = torch.sub(rows, shift, out=memory[: len(rows)])
            total += shifted.sum(dim=0) if weight is None else weight[part] @ shifted.double()
        return total

    def _add(
        self,
        block: Mapping[View, Tensor],
        weight: Tensor | None,
        total: Tensor,
        joined: tuple[Joined, Joined],
    ) -> None:
        """Add checked rows, few enough to be multiplied at once, whose shifted sum is known.

        Memory to join rows in is that of the left side of a product and of the right.
        """
        n_rows = len(block[self.views[0]])
        count = float(n_rows if weight is None else weight.sum())
        # Rows of weight zero have no mean; their count of zero then keeps them out.
        mean = total / (count or 1.0)
        self._total.add(count, mean, self._block_comoments(block, weight, count, mean, joined))
        resolution = max(_resolution(x.dtype, self.precision) for x in block.values())
        self._seen(n_rows, resolution)

    def _block_comoments(
        self,
        block: Mapping[View, Tensor],
        weight: Tensor | None,
        count: float,
        mean: Tensor,
        joined: tuple[Joined, Joined],
    ) -> Iterator[tuple[Place, Tensor]]:
        """Yield the sums of products about the mean of this block, place by place."""
        root = count**0.5
        for product in self._products:
            x, shift_x = self._side(block, product.left, product.mispaired, joined[0])
            right = (
                (None, None)
                if product.is_symmetric
                else self._side(block, product.right, product.mispaired, joined[1])
            )
            products = second_moments(
                x,
                right[0],
                weight=weight,
                shift=shift_x,
                shift_y=right[1],
                precision=self.precision,
            )
            for place in product.places():
                rows = self._within(place.a, product.left)
                columns = self._within(place.b, product.right)
                left_mean, right_mean = (mean[self._total.columns[v]] for v in (place.a, place.b))
                # A root on each side: own covariances stay symmetric to the last bit.
                comoment = products[rows, columns]
                yield place, comoment.addr_(root * left_mean, root * right_mean, alpha=-1)

    def _least_distance(self, n_rows: int) -> int:
        """Return by how far mispaired rows of two views are moved apart at least."""
        return max(1, n_rows // (1 + max(self._groups.values())))

    def _side(
        self, block: Mapping[View, Tensor], views: tuple[View, ...], mispaired: bool, joined: Joined
    ) -> tuple[Tensor, Tensor]:
        """Return rows and shift of some views side by side."""
        rows = [block[view] for view in views]
        if mispaired:
            stride = self._least_distance(len(rows[0]))
            distances = [self._groups[view] * stride for view in views]
            rows = [x.roll(by, dims=0) for x, by in zip(rows, distances, strict=True)]
        shift = torch.cat([self._total.shift[self._total.columns[view]] for view in views])
        return joined(rows), shift

    def _seen(self, n_rows: int, resolution: float) -> None:
        self.n_rows += n_rows
        self.resolution = max(self.resolution, resolution)

    def _comoment(self, a: View, b: View, mispaired: bool) -> Tensor:
        for place, transposed in ((Place(a, b, mispaired), False), (Place(b, a, mispaired), True)):
            if self._total.holds(place):
                comoment = self._total.comoment(place)
                return comoment.T if transposed else comoment
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
        block = {view: _checks.matrix(rows[view], f"view {view!r}") for view in self.views}
        first, *others = self.views
        for view, x in block.items():
            _checks.n_features(x, self.n_features[view], f"view {view!r}", "expected")
            if x.requires_grad and torch.is_grad_enabled():
                raise ValueError(
                    f"view {view!r} requires a gradient and moments have none; pass x.detach(), or "
                    "update under torch.no_grad()"
                )
        for view in others:
            _checks.same_rows(block[first], block[view], (f"view {first!r}", f"view {view!r}"))
        return block


def _parts(n_rows: int) -> list[slice]:
    """Return which rows of a block are multiplied at once.

    The parts are of nearly equal size: a short rest could not be mispaired.
    """
    n_parts = -(-n_rows // _BLOCK_ROWS)
    return [slice(k * n_rows // n_parts, (k + 1) * n_rows // n_parts) for k in range(n_parts)]


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
