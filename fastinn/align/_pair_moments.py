"""Means and covariances of one pair of views, or of several pairs side by side."""

from typing import NamedTuple

import torch
from torch import Tensor


class PairMoments(NamedTuple):
    """Moments of rows ``x`` and ``y``; leading dimensions count pairs."""

    mean_x: Tensor
    """Shape ``(..., d_x)``."""
    mean_y: Tensor
    """Shape ``(..., d_y)``."""
    cov_xx: Tensor
    """Shape ``(..., d_x, d_x)``."""
    cov_yy: Tensor
    """Shape ``(..., d_y, d_y)``."""
    cov_xy: Tensor
    """Shape ``(..., d_x, d_y)``."""

    def reversed(self) -> "PairMoments":
        """Return the moments with ``x`` and ``y`` in each other's place."""
        return PairMoments(self.mean_y, self.mean_x, self.cov_yy, self.cov_xx, self.cov_xy.mT)

    def variance(self) -> Tensor:
        r"""Return the mean over rows of :math:`\|y - \bar y\|^2`, shape ``(...)``."""
        return self.cov_yy.diagonal(dim1=-2, dim2=-1).sum(dim=-1)

    def squared_error(self, weight: Tensor, means: tuple[Tensor, Tensor]) -> Tensor:
        r"""Return the mean over rows of :math:`\|\hat y - y\|^2` of an affine map.

        Args:
            weight: Shape ``(..., d_x, d_y)``.
            means: What the map subtracts from ``x``, shape ``(..., d_x)``, and adds to the
                result, shape ``(..., d_y)``.

        Returns:
            Shape ``(...)``.
        """
        mapped = ((self.mean_x - means[0])[..., None, :] @ weight)[..., 0, :]
        shift = mapped + means[1] - self.mean_y
        change = (weight * (self.cov_xx @ weight - 2 * self.cov_xy)).sum(dim=(-2, -1))
        # Rounding can take the error of an exact map below zero.
        return (self.variance() + change + shift.square().sum(dim=-1)).clamp_min(0)

    def linear_cka(self) -> Tensor:
        r"""Return :math:`\|C_{xy}\|_F^2 / (\|C_{xx}\|_F \|C_{yy}\|_F)`, shape ``(...)``."""
        xx, yy, xy = (torch.linalg.matrix_norm(cov) for cov in self[2:])
        return xy / xx * (xy / yy)
