"""Definition of :func:`fastinn.ops.polar` in plain torch."""

from typing import NamedTuple

import torch
from torch import Tensor


class Polar(NamedTuple):
    """Polar factors of a matrix or a batch of them, shape ``(..., m, n)``."""

    orthogonal: Tensor
    """Shape ``(..., m, n)``, with orthonormal columns (rows where ``m < n``)."""
    nuclear_norm: Tensor
    """Sum of the singular values, shape ``(...)``."""


def polar(matrix: Tensor) -> Polar:
    """See :func:`fastinn.ops.polar`; the arguments are checked there."""
    u, values, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return Polar((u @ vh).to(matrix.dtype), values.sum(dim=-1).to(matrix.dtype))
