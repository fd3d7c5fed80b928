"""Invertible linear layers: a learned matrix and a fixed rotation."""

from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fastinn import _checks
from fastinn._types import Precision
from fastinn.nn._autocast import outside_autocast
from fastinn.nn._recompute import LayerGradients


class InvertibleLinear(nn.Module):
    r"""Linear bijection :math:`y = x W^\top + b`, learned or a fixed rotation.

    Products and the inverse are never computed in 16 bits, autocast or not: a map between two
    representation spaces is too ill-conditioned for that.

    Args:
        d: Number of features.
        weight: Initial :math:`W`, shape ``(d, d)``; a random rotation by default.
        orthogonal: ``weight`` is orthogonal and stays as it is, and there is no bias: the inverse
            is a transpose and the log-determinant zero.
        precision: ``"exact"`` computes in float64 on a CPU and rounds the result to the dtype of
            the rows: couplings amplify on the way back what a float32 product loses. Beside wide
            couplings that costs little, in training steps of narrow ones it shows. ``"high"`` and
            ``"fast"``, and GPUs, of which many have next to no float64, compute in the dtype of
            the rows.

    Raises:
        ValueError: If ``weight`` has another shape.
    """

    def __init__(
        self,
        d: int,
        *,
        weight: Tensor | None = None,
        orthogonal: bool = False,
        precision: Precision = "high",
    ) -> None:
        super().__init__()
        _checks.one_of(precision, get_args(Precision), "precision")
        if weight is None:
            weight = random_rotation(d)
            weight = weight if orthogonal else weight.to(torch.get_default_dtype())
        if weight.shape != (d, d):
            raise ValueError(f"weight has shape {tuple(weight.shape)}, expected {(d, d)}")
        self.orthogonal, self.precision = orthogonal, precision
        # Factorising a matrix waits for the result, which cannot be recorded in a CUDA graph.
        self.capturable = orthogonal
        if orthogonal:
            # float64, for a matrix rounded to float32 would be no rotation to float64 rows.
            self.register_buffer("weight", weight.double())
            self.register_buffer("bias", None)
        else:
            self.weight = nn.Parameter(weight.clone())
            self.bias = nn.Parameter(weight.new_zeros(d))

    @outside_autocast
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``x``, shape ``(n, d)``, to ``y`` and ``log|det W|``, shape ``(n,)``."""
        return self._product(x, self.weight, self.bias), self._log_det(x)

    @outside_autocast
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``y``, shape ``(n, d)``, to ``x`` and ``-log|det W|``, shape ``(n,)``."""
        if self.orthogonal:
            return self._product(y, self.weight.mT), self._log_det(y)
        return self._solved(y, self.weight, self.bias), -self._log_det(y)

    def vjp(
        self,
        parameters: list[Tensor],
        rows: Tensor | None,
        out: Tensor,
        grad_out: Tensor,
        grad_log_det: Tensor | None,
        *,
        inverse: bool,
    ) -> LayerGradients:
        """Go back through the layer, or its inverse, in closed form.

        Args:
            parameters: Values of weight and bias at the forward pass; none of a rotation.
            rows: What came in, shape ``(n, d)``; ``None`` recovers it from ``out``.
            out: What the layer returned, shape ``(n, d)``.
            grad_out: Gradient by ``out``, shape ``(n, d)``.
            grad_log_det: Gradient by the log-determinant, shape ``(n,)``; ``None`` is zero.
            inverse: Whether the forward pass was :meth:`inverse`.
        """
        if self.orthogonal:
            back = self.weight if inverse else self.weight.mT
            grad_rows = linear(grad_out, back.to(grad_out.dtype))
            return LayerGradients(self._product(out, back), grad_rows, [])
        weight, bias = parameters
        if inverse:
            rows = self._product(out, weight, bias) if rows is None else rows
            grad_rows = torch.linalg.solve(weight, grad_out, left=False)
            grad_weight, grad_bias = -grad_rows.mT @ out, -grad_rows.sum(0)
        else:
            rows = self._solved(out, weight, bias) if rows is None else rows
            grad_rows = grad_out @ weight
            grad_weight, grad_bias = grad_out.mT @ rows, grad_out.sum(0)
        if grad_log_det is not None:
            total = -grad_log_det.sum() if inverse else grad_log_det.sum()
            grad_weight = grad_weight + total * torch.linalg.inv(weight).mT
        return LayerGradients(rows, grad_rows, [grad_weight, grad_bias])

    def _log_det(self, rows: Tensor) -> Tensor:
        if self.orthogonal:
            return rows.new_zeros(len(rows))
        return torch.linalg.slogdet(self.weight).logabsdet.expand(len(rows))

    def _product(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        dtype = self._dtype(rows)
        bias = None if bias is None else bias.to(dtype)
        return linear(rows.to(dtype), weight.to(dtype), bias).to(rows.dtype)

    def _solved(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        dtype = self._dtype(rows)
        centred = rows.to(dtype) - bias.to(dtype)
        return torch.linalg.solve(weight.mT.to(dtype), centred, left=False).to(rows.dtype)

    def _dtype(self, rows: Tensor) -> torch.dtype:
        wide = self.precision == "exact" and rows.device.type == "cpu"
        return torch.float64 if wide else rows.dtype


def random_rotation(d: int) -> Tensor:
    """Draw a ``(d, d)`` orthogonal matrix uniformly, in float64.

    Source: Mezzadri 2007, How to generate random matrices from the classical compact groups.
    """
    q, r = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))
    # Without the signs the distribution depends on the convention of the factorisation.
    return q * r.diagonal().sign()
