"""Whitening: coordinates in which a covariance is the identity."""

from torch import Tensor

from fastinn.ops.whiten import reference
from fastinn.ops.whiten.reference import Whitening

__all__ = ["Whitening", "principal_whiten", "whiten"]

_FLOAT64_RESOLUTION = 1e-10


def whiten(cov: Tensor, *, ridge: float = 0.0, threshold: float | None = None) -> Whitening:
    """Whiten a covariance that may be rank-deficient.

    Features are scaled to unit variance first, so that neither the rank nor the ridge depends on
    their units; constant features count as null directions.

    Args:
        cov: Symmetric positive semi-definite matrix, shape ``(d, d)``.
        ridge: Added to the eigenvalues that are kept, in units of each feature's variance.
        threshold: Eigenvalues of the unit-diagonal matrix up to this are taken for zero. ``None``
            is 1e-10, which suits float64 products; :attr:`fastinn.Moments.resolution` knows
            the value for coarser ones (1e-6 for float32 products).

    Returns:
        The whitening, in float64.

    Raises:
        ValueError: If ``cov`` is not square and finite, or ``ridge`` is negative.
    """
    _check_square(cov)
    if ridge < 0:
        raise ValueError(f"ridge is {ridge}, expected 0 or more")
    floor = _FLOAT64_RESOLUTION if threshold is None else threshold
    return reference.whiten(cov, ridge, floor)


def principal_whiten(cov: Tensor, *, variance: float, threshold: float | None = None) -> Whitening:
    """Whiten the fewest principal directions that hold a given share of the variance.

    Args:
        cov: Symmetric positive semi-definite matrix, shape ``(d, d)``.
        variance: Share of the sum of the eigenvalues of ``cov`` itself, in ``(0, 1]``.
        threshold: Eigenvalues up to this fraction of the largest are taken for zero; ``None`` as
            in :func:`whiten`.

    Returns:
        The whitening, in float64; its null space is the complement of the kept directions.

    Raises:
        ValueError: If ``cov`` is not square and finite, or ``variance`` is out of range.
    """
    _check_square(cov)
    if not 0 < variance <= 1:
        raise ValueError(f"variance is {variance}, expected a share in (0, 1]")
    floor = _FLOAT64_RESOLUTION if threshold is None else threshold
    return reference.principal_whiten(cov, variance, floor)


def _check_square(cov: Tensor) -> None:
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or not cov.isfinite().all():
        raise ValueError(f"cov has shape {tuple(cov.shape)}, expected a finite square matrix")
