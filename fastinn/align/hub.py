"""One bijection a seed into a common space, and through it every pair of seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import Any, Self, TypeAlias

from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from fastinn import _checks
from fastinn._arrays import as_tensor
from fastinn._types import Array, View
from fastinn.align._consensus import COMMON, Consensus, WithConsensus
from fastinn.align._hub_map import HubMap
from fastinn.align._trained import TrainedAligner
from fastinn.align._views import view_from_json, view_to_json
from fastinn.align.base import Bijection, Estimator, estimator_class
from fastinn.align.inn import INN
from fastinn.align.moment import Factors, MomentAligner
from fastinn.moments import Moments, Pairs

Rows: TypeAlias = Mapping[Any, Array]
SeedBlock: TypeAlias = tuple[Rows, Array]
"""Rows of every seed and the int64 document number of each row."""


class Hub(Estimator):
    r"""Bijections :math:`g_s` of all seeds into one space; a pair is :math:`g_t^{-1} \circ g_s`.

    ``S`` maps (``S - 1`` with a pivot) serve all ``S (S - 1)`` directed pairs, and going round any
    cycle of seeds leads back to where it began, up to rounding.

    Args:
        template: The bijection to fit for every seed, unfitted: :class:`INN` (the default),
            :class:`PublishedBertINN`, :class:`CCA`, :class:`Procrustes`.
        pivot: Seed whose space is the common one; ``None`` takes a consensus of all seeds, the
            :class:`GCCA` components of their moments, in units such that errors count as they
            do in the seeds.
        n_jobs: Seeds whose maps are trained at the same time, by :meth:`fit`.

    Attributes:
        maps_: The bijection of each seed into the common space; the pivot has none.
        seeds_: Names of the seeds.
        n_features_in_: Width of all spaces.

    Example:
        >>> hub = Hub(INN(), pivot="seed-0").fit({"seed-0": x, "seed-1": y, "seed-2": z})
        >>> z_from_y = hub.transform(y, "seed-1", "seed-2")

    Source: the consensus is that of Kettenring 1971, see :class:`GCCA`.
    """

    maps_: dict[View, Bijection]
    seeds_: list[View]
    n_features_in_: int

    def __init__(
        self, template: Bijection | None = None, *, pivot: View | None = None, n_jobs: int = 1
    ) -> None:
        self.template = template
        self.pivot = pivot
        self.n_jobs = n_jobs

    def fit(
        self, rows: Rows, *, documents: Array | None = None, validation: Rows | None = None
    ) -> Self:
        """Learn from paired rows in memory.

        Args:
            rows: ``{seed: (n, d)}``; row ``i`` is the same token in all.
            documents: Integer document of each row, for a template that is trained; see
                :meth:`INN.fit`.
            validation: Rows to validate on, in the form of ``rows``, likewise.

        Returns:
            Itself.

        Raises:
            TypeError: If the template is no bijection.
            ValueError: If there are fewer than two seeds, the pivot is none of them, widths or
                numbers of rows differ, or a row holds NaN or infinity.
            KeyboardInterrupt: If training was cut short: a hub needs all its maps.
        """
        seen = _paired(rows)
        self._check({seed: x.shape[1] for seed, x in seen.items()})
        if isinstance(self._template, MomentAligner):
            return self.from_moments(self._moments(seen).update(seen))
        target = self._common(seen)
        held_out = None if validation is None else _paired(validation)
        jobs = [
            delayed(_trained)(
                self._copy(),
                (seen[seed], target(seen)),
                documents,
                held_out and (held_out[seed], target(held_out)),
            )
            for seed in self._mapped
        ]
        return self._set_maps(Parallel(n_jobs=self.n_jobs)(jobs))

    def fit_stream(self, blocks: Iterable[SeedBlock]) -> Self:
        """Learn from rows that pass by, in memory independent of their number.

        One pass collects moments; each map that is trained takes one more, and one an epoch.

        Args:
            blocks: Can be iterated any number of times and yields ``({seed: (n, d)}, documents)``
                with int64 document numbers ``(n,)``; see :meth:`INN.fit_stream`.

        Returns:
            Itself.

        Raises:
            TypeError, ValueError, KeyboardInterrupt: As in :meth:`fit`.
        """
        moments = self._streamed(blocks)
        if isinstance(self._template, MomentAligner):
            return self.from_moments(moments)
        target = self._target(Factors(moments))
        return self._set_maps(
            [
                _whole(self._copy().fit_stream(_SeedAndCommon(blocks, seed, target)))
                for seed in self._mapped
            ]
        )

    def from_moments(self, moments: Moments | Factors, seeds: Sequence[View] | None = None) -> Self:
        """Learn from moments alone, if the template is a closed form.

        Args:
            moments: Moments of the seeds and all their pairs (with a pivot, of its pairs).
            seeds: The views to connect; ``None`` stands for all.

        Returns:
            Itself.

        Raises:
            TypeError: If the template needs rows.
            ValueError: As in :meth:`fit`, or if two seeds were not multiplied.
        """
        factors = Factors.of(moments)
        views = factors.moments.views if seeds is None else seeds
        self._check({view: len(factors.mean(view)) for view in views})
        template = self._template
        if not isinstance(template, MomentAligner):
            raise TypeError(f"{type(template).__name__} is trained on rows; call fit or fit_stream")
        common = self.pivot
        if self.pivot is None:
            consensus = Consensus(factors, self.seeds_)
            factors, common = Factors(WithConsensus(factors, consensus)), COMMON
        return self._set_maps(
            [clone(template).from_moments(factors, seed, common) for seed in self._mapped]
        )

    def aligner(self, source: View, target: View) -> HubMap:
        """Return the bijection from ``source`` to ``target``.

        Raises:
            NotFittedError: If there was no fit.
            ValueError: If one of them is no seed of the hub.
        """
        check_is_fitted(self, "maps_")
        for seed in (source, target):
            if seed not in self.seeds_:
                listed = ", ".join(map(repr, self.seeds_))
                raise ValueError(f"unknown seed {seed!r}, the hub connects {listed}")
        into, out_of = self.maps_.get(source), self.maps_.get(target)
        return HubMap(into, out_of, n_features=self.n_features_in_)

    def transform(self, X: Array, source: View, target: View) -> Array:
        """Map rows of ``source``, shape ``(n, d)``, into the space of ``target``.

        Raises:
            NotFittedError, ValueError: As in :meth:`aligner` and :meth:`Aligner.transform`.
        """
        return self.aligner(source, target).transform(X)

    def score(self, rows: Rows) -> float:
        """Return the variance-weighted R2 of paired rows, mean over all directed pairs.

        Args:
            rows: Paired rows of seeds of the hub, two or more.

        Raises:
            ValueError: If there are fewer, one is unknown, or rows are not paired and finite.
        """
        pairs = list(permutations(_paired(rows), 2))
        _checks.at_least(len(pairs), 2, "the number of directed pairs in rows")
        return sum(self.aligner(s, t).score(rows[s], rows[t]) for s, t in pairs) / len(pairs)

    @property
    def _template(self) -> Any:
        return INN() if self.template is None else self.template

    def _copy(self) -> Any:
        copied = clone(self._template)
        # Bars of several processes would overwrite each other.
        return copied if self.n_jobs == 1 else copied.set_params(progress=False)

    @property
    def _mapped(self) -> list[View]:
        return [seed for seed in self.seeds_ if seed != self.pivot]

    def _check(self, widths: Mapping[View, int]) -> None:
        """Check the seeds and take their names and width."""
        if not isinstance(self._template, Bijection):
            raise TypeError(
                f"the template is {type(self._template).__name__}, which has no inverse; a hub "
                "needs a bijection such as INN or CCA"
            )
        if len(widths) < 2:
            raise ValueError(f"a hub connects two seeds or more, these are {list(widths)}")
        if self.pivot is not None and self.pivot not in widths:
            raise ValueError(f"pivot is {self.pivot!r}, expected one of {list(widths)}")
        (first, width), *others = widths.items()
        for seed, other in others:
            if other != width:
                raise ValueError(
                    f"seed {first!r} has {width} features and {seed!r} has {other}: bijections "
                    "need equally many"
                )
        self.seeds_, self.n_features_in_ = list(widths), width

    def _moments(self, rows: Mapping[Any, Tensor]) -> Moments:
        """Return empty moments of what the common space needs."""
        pairs: Pairs = "all" if self.pivot is None else [(s, self.pivot) for s in self._mapped]
        widths = {seed: x.shape[1] for seed, x in rows.items()}
        return Moments(widths, pairs=pairs, precision="exact")

    def _streamed(self, blocks: Iterable[SeedBlock]) -> Moments:
        moments = None
        for rows, _ in blocks:
            seen = _paired(rows)
            if moments is None:
                self._check({seed: x.shape[1] for seed, x in seen.items()})
                moments = self._moments(seen)
            moments.update(seen)
        if moments is None:
            raise ValueError("there are no rows to learn from; give blocks with rows in them")
        return moments

    def _common(self, seen: Mapping[View, Tensor]) -> "_Target":
        if self.pivot is not None:
            return _Target(self.pivot, None)
        return self._target(Factors(self._moments(seen).update(seen)))

    def _target(self, factors: Factors) -> "_Target":
        return _Target(self.pivot, Consensus(factors, self.seeds_) if self.pivot is None else None)

    def _set_maps(self, maps: Iterable[Bijection]) -> Self:
        self.maps_ = dict(zip(self._mapped, maps, strict=True))
        return self

    def _saved_params(self) -> dict[str, Any]:
        template = self._template
        kind = {"class": type(template).__name__, "params": template._saved_params()}
        return {"template": kind, "pivot": view_to_json(self.pivot), "n_jobs": self.n_jobs}

    @classmethod
    def _with_params(cls, params: dict[str, Any]) -> Self:
        template = estimator_class(params["template"]["class"])
        return cls(
            template._with_params(params["template"]["params"]),
            pivot=view_from_json(params["pivot"]),
            n_jobs=params["n_jobs"],
        )

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors: dict[str, Tensor] = {}
        attributes = []
        for place, fitted in enumerate(self.maps_.values()):
            its_tensors, its_attributes = fitted._state()
            tensors |= {f"{place}.{name}": tensor for name, tensor in its_tensors.items()}
            attributes.append(its_attributes)
        seeds = [view_to_json(seed) for seed in self.seeds_]
        return tensors, {"seeds": seeds, "n_features": self.n_features_in_, "maps": attributes}

    def _restore(self, tensors: dict[str, Tensor], attributes: dict[str, Any]) -> None:
        self.seeds_ = [view_from_json(seed) for seed in attributes["seeds"]]
        self.n_features_in_ = attributes["n_features"]
        maps = [clone(self._template) for _ in attributes["maps"]]
        for place, (fitted, its_attributes) in enumerate(
            zip(maps, attributes["maps"], strict=True)
        ):
            start = f"{place}."
            own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            fitted._restore(own, its_attributes)
        self._set_maps(maps)


@dataclass(frozen=True)
class _Target:
    """Common rows, from the rows of all seeds."""

    pivot: View | None
    consensus: Consensus | None

    def __call__(self, rows: Rows) -> Tensor:
        return rows[self.pivot] if self.consensus is None else self.consensus(rows)


@dataclass(frozen=True)
class _SeedAndCommon:
    """What one map is trained on: an iterable of ``(x, common rows, documents)``."""

    blocks: Iterable[SeedBlock]
    seed: View
    target: _Target

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows, documents in self.blocks:
            seen = _paired(rows)
            yield seen[self.seed], self.target(seen), as_tensor(documents)


def _trained(
    template: TrainedAligner,
    rows: tuple[Tensor, Tensor],
    documents: Array | None,
    validation: tuple[Tensor, Tensor] | None,
) -> TrainedAligner:
    return _whole(template.fit(*rows, documents=documents, validation=validation))


def _whole(fitted: TrainedAligner) -> TrainedAligner:
    if fitted.interrupted_:
        raise KeyboardInterrupt  # with one map cut short there is no hub
    return fitted


def _paired(rows: Rows) -> dict[View, Tensor]:
    """Check rows of several seeds whose row ``i`` is the same sample."""
    seen = {seed: _checks.rows(x, f"seed {seed!r}") for seed, x in rows.items()}
    for first, seed in pairwise(seen):
        _checks.same_rows(seen[first], seen[seed], (f"seed {first!r}", f"seed {seed!r}"))
    return seen
