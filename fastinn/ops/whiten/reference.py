"""Definition of :func:`fastinn.ops.whiten` in plain torch."""

from typing import NamedTuple

import torch
from torch import Tensor


class Whitening(NamedTuple):
    r"""Coordinates of rows with covariance :math:`C`, of rank ``r`` with ``q = d - r`` null.

    For a centred row, ``row @ whitener`` has the identity as covariance (with a ridge: a smaller
    one) and ``row @ null`` is zero. ``colouring`` and ``null_colouring`` lead back:
    ``row = row @ whitener @ colouring + row @ null @ null_colouring``.
    """

    whitener: Tensor
    """Shape ``(d, r)``."""
    colouring: Tensor
    """Shape ``(r, d)``."""
    null: Tensor
    """Shape ``(d, q)``."""
    null_colouring: Tensor
    """Shape ``(q, d)``."""
    eigenvalues: Tensor
    """Shape ``(r,)``, descending, without the ridge."""

    @property
    def rank(self) -> int:
        """Number of directions that vary."""
        return len(self.eigenvalues)


def whiten(cov: Tensor, ridge: float, threshold: float) -> Whitening:
    """See :func:`fastinn.ops.whiten`; the arguments are checked there."""
    cov = cov.double()
    deviation = cov.diagonal().clamp_min(0).sqrt()
    # A constant feature keeps its own unit; it ends in the null space.
    scale = torch.where(deviation > 0, deviation, 1.0)
    eigenvalues, vectors = _descending(cov / scale / scale[:, None])
    rank = int((eigenvalues > threshold).sum())
    return _factored(eigenvalues, vectors, rank, scale, ridge)


def principal_whiten(cov: Tensor, variance: float, threshold: float) -> Whitening:
    """See :func:`fastinn.ops.principal_whiten`; the arguments are checked there."""
    eigenvalues, vectors = _descending(cov.double())
    rank = int((eigenvalues > threshold * eigenvalues[0]).sum())
    share = eigenvalues[:rank].cumsum(0) / eigenvalues[:rank].sum()
    # A share of 1 is reached up to rounding only.
    kept = min(rank, int((share < variance - 1e-12).sum()) + 1)
    return _factored(eigenvalues, vectors, kept, torch.ones_like(eigenvalues), ridge=0.0)


def _descending(matrix: Tensor) -> tuple[Tensor, Tensor]:
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return eigenvalues.flip(0), vectors.flip(1)


def _factored(
    eigenvalues: Tensor, vectors: Tensor, rank: int, scale: Tensor, ridge: float
) -> Whitening:
    kept, null = vectors[:, :rank], vectors[:, rank:]
    root = (eigenvalues[:rank] + ridge).sqrt()
    return Whitening(
        whitener=kept / scale[:, None] / root,
        colouring=root[:, None] * kept.T * scale,
        null=null / scale[:, None],
        null_colouring=null.T * scale,
        eigenvalues=eigenvalues[:rank],
    )
