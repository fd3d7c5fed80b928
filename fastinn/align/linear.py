"""Least squares and ridge regression, the ridge chosen on validation rows."""

from collections.abc import Sequence
from typing import Literal, Self, cast

import numpy as np
import torch
from torch import Tensor

from fastinn import _checks
from fastinn._types import Array, View
from fastinn.align._pair_moments import PairMoments
from fastinn.align.moment import Factors, MomentAligner, paired_moments
from fastinn.moments import Moments
from fastinn.ops.whiten import Whitening

RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class LinearMap(MomentAligner):
    r"""Least-squares map :math:`W = (C_{xx} + \lambda D)^{-1} C_{xy}` of centred rows.

    Directions in which the source does not vary are left out, so collinear and constant features
    and fewer rows than features give the solution of least norm.

    Args:
        ridge: Strength :math:`\lambda`, in units of each feature's variance (:math:`D` is the
            diagonal of :math:`C_{xx}`), or several to choose from by the error on validation
            rows; ``"validation"`` offers 0 and the powers of ten from 1e-6 to 1.

    Attributes:
        ridge_: The strength that was used.
    """

    ridge_: float

    def __init__(self, *, ridge: float | Sequence[float] | Literal["validation"] = 0.0) -> None:
        self.ridge = ridge

    def fit(self, X: Array, Y: Array, *, validation: tuple[Array, Array] | None = None) -> Self:
        """Learn the map from rows ``X`` to rows ``Y``; row ``i`` is the same token in both.

        Args:
            X: Source rows, shape ``(n, d_x)``.
            Y: Target rows, shape ``(n, d_y)``.
            validation: Other such rows, on which the ridge is chosen.

        Returns:
            Itself.

        Raises:
            ValueError: If numbers of rows differ, a row holds NaN or infinity, or there are
                several ridges and no validation rows.
        """
        seen = paired_moments(X, Y)
        held_out = None if validation is None else paired_moments(*validation)
        self.from_moments(seen, "X", "Y", validation=held_out)
        self._seen = seen
        return self

    def from_moments(
        self,
        moments: Moments | Factors,
        source: View,
        target: View,
        *,
        validation: Moments | Factors | None = None,
    ) -> Self:
        """Learn the map from the view ``source`` to the view ``target``.

        Args:
            moments: Moments of both views and their product, or their :class:`Factors`.
            source: View to map from.
            target: View to map into.
            validation: The same of other rows, on which the ridge is chosen.

        Returns:
            Itself.

        Raises:
            ValueError: If a view is unknown, their product was not accumulated, or there are
                several ridges and no validation moments.
        """
        held_out = None if validation is None else Factors.of(validation)
        self._from_factors(Factors.of(moments), source, target, validation=held_out)
        self._seen = None
        return self

    def _solve(
        self, factors: Factors, source: View, target: View, validation: Factors | None = None
    ) -> None:
        x, fit = factors.whitening(source), factors.pair(source, target)
        candidates = _candidates(self.ridge)
        if len(candidates) == 1:
            ridge = torch.tensor(candidates[0], dtype=torch.float64)
        elif validation is not None:
            ridge = best_ridge(x, fit, validation.pair(source, target), candidates)
        else:
            raise ValueError(
                "ridge names several candidates: pass validation= to choose on, or one number"
            )
        self.ridge_ = float(ridge)
        self.weight_ = ridge_weight(x, fit, ridge)


def ridge_weight(x: Whitening, fit: PairMoments, ridge: Tensor) -> Tensor:
    """Solve ridge regression of one pair or several.

    Args:
        x: Whitening of the source, without a ridge.
        fit: Moments of the rows to fit on.
        ridge: In units of each feature's variance, shape ``(...)``.

    Returns:
        Shape ``(..., d_x, d_y)``.
    """
    shrinkage = _shrinkage(x, ridge[..., None])[..., 0, :]
    return (x.whitener * shrinkage[..., None, :]) @ (x.whitener.mT @ fit.cov_xy)


def best_ridge(
    x: Whitening, fit: PairMoments, validation: PairMoments, candidates: Sequence[float]
) -> Tensor:
    """Return the candidate of least error on validation rows, shape ``(...)``.

    In the coordinates that diagonalise the covariance of the source, the error is a quadratic
    function of the shrinkage, so that five products serve all candidates.
    """
    ridges = torch.tensor(candidates, dtype=torch.float64, device=x.whitener.device)
    shrinkage = _shrinkage(x, ridges)
    target = x.whitener.mT @ fit.cov_xy
    spread = x.whitener.mT @ validation.cov_xx @ x.whitener
    squares = ((shrinkage @ (spread * (target @ target.mT))) * shrinkage).sum(dim=-1)
    joint = (target * (x.whitener.mT @ validation.cov_xy)).sum(dim=-1)
    moved = ((validation.mean_x - fit.mean_x)[..., None, :] @ x.whitener) * shrinkage @ target
    shift = moved + (fit.mean_y - validation.mean_y)[..., None, :]
    errors = squares - 2 * (shrinkage @ joint[..., None])[..., 0] + shift.square().sum(dim=-1)
    return ridges[errors.argmin(dim=-1)]


def _shrinkage(x: Whitening, ridges: Tensor) -> Tensor:
    """Return by how much ``k`` ridges shrink each direction, shape ``(..., k, r)``."""
    eigenvalues = x.eigenvalues[..., None, :]
    return eigenvalues / (eigenvalues + ridges.to(eigenvalues.device)[..., None])


def _candidates(ridge: float | Sequence[float] | str) -> list[float]:
    if isinstance(ridge, str):
        _checks.one_of(ridge, ("validation",), "ridge")
        return list(RIDGES)
    several = ridge if isinstance(ridge, Sequence) or np.ndim(ridge) == 1 else [ridge]
    candidates = [float(r) for r in cast(Sequence[float], several)]
    if not candidates or not min(candidates) >= 0:
        raise ValueError(f"ridge is {ridge!r}, expected 0 or more, or several such numbers")
    return candidates
