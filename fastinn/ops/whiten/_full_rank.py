"""Whitenings that need every direction to vary, and measure whether it does."""

import torch
from torch import Tensor

from fastinn import _checks
from fastinn.ops._polynomials import schedule
from fastinn.ops.whiten.reference import Whitening, unit_diagonal, whiten_unit

# Far above the rounding of a matrix of condition 1e10 (1e-8), far below what a direction that did
# not converge leaves (1 / sqrt(d)).
_CONVERGED = 1e-6

_REMEDY = "use method='eigh', which leaves null directions out, or a ridge"


def cholesky(cov: Tensor, ridge: float, threshold: float) -> Whitening:
    """Whiten by the inverse of the Cholesky factor of the unit-diagonal matrix."""
    unit, scale = _ridged(cov, ridge)
    factor, inverse, varies = _triangular(unit, threshold)
    if not varies:
        _check_rank(unit, threshold)
    return _all_varying(inverse.mT, factor.mT, scale)


def cholesky_or_eigh(cov: Tensor, ridge: float, threshold: float) -> Whitening:
    """Whiten by Cholesky factors if these alone show that every direction varies."""
    # A ridge would hide directions that do not.
    unit, scale = unit_diagonal(cov)
    if not ridge:
        factor, inverse, varies = _triangular(unit, threshold)
        if varies:
            return _all_varying(inverse.mT, factor.mT, scale)
    return whiten_unit(unit, scale, ridge, threshold)


def _triangular(unit: Tensor, threshold: float) -> tuple[Tensor, Tensor, bool]:
    """Return Cholesky factors, their inverses and whether all eigenvalues exceed ``threshold``.

    The answer may be no though they do: the bound is up to ``d`` times too low.
    """
    factor, failed = torch.linalg.cholesky_ex(unit)
    inverse = torch.linalg.solve_triangular(factor, _eye_like(unit), upper=False)
    bound = 1 / inverse.square().sum(dim=(-2, -1))
    return factor, inverse, bool((bound > threshold).all() and not failed.any())


def newton_schulz(cov: Tensor, ridge: float, threshold: float) -> Whitening:
    r"""Whiten by the inverse root, symmetric up to rounding, from products of matrices alone.

    :math:`W \leftarrow p(W S W^T) W` starts every step from ``S`` itself and so corrects the
    rounding of the steps before; the coupled iteration amplifies it.
    """
    unit, scale = _ridged(cov, ridge)
    bound = torch.linalg.matrix_norm(unit, keepdim=True)
    target = unit / torch.where(bound > 0, bound, 1.0)
    floor = max(threshold, torch.finfo(unit.dtype).eps) / unit.shape[-1]
    w = _eye_like(unit)
    # In each step the singular values of W S^(1/2) go through the polynomial.
    for linear, cubic, quintic in schedule(floor**0.5):
        gram = w @ target @ w.mT
        turned = gram @ w
        w = linear * w + cubic * turned + quintic * gram @ turned
    w = w / bound.sqrt()
    # Making W symmetric would undo the correction: its rounding turned rows, not their products.
    colouring = w @ unit
    _check_converged(colouring @ w.mT)
    return _all_varying(w.mT, colouring, scale)


def _ridged(cov: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    unit, scale = unit_diagonal(cov)
    unit.diagonal(dim1=-2, dim2=-1).add_(ridge)
    return unit, scale


def _eye_like(matrices: Tensor) -> Tensor:
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device).expand_as(
        matrices
    )


def _all_varying(whitener: Tensor, colouring: Tensor, scale: Tensor) -> Whitening:
    return Whitening(
        whitener=whitener / scale[..., None],
        colouring=colouring * scale[..., None, :],
        null=whitener[..., :0],
        null_colouring=colouring[..., :0, :],
        eigenvalues=scale[..., :0],
    )


def _check_rank(unit: Tensor, threshold: float) -> None:
    d = unit.shape[-1]
    ranks = (torch.linalg.eigvalsh(unit) > threshold).sum(dim=-1)
    if (ranks < d).any():
        name, rank = _checks.in_batch("cov", ranks < d), int(ranks[ranks < d][0])
        raise ValueError(f"{name} has rank {rank} of {d}, so it has no Cholesky factor; {_REMEDY}")


def _check_converged(product: Tensor) -> None:
    residual = torch.linalg.matrix_norm(product - _eye_like(product)) / product.shape[-1] ** 0.5
    failed = ~(residual <= _CONVERGED)
    if failed.any():
        name, worst = _checks.in_batch("cov", failed), float(residual[failed][0])
        raise ValueError(
            f"{name} was not whitened by Newton-Schulz steps: a residual of {worst:.1e} is left, "
            f"more than {_CONVERGED:.0e}, as of a null direction; {_REMEDY}"
        )
