"""Definition of :func:`fastinn.ops.whiten` in plain torch."""

from typing import NamedTuple

import torch
from torch import Tensor


class Whitening(NamedTuple):
    r"""Coordinates of rows with covariance :math:`C`, of rank ``r`` with ``q = d - r`` null.

    For a centred row, ``row @ whitener`` has the identity as covariance (with a ridge: a smaller
    one) and ``row @ null`` is zero. ``colouring`` and ``null_colouring`` lead back:
    ``row = row @ whitener @ colouring + row @ null @ null_colouring``.

    In a batch ``r`` is the largest rank and ``q`` the largest number of null directions; what a
    matrix has fewer of is filled up with zeros, so that all of the above still holds.
    """

    whitener: Tensor
    """Shape ``(..., d, r)``."""
    colouring: Tensor
    """Shape ``(..., r, d)``."""
    null: Tensor
    """Shape ``(..., d, q)``."""
    null_colouring: Tensor
    """Shape ``(..., q, d)``."""
    eigenvalues: Tensor
    """Shape ``(..., r)``, descending, without the ridge; ``(..., 0)`` where only ``"eigh"`` knows.
    """

    @property
    def rank(self) -> int:
        """Number of directions that vary, the largest of a batch."""
        return self.whitener.shape[-1]


def whiten(cov: Tensor, ridge: float, threshold: float) -> Whitening:
    """See :func:`fastinn.ops.whiten`; the arguments are checked there."""
    return whiten_unit(*unit_diagonal(cov), ridge, threshold)


def whiten_unit(unit: Tensor, scale: Tensor, ridge: float, threshold: float) -> Whitening:
    """Whiten what :func:`unit_diagonal` returned."""
    eigenvalues, vectors = _descending(unit)
    ranks = (eigenvalues > threshold).sum(dim=-1)
    return _factored(eigenvalues, vectors, ranks, scale, ridge)


def principal_whiten(cov: Tensor, variance: float, threshold: float) -> Whitening:
    """See :func:`fastinn.ops.principal_whiten`; the arguments are checked there."""
    eigenvalues, vectors = _descending(cov.double())
    varying = eigenvalues > threshold * eigenvalues[..., :1]
    spread = eigenvalues.where(varying, 0.0)
    share = spread.cumsum(-1) / spread.sum(-1, keepdim=True)
    # A share of 1 is reached up to rounding only.
    wanted = (share < variance - 1e-12).sum(dim=-1) + 1
    ranks = torch.minimum(varying.sum(dim=-1), wanted)
    return _factored(eigenvalues, vectors, ranks, torch.ones_like(eigenvalues), ridge=0.0)


def unit_diagonal(cov: Tensor) -> tuple[Tensor, Tensor]:
    """Return covariances scaled to unit variance, in float64, and the deviations taken out."""
    cov = cov.double()
    deviation = cov.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    # A constant feature keeps its own unit; it ends in the null space.
    scale = torch.where(deviation > 0, deviation, 1.0)
    return cov / scale[..., None, :] / scale[..., :, None], scale


def _descending(matrix: Tensor) -> tuple[Tensor, Tensor]:
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return eigenvalues.flip(-1), vectors.flip(-1)


def _factored(
    eigenvalues: Tensor, vectors: Tensor, ranks: Tensor, scale: Tensor, ridge: float
) -> Whitening:
    d = eigenvalues.shape[-1]
    place = torch.arange(d, device=ranks.device)
    varies = place < ranks[..., None]
    r, q = (int(sizes.max()) if sizes.numel() else 0 for sizes in (ranks, d - ranks))
    kept = (vectors * varies[..., None, :])[..., :r]
    null = (vectors * ~varies[..., None, :])[..., d - q :]
    known = eigenvalues.where(varies, 0.0)[..., :r]
    root = torch.where(varies[..., :r], known + ridge, 1.0).sqrt()
    return Whitening(
        whitener=kept / scale[..., None] / root[..., None, :],
        colouring=root[..., None] * kept.mT * scale[..., None, :],
        null=null / scale[..., None],
        null_colouring=null.mT * scale[..., None, :],
        eigenvalues=known,
    )
