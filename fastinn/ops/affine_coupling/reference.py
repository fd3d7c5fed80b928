"""The definition of the op, in plain torch."""

import torch
from torch import Tensor


def clamped(log_scale: Tensor, clamp: float | None) -> Tensor:
    """Bound the log-scale softly; ``clamp`` is ``None`` or positive."""
    return log_scale if clamp is None else clamp * torch.tanh(log_scale / clamp)


def affine_coupling(
    x: Tensor, shift: Tensor, log_scale: Tensor, clamp: float | None, eps: float
) -> tuple[Tensor, Tensor]:
    """See :func:`fastinn.ops.affine_coupling`."""
    bounded = clamped(log_scale, clamp)
    return x * (torch.exp(bounded) + eps) + shift, bounded.sum(dim=1)


def affine_coupling_inverse(
    y: Tensor, shift: Tensor, log_scale: Tensor, clamp: float | None, eps: float
) -> tuple[Tensor, Tensor]:
    """See :func:`fastinn.ops.affine_coupling_inverse`."""
    bounded = clamped(log_scale, clamp)
    return (y - shift) / (torch.exp(bounded) + eps), -bounded.sum(dim=1)
