"""The linear family on many pairs of views at once, from moments alone."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from fastinn._types import Precision, View
from fastinn.align._pair_moments import PairMoments
from fastinn.align.cca import check_ranks, projection_weights, variate_correlations
from fastinn.align.linear import RIDGES, best_ridge, ridge_weight
from fastinn.align.moment import Factors
from fastinn.align.procrustes import check_covariance
from fastinn.moments import Moments
from fastinn.ops.polar import polar
from fastinn.ops.whiten import Whitening

Pair: TypeAlias = tuple[View, View]
_Maps: TypeAlias = tuple[Tensor, Tensor]
"""There and back."""

# About so many matrices of the views' width are held for one pair at the same time.
_MATRICES_A_PAIR = 36


class Spectrum(NamedTuple):
    """Canonical variates of one pair, strongest first."""

    correlations: Tensor
    """On the rows of the fit, shape ``(k,)``."""
    held_out: Tensor
    """Of the same variates on the test rows, shape ``(k,)``."""
    weights: Tensor
    """Share of either view that each accounts for, as in :class:`PWCCA`, shape ``(2, k)``."""


@dataclass(frozen=True)
class PairScores:
    """What the linear family makes of ``p`` pairs ``(a, b)``.

    The columns of what has shape ``(p, 2)`` are ``a`` to ``b`` and ``b`` to ``a``; all is float64.

    Attributes:
        mean_correlation: Mean canonical correlation of the training rows, shape ``(p,)``.
        mean_squared_correlation: Mean of their squares, shape ``(p,)``.
        linear_cka: Linear CKA of the test rows, shape ``(p,)``.
        error: Mean squared length of what a map leaves of the test rows, shape ``(p, 2)``, for
            ``"Procrustes"`` and ``"CCA"`` (a map and its inverse), ``"least squares"`` and, where
            there are validation moments, ``"ridge"`` (a map a direction).
        variance: Mean squared length of the centred test rows of the target, shape ``(p, 2)``.
        ridge: The ridge that was chosen, shape ``(p, 2)``.
        rotation: Procrustes rotation from ``a`` to ``b``, shape ``(p, d, d)``, if asked for.
        spectrum: One a pair, if asked for; else empty.
    """

    mean_correlation: Tensor
    mean_squared_correlation: Tensor
    linear_cka: Tensor
    error: dict[str, Tensor]
    variance: Tensor
    ridge: Tensor | None
    rotation: Tensor | None
    spectrum: list[Spectrum]

    def r2(self, method: str) -> Tensor:
        """Return the variance-weighted R2 of a method of ``error``, shape ``(p, 2)``."""
        return 1 - self.error[method] / self.variance


def all_pairs(
    train: Moments | Factors,
    pairs: Sequence[Pair],
    *,
    test: Moments | Factors | None = None,
    validation: Moments | Factors | None = None,
    rotations: bool = False,
    spectra: bool = False,
    precision: Precision = "exact",
    memory: int = 2**30,
) -> PairScores:
    """Fit and score the linear family on many pairs of views of one width.

    Gives what :class:`Procrustes`, :class:`CCA` and :class:`LinearMap` give pair by pair, with
    one whitening a view and products over batches of pairs. Where :func:`fastinn.ops.polar` does
    without decompositions (on a GPU), no pair is decomposed, unless spectra are asked for.

    Args:
        train: Moments of the rows to fit on, or their :class:`Factors`.
        pairs: Pairs of views; all views have the same width.
        test: Moments of the rows to score on; ``None`` stands for ``train``.
        validation: Moments of the rows to choose the ridge on; ``None`` leaves ridge out.
        rotations: Whether to return the Procrustes rotations.
        spectra: Whether to return all canonical correlations, not their mean alone.
        precision: Of the products of :func:`fastinn.ops.polar`.
        memory: Bytes that the pairs worked on at the same time may take, about.

    Raises:
        ValueError: If there are no pairs, widths differ, a view does not vary or has too few
            rows, or the views of a pair have no covariance or were not multiplied.
    """
    fit = Factors.of(train)
    solver = _Solver(
        fit,
        fit if test is None else Factors.of(test),
        None if validation is None else Factors.of(validation),
        rotations,
        spectra,
        precision,
    )
    chunks = list(_chunks(fit, pairs, memory))
    parts = [solver.solve([pairs[place] for place in chunk]) for chunk in chunks]
    return _in_order(parts, [place for chunk in chunks for place in chunk])


@dataclass(frozen=True)
class _Solver:
    train: Factors
    test: Factors
    validation: Factors | None
    rotations: bool
    spectra: bool
    precision: Precision

    def solve(self, pairs: Sequence[Pair]) -> PairScores:
        """Solve pairs whose views have the same two ranks, side by side."""
        fit, test = _stacked(self.train, pairs), _stacked(self.test, pairs)
        x, y = (self._whitening(views) for views in zip(*pairs, strict=True))
        whitened = x.whitener.mT @ fit.cov_xy @ y.whitener
        k = min(x.rank, y.rank)
        variance = torch.stack([test.variance(), test.reversed().variance()], dim=1)
        _check_variance(variance, pairs)
        turn, total, spectrum = self._canonical(whitened, x, y, fit, test)
        rotation, shared = polar(fit.cov_xy, precision=self.precision)
        for norm, pair in zip(shared.cpu(), pairs, strict=True):
            check_covariance(norm, *pair)
        ridge, regressions = self._regressions(pairs, x, y, fit)
        maps = {
            "Procrustes": _scaled(rotation, shared, fit),
            "CCA": _canonical_maps(x, y, turn),
            **regressions,
        }
        return PairScores(
            mean_correlation=total / k,
            mean_squared_correlation=whitened.square().sum(dim=(-2, -1)) / k,
            linear_cka=test.linear_cka(),
            error={name: _errors(both, fit, test) for name, both in maps.items()},
            variance=variance,
            ridge=ridge,
            rotation=rotation if self.rotations else None,
            spectrum=spectrum,
        )

    def _whitening(self, views: Sequence[View]) -> Whitening:
        """Stack the whitenings of views of one rank."""
        whitenings = [self.train.whitening(view) for view in views]
        return Whitening(*map(torch.stack, zip(*whitenings, strict=True)))

    def _canonical(
        self, whitened: Tensor, x: Whitening, y: Whitening, fit: PairMoments, test: PairMoments
    ) -> tuple[Tensor, Tensor, list[Spectrum]]:
        """Return the polar factors, the sums of the correlations and the wanted spectra."""
        if not self.spectra:
            return *polar(whitened, precision=self.precision), []
        u, values, vh = torch.linalg.svd(whitened, full_matrices=False)
        a, b = x.whitener @ u, y.whitener @ vh.mT
        spectra = [
            Spectrum(
                values[i].clamp(max=1),
                variate_correlations(a[i], b[i], PairMoments(*(part[i] for part in test))),
                torch.stack(
                    [
                        projection_weights(a[i], fit.cov_xx[i]),
                        projection_weights(b[i], fit.cov_yy[i]),
                    ]
                ),
            )
            for i in range(len(values))
        ]
        return u @ vh, values.sum(dim=-1), spectra

    def _regressions(
        self, pairs: Sequence[Pair], x: Whitening, y: Whitening, fit: PairMoments
    ) -> tuple[Tensor | None, dict[str, _Maps]]:
        """Return the chosen ridges, shape ``(c, 2)``, and the maps without and with them."""
        back = fit.reversed()
        none = fit.cov_xy.new_zeros(len(pairs))
        maps = {"least squares": (ridge_weight(x, fit, none), ridge_weight(y, back, none))}
        if self.validation is None:
            return None, maps
        other = _stacked(self.validation, pairs)
        there = best_ridge(x, fit, other, RIDGES)
        homeward = best_ridge(y, back, other.reversed(), RIDGES)
        maps["ridge"] = ridge_weight(x, fit, there), ridge_weight(y, back, homeward)
        return torch.stack([there, homeward], dim=1), maps


def _scaled(rotation: Tensor, shared: Tensor, fit: PairMoments) -> _Maps:
    """Return the Procrustes maps, with the best scale from ``x`` to ``y``."""
    scale = (shared / fit.reversed().variance())[:, None, None]
    return rotation * scale, rotation.mT / scale


def _canonical_maps(x: Whitening, y: Whitening, turn: Tensor) -> _Maps:
    """Return the CCA maps; see :class:`CCA`."""
    there = x.whitener @ turn @ y.colouring
    back = y.whitener @ turn.mT @ x.colouring
    if x.rank == y.rank:
        there, back = there + x.null @ y.null_colouring, back + y.null @ x.null_colouring
    return there, back


def _errors(maps: _Maps, fit: PairMoments, test: PairMoments) -> Tensor:
    """Return the mean squared errors there and back on the test rows, shape ``(c, 2)``."""
    there = test.squared_error(maps[0], (fit.mean_x, fit.mean_y))
    back = test.reversed().squared_error(maps[1], (fit.mean_y, fit.mean_x))
    return torch.stack([there, back], dim=1)


def _stacked(factors: Factors, pairs: Sequence[Pair]) -> PairMoments:
    return PairMoments(
        *map(torch.stack, zip(*(factors.pair(*pair) for pair in pairs), strict=True))
    )


def _chunks(factors: Factors, pairs: Sequence[Pair], memory: int) -> Iterator[list[int]]:
    """Yield the places of pairs of the same ranks, as many as fit into memory."""
    _check_widths(factors, pairs)
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        whitenings = {view: factors.whitening(view) for view in pair}
        check_ranks(factors, whitenings, ridge=0.0)
        alike[whitenings[pair[0]].rank, whitenings[pair[1]].rank].append(place)
    width = len(factors.mean(pairs[0][0]))
    size = max(1, memory // (8 * _MATRICES_A_PAIR * width**2))
    for places in alike.values():
        for start in range(0, len(places), size):
            yield places[start : start + size]


def _check_widths(factors: Factors, pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise ValueError("there are no pairs to solve; name at least one, [(view, view)]")
    first = pairs[0][0]
    for view in (view for pair in pairs for view in pair):
        widths = len(factors.mean(first)), len(factors.mean(view))
        if widths[0] != widths[1]:
            raise ValueError(
                f"all_pairs needs equal widths: {first!r} has {widths[0]} features, {view!r} has "
                f"{widths[1]}; solve pairs of another width apart, or by LinearMap or CCA"
            )


def _check_variance(variance: Tensor, pairs: Sequence[Pair]) -> None:
    for targets, pair in zip(variance.tolist(), pairs, strict=True):
        for view, size in zip(reversed(pair), targets, strict=True):
            if not size > 0:
                raise ValueError(f"{view!r} does not vary on the rows to score on; use more rows")


def _in_order(parts: list[PairScores], places: list[int]) -> PairScores:
    """Join scores of several pairs each and bring all pairs to their places."""
    order = sorted(range(len(places)), key=places.__getitem__)
    columns = {
        field.name: [getattr(part, field.name) for part in parts] for field in fields(PairScores)
    }
    return PairScores(**{name: _joined(column, order) for name, column in columns.items()})


def _joined(column: list[Any], order: list[int]) -> Any:
    first = column[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(column)[order]
    if isinstance(first, dict):
        return {name: _joined([part[name] for part in column], order) for name in first}
    whole = [item for part in column for item in part]
    return [whole[place] for place in order] if whole else []
