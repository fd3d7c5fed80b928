"""Units of a space: a mean and a scale per feature, so that networks see unit variance."""

import torch
from torch import Tensor, nn

from fastinn._types import View
from fastinn.moments import Moments


class Standard(nn.Module):
    """Standardise the rows of one space and undo it, in float64 where the rows are.

    Args:
        d: Number of features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, d: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(d, dtype=torch.float64))

    def fit(self, moments: Moments, view: View) -> None:
        """Take mean and standard deviation from ``moments``; constant features keep scale 1."""
        deviation = moments.cov(view).diagonal().sqrt()
        self.mean.copy_(moments.mean(view))
        self.scale.copy_(deviation.where(deviation > 0, 1.0))

    def forward(self, rows: Tensor) -> Tensor:
        """Return standardised float32 rows, one after the other in memory."""
        wide = torch.promote_types(rows.dtype, torch.float32)
        # Products of rows in columns may be rounded otherwise, and layout should decide nothing.
        return ((rows - self.mean.to(wide)) / self.scale.to(wide)).float().contiguous()

    def undo(self, rows: Tensor) -> Tensor:
        """Return rows in the units of the space, in float64."""
        return rows.double() * self.scale + self.mean

    def relative_error(self, difference: Tensor) -> Tensor:
        """Mean squared error of standardised rows over the variance, both in the space's units."""
        weight = self.scale / self.scale.square().sum().sqrt()
        return (difference * weight.float()).square().sum() / len(difference)
