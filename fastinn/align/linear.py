"""Least squares and ridge regression, the ridge chosen on validation rows."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, Self

from torch import Tensor

from fastinn import _checks
from fastinn._types import Array, View
from fastinn.align.moment import Factors, MomentAligner, paired_moments, squared_error
from fastinn.moments import Moments
from fastinn.ops.whiten import Whitening

_CANDIDATES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


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
        self._seen = None
        return self._from_factors(Factors.of(moments), source, target, validation=held_out)

    def _solve(
        self, factors: Factors, source: View, target: View, validation: Factors | None = None
    ) -> None:
        solve = partial(_ridge_weight, factors.whitening(source), factors.cov(source, target))

        def error(ridge: float) -> float:
            if validation is None:
                raise ValueError(
                    "ridge names several candidates: pass validation= to choose on, or one number"
                )
            means = self.x_mean_, self.y_mean_
            return squared_error(validation, source, target, solve(ridge), means)

        candidates = _candidates(self.ridge)
        self.ridge_ = candidates[0] if len(candidates) == 1 else min(candidates, key=error)
        self.weight_ = solve(self.ridge_)


def _ridge_weight(x: Whitening, cov_xy: Tensor, ridge: float) -> Tensor:
    shrinkage = x.eigenvalues / (x.eigenvalues + ridge)
    return (x.whitener * shrinkage) @ (x.whitener.T @ cov_xy)


def _candidates(ridge: float | Sequence[float] | str) -> list[float]:
    if isinstance(ridge, str):
        _checks.one_of(ridge, ("validation",), "ridge")
        return list(_CANDIDATES)
    candidates = [float(r) for r in (ridge if isinstance(ridge, Sequence) else [ridge])]
    if not candidates or min(candidates) < 0:
        raise ValueError(f"ridge is {ridge!r}, expected 0 or more, or several such numbers")
    return candidates
