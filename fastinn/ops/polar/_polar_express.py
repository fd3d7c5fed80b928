"""The polar factor by products of matrices alone, which a GPU does best."""

from math import isfinite

import torch
from torch import Tensor

from fastinn._types import Precision
from fastinn.ops._polynomials import FLATTEST, Step, schedule
from fastinn.ops.polar import reference
from fastinn.ops.polar.reference import Polar

# Smallest singular value, relative to the largest, that the steps carry to 1. What is smaller is
# near the rounding of zero, and the directions in which it is left are completed afterwards.
_SMALLEST: dict[Precision, float] = {"exact": 1e-12, "high": 1e-6, "fast": 1e-6}

# Steps from the last that "fast" does not take in 16 bits: those in which rounding would stay.
_FINE_STEPS = 5
_BELOW_ONE = 0.99

# float64 rounding of a converged factor is a few 1e-15; a value left behind shows at 1 / sqrt(n).
_CONVERGED = 1e-10


def polar(matrices: Tensor, precision: Precision) -> Polar:
    """Return the polar factors of float64 ``matrices``, shape ``(b, m, n)`` with ``m >= n``."""
    x = _orthogonalised(_scaled(matrices), precision)
    # Written so that NaN, of steps that diverged, counts as not converged.
    for i in (~(_residual(x) <= _CONVERGED)).nonzero().flatten().tolist():
        x[i] = _completed(x[i], matrices[i])
    return Polar(x, (matrices * x).sum(dim=(-2, -1)))


def _scaled(x: Tensor) -> Tensor:
    """Divide by a close upper bound of the spectral norm; zero stays zero."""
    # First by the largest entry, so that no square overflows.
    x = x / _or_one(x.abs().amax(dim=(-2, -1), keepdim=True))
    # The Schatten 4-norm is at most n^(1/4) times too large, the Frobenius norm n^(1/2).
    bound = torch.linalg.matrix_norm(x.mT @ x, keepdim=True).sqrt()
    return x / _or_one(bound)


def _or_one(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0)


def _orthogonalised(x: Tensor, precision: Precision) -> Tensor:
    steps = schedule(_SMALLEST[precision])
    if precision == "exact":
        return _take(steps, x)
    if precision == "fast":
        coarse, steps = steps[:-_FINE_STEPS], steps[-_FINE_STEPS:]
        # bfloat16 rounding may take a value above 1, and these steps would not bring it back.
        x = _take(tuple(step.damped(_BELOW_ONE) for step in coarse), x.bfloat16())
    x = _take(steps, x.float()).double()
    return _take((FLATTEST, FLATTEST), x)


def _take(steps: tuple[Step, ...], x: Tensor) -> Tensor:
    for linear, cubic, quintic in steps:
        gram = x.mT @ x
        change = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
        x = torch.baddbmm(x, x, change, beta=linear)
    return x


def _residual(x: Tensor) -> Tensor:
    """Return the distance of ``x.mT @ x`` from the identity, per root of its width."""
    gram = x.mT @ x
    gram.diagonal(dim1=-2, dim2=-1).sub_(1)
    return torch.linalg.matrix_norm(gram) / gram.shape[-1] ** 0.5


def _completed(x: Tensor, matrix: Tensor) -> Tensor:
    """Map the directions that the steps left near zero to each other; decompose if that fails."""
    gap = x.shape[1] - float(x.square().sum())
    missing = round(gap) if isfinite(gap) else 0
    if missing > 0:
        right, left = _left_out(x.T, missing), _left_out(x, missing)
        inner = reference.polar(left.T @ matrix @ right).orthogonal
        whole = x + (left @ inner - x @ right) @ right.T
        whole = _take((FLATTEST,), whole[None])
        if _residual(whole) <= _CONVERGED:
            return whole[0]
    return reference.polar(matrix).orthogonal


def _left_out(x: Tensor, size: int) -> Tensor:
    """Return ``size`` orthonormal directions to which the columns of ``x`` are orthogonal."""
    generator = torch.Generator(x.device).manual_seed(0)
    trial = torch.randn(len(x), size, generator=generator, device=x.device, dtype=x.dtype)
    return torch.linalg.qr(trial - x @ (x.T @ trial)).Q
