"""Orthogonal Procrustes: the best rotation, with or without one common scale."""

from torch import Tensor

from fastinn._types import View
from fastinn.align.moment import Factors, MomentBijection


class Procrustes(MomentBijection):
    r"""Rotation :math:`R` and scale :math:`c` that minimise :math:`\|c X R - Y\|`, rows centred.

    The rotation may hold a reflection.

    Args:
        scale: Whether one factor common to all features is fitted too.

    Attributes:
        weight_: ``scale_`` times the rotation, shape ``(d, d)``.
        scale_: The factor; 1 without ``scale``.

    Source: Schönemann 1966, A generalized solution of the orthogonal Procrustes problem.
    """

    scale_: float

    def __init__(self, *, scale: bool = True) -> None:
        self.scale = scale

    def _solve(self, factors: Factors, source: View, target: View) -> None:
        if self.n_features_in_ != self.n_features_out_:
            raise ValueError(
                f"Procrustes needs equal widths: {source!r} has {self.n_features_in_} features, "
                f"{target!r} has {self.n_features_out_}; use LinearMap or CCA"
            )
        left, values, right = factors.svd(source, target, whitened=False)
        self.scale_ = self._best_scale(values, factors.cov(source, source), source, target)
        rotation = left @ right.T
        self.weight_, self.inverse_weight_ = rotation * self.scale_, rotation.T / self.scale_

    def _best_scale(self, values: Tensor, cov: Tensor, source: View, target: View) -> float:
        if not self.scale:
            return 1.0
        check_covariance(values.sum(), source, target)
        return float(values.sum() / cov.trace())


def check_covariance(nuclear_norm: Tensor, source: View, target: View) -> None:
    """Raise ``ValueError`` unless the covariance of two views, of this norm, is more than zero."""
    if not nuclear_norm > 0:
        raise ValueError(
            f"{source!r} and {target!r} have no covariance, so the best scale is 0 and has no "
            "inverse; check the pairing or use Procrustes(scale=False)"
        )
