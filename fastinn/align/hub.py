"""One bijection a seed into a common space, and through it every pair of seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, permutations
from os import PathLike
from typing import Any, Self, TypeAlias

import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from fastinn import _checks, distributed
from fastinn._allocator import reused_buffers
from fastinn._arrays import as_tensor
from fastinn._types import Array, View
from fastinn.align._checkpoints import Checkpoints, opened
from fastinn.align._consensus import COMMON, Consensus, WithConsensus
from fastinn.align._hub_map import HubMap
from fastinn.align._sources import (
    InMemory,
    Pair,
    Source,
    Streamed,
    check_repeatable,
    document_numbers,
    first_of,
    identity_of,
    identity_of_rows,
)
from fastinn.align._together import AsPair, SeedBlocks, SideBySide, Together
from fastinn.align._trained import BUFFER_ROWS, TrainedAligner
from fastinn.align._views import view_from_json, view_to_json
from fastinn.align.base import Bijection, Estimator, estimator_class, whole_or_not
from fastinn.align.inn import INN
from fastinn.align.moment import Factors, MomentAligner
from fastinn.moments import Moments, Pairs

Rows: TypeAlias = Mapping[Any, Array]
SeedBlock: TypeAlias = tuple[Rows, Array]
"""Rows of every seed and the int64 document number of each row."""

_TRAINING = ("history_", "best_step_", "n_steps_", "skipped_steps_", "interrupted_")

# Learning rate as a share of a single map's: an error passes two maps that both move.
_RATE = 0.4


class Hub(Estimator):
    r"""Bijections :math:`g_s` of all seeds into one space; a pair is :math:`g_t^{-1} \circ g_s`.

    ``S`` maps (``S - 1`` with a pivot) serve all ``S (S - 1)`` directed pairs, and going round any
    cycle of seeds leads back to where it began, up to rounding. Maps that are trained start at
    their closed forms and are trained together, every batch from each seed through the common
    space to a random other: the error of pairs is what training minimises.

    Args:
        template: The bijection to fit for every seed, unfitted: :class:`INN` (the default),
            :class:`PublishedBertINN`, :class:`CCA`, :class:`Procrustes`.
        pivot: Seed whose space is the common one; ``None`` takes a consensus of all seeds, the
            :class:`GCCA` components of their moments, in units such that errors count as they
            do in the seeds.

    Attributes:
        maps_: The bijection of each seed into the common space; the pivot has none.
        seeds_: Names of the seeds.
        n_features_in_: Width of all spaces.
        history_: Of a template that is trained, see :class:`INN`; ``"forward_r2"`` is a mean over
            directed pairs, three of each seed at most, and ``"round_trip"`` the worst map's.
        best_step_: Step of the checkpoint that was kept.
        n_steps_: Steps that were made.
        skipped_steps_: Those of them left out because their gradient was not finite.
        interrupted_: Whether Ctrl-C ended training early.

    Example:
        >>> hub = Hub(INN(), pivot="seed-0").fit({"seed-0": x, "seed-1": y, "seed-2": z})
        >>> z_from_y = hub.transform(y, "seed-1", "seed-2")

    Source: the consensus is that of Kettenring 1971, see :class:`GCCA`.
    """

    maps_: dict[View, Bijection]
    seeds_: list[View]
    n_features_in_: int
    _always = ("n_features_in_",)
    history_: dict[str, list[float]]
    best_step_: int
    n_steps_: int
    skipped_steps_: int
    interrupted_: bool

    def __init__(self, template: Bijection | None = None, *, pivot: View | None = None) -> None:
        self.template = template
        self.pivot = pivot

    @whole_or_not
    def fit(
        self,
        rows: Rows,
        *,
        documents: Array | None = None,
        validation: Rows | None = None,
        checkpoint: str | PathLike[str] | None = None,
    ) -> Self:
        """Learn from paired rows in memory.

        Under several ranks, each passes rows of its own to a hub that is trained; see
        :meth:`INN.fit`.

        Args:
            rows: ``{seed: (n, d)}``; row ``i`` is the same token in all.
            documents: Integer document of each row, for a template that is trained; see
                :meth:`INN.fit`.
            validation: Rows to validate on, in the form of ``rows``, likewise.
            checkpoint: Folder of this fit alone, likewise: what a killed fit left there is gone
                on from.

        Returns:
            Itself.

        Raises:
            TypeError: If the template is no bijection.
            ValueError: If there are fewer than two seeds, the pivot is none of them, widths or
                numbers of rows differ, a row holds NaN or infinity, the checkpoint is of another
                hub or other rows, or damaged, or there is one and nothing that is trained.
        """
        seen = _paired(rows)
        self._check({seed: x.shape[1] for seed, x in seen.items()})
        self._check_trained(checkpoint)
        if isinstance(self._template, MomentAligner):
            return self.from_moments(self._moments(seen).update(seen))
        whole = self._side_by_side(seen)
        held_out: float | Pair = self._template.validation
        if validation is not None:
            aside = self._side_by_side(_paired(validation))
            held_out = aside, aside[:, :1]
        numbers = document_numbers(documents, whole)
        kept = opened(checkpoint, self._settings(whole), partial(identity_of_rows, whole, numbers))
        with reused_buffers():
            return self._train(InMemory(whole, whole[:, :1], numbers, held_out), kept)

    @whole_or_not
    def fit_stream(
        self, blocks: Iterable[SeedBlock], *, checkpoint: str | PathLike[str] | None = None
    ) -> Self:
        """Learn from rows that pass by, in memory independent of their number.

        One pass collects moments, and one an epoch trains.

        Args:
            blocks: Can be iterated any number of times and yields ``({seed: (n, d)}, documents)``
                with int64 document numbers ``(n,)``; see :meth:`INN.fit_stream`.
            checkpoint: As in :meth:`fit`, with what :meth:`INN.fit_stream` says about it.

        Returns:
            Itself.

        Raises:
            TypeError, ValueError: As in :meth:`fit`.
        """
        check_repeatable(blocks)
        rows, _ = first_of(blocks)
        seen = _paired(rows)
        self._check({seed: x.shape[1] for seed, x in seen.items()})
        self._check_trained(checkpoint)
        if isinstance(self._template, MomentAligner):
            return self.from_moments(self._streamed(blocks))
        some = self._side_by_side(seen)
        kept = opened(checkpoint, self._settings(some), partial(identity_of, blocks))
        source = Streamed(
            SeedBlocks(_Checked(blocks, self.seeds_)),
            self._template.validation,
            buffer_rows=BUFFER_ROWS,
            validation=None if kept is None else kept.validation(some.device),
        )
        return self._train(source, kept)

    @whole_or_not
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
        factors, common = self._with_common(factors)
        maps = {s: clone(template).from_moments(factors, s, common) for s in self._mapped}
        self.maps_ = maps
        return self

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

    def _train(self, source: Source, kept: Checkpoints | None) -> Self:
        """Train the maps together, from the closed form of each or from a checkpoint."""
        template = self._template
        x, _ = source.validation
        goes_on = kept is not None and kept.found is not None
        maps = self._untrained() if goes_on else self._started(source.moments)
        networks = [maps[seed].network_ if seed in maps else None for seed in self.seeds_]
        together = Together(networks, template.random_state)
        if kept is not None:
            kept.restore(together, source.validation)
        together.to(x.device)
        distributed.same_parameters(together)
        rows = dict(zip(self.seeds_, x.chunk(len(self.seeds_), dim=1), strict=True))
        monitors = [fitted._monitor(rows[seed]) for seed, fitted in maps.items()]
        trainer = template._trainer(
            together,
            together.loss,
            lambda: together.validate(x),
            lambda: {"round_trip": max(monitor()["round_trip"] for monitor in monitors)},
            rate=_RATE,
        )
        for name, value in template._run(trainer, source, kept).items():
            setattr(self, name, value)
        for seed, fitted in maps.items():
            fitted.round_trip_ = fitted._round_trip(rows[seed])
        self.maps_ = maps
        return self

    def _untrained(self) -> dict[View, INN]:
        """Return the map of each seed as it is drawn, to take over a checkpoint."""
        maps = {seed: clone(self._template) for seed in self._mapped}
        for fitted in maps.values():
            fitted._initialise(self.n_features_in_, self.n_features_in_)
        return maps

    def _started(self, moments: Moments) -> dict[View, INN]:
        """Return the map of each seed at its closed form."""
        factors, common = self._with_common(Factors(SideBySide(moments, self.seeds_)))
        maps = {seed: clone(self._template) for seed in self._mapped}
        for seed, fitted in maps.items():
            pair: Any = AsPair(factors, seed, common)
            fitted._begin(self.n_features_in_, self.n_features_in_, pair)
        return maps

    def _settings(self, rows: Tensor) -> dict[str, Any]:
        """Return all that decides about the result but the values of the rows, side by side."""
        return {
            "seeds": [view_to_json(seed) for seed in self.seeds_],
            "pivot": view_to_json(self.pivot),
            **self._template._settings((rows, rows[:, :1])),
        }

    def _with_common(self, factors: Factors) -> tuple[Factors, View]:
        """Return moments that hold the common space, and its name in them."""
        if self.pivot is not None:
            return factors, self.pivot
        consensus = Consensus(factors, self.seeds_)
        return Factors(WithConsensus(factors, consensus)), COMMON

    def _side_by_side(self, rows: Mapping[View, Tensor]) -> Tensor:
        if rows.keys() != set(self.seeds_):
            raise ValueError(f"rows are of the seeds {list(rows)}, expected {self.seeds_}")
        return torch.cat([rows[seed] for seed in self.seeds_], dim=1)

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
        if isinstance(self._template, TrainedAligner):
            self._template._check_parameters()
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

    def _check_trained(self, checkpoint: str | PathLike[str] | None) -> None:
        """Refuse checkpoints of what is solved at once."""
        if checkpoint is not None and isinstance(self._template, MomentAligner):
            raise ValueError(
                f"checkpoint is {str(checkpoint)!r}, but {type(self._template).__name__} is a "
                "closed form, of which nothing is kept; leave checkpoint out, or give a template "
                "that is trained, such as INN"
            )

    def _moments(self, rows: Mapping[Any, Tensor]) -> Moments:
        """Return empty moments of what the common space needs."""
        pairs: Pairs = "all" if self.pivot is None else [(s, self.pivot) for s in self._mapped]
        widths = {seed: x.shape[1] for seed, x in rows.items()}
        return Moments(widths, pairs=pairs, precision="exact")

    def _streamed(self, blocks: Iterable[SeedBlock]) -> Moments:
        moments: Moments | None = None
        for rows, _ in blocks:
            seen = _paired(rows)
            moments = (moments or self._moments(seen)).update(seen)
        assert moments is not None
        return moments

    def _saved_params(self) -> dict[str, Any]:
        fitted = next(iter(self.maps_.values()))  # the template, and what it chose for this width
        kind = {"class": type(fitted).__name__, "params": fitted._saved_params()}
        return {"template": kind, "pivot": view_to_json(self.pivot)}

    @classmethod
    def _with_params(cls, params: dict[str, Any]) -> Self:
        template = estimator_class(params["template"]["class"])
        return cls(
            template._with_params(params["template"]["params"]),
            pivot=view_from_json(params["pivot"]),
        )

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors: dict[str, Tensor] = {}
        attributes = []
        for place, fitted in enumerate(self.maps_.values()):
            its_tensors, its_attributes = fitted._state()
            tensors |= {f"{place}.{name}": tensor for name, tensor in its_tensors.items()}
            attributes.append(its_attributes)
        own = {name: getattr(self, name) for name in _TRAINING if hasattr(self, name)}
        seeds = [view_to_json(seed) for seed in self.seeds_]
        whole = {"n_features_in_": self.n_features_in_, **own}
        return tensors, {"hub": whole, "seeds": seeds, "maps": attributes}

    def _restore(self, tensors: dict[str, Tensor], attributes: dict[str, Any]) -> None:
        self.seeds_ = [view_from_json(seed) for seed in attributes["seeds"]]
        super()._restore({}, attributes["hub"])
        maps = [clone(self._template) for _ in attributes["maps"]]
        for place, (fitted, its_attributes) in enumerate(
            zip(maps, attributes["maps"], strict=True)
        ):
            start = f"{place}."
            own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            fitted._restore(own, its_attributes)
        self.maps_ = dict(zip(self._mapped, maps, strict=True))


@dataclass(frozen=True)
class _Checked:
    """Blocks with the rows of all seeds in order."""

    blocks: Iterable[SeedBlock]
    seeds: Sequence[View]

    def __iter__(self) -> Iterator[tuple[list[Tensor], Tensor]]:
        for rows, documents in self.blocks:
            seen = _paired(rows)
            yield [seen[seed] for seed in self.seeds], as_tensor(documents)


def _paired(rows: Rows) -> dict[View, Tensor]:
    """Check rows of several seeds whose row ``i`` is the same sample."""
    seen = {seed: _checks.rows(x, f"seed {seed!r}") for seed, x in rows.items()}
    for first, seed in pairwise(seen):
        _checks.same_rows(seen[first], seen[seed], (f"seed {first!r}", f"seed {seed!r}"))
    return seen
