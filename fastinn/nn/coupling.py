"""Affine coupling: one half of the features moves, by an amount the other half decides."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastinn import _checks
from fastinn._types import Backend, Precision
from fastinn.nn._mlp import ACTIVATIONS, Activation, mlp
from fastinn.nn._precision import PRECISIONS, products
from fastinn.ops import affine_coupling, affine_coupling_inverse

# Narrower networks cost as much time, which goes into overhead, and learn little.
_LEAST_HIDDEN = 64


class AffineCoupling(nn.Module):
    r"""Affine coupling layer :math:`y = (x_1,\; x_2 \odot e^{l(x_1)} + t(x_1))`.

    The first ``d // 2`` features stay and feed a sub-network that gives the translation and the
    log-scale of the others. Its last layer starts at zero, so the layer starts as the identity.

    Args:
        d: Number of features, at least 2; odd widths move one feature more than they keep.
        hidden: Width of the sub-network; ``d``, but at least 64, by default.
        n_hidden: Number of hidden layers of the sub-network.
        activation: ``"relu"``, ``"selu"``, ``"gelu"`` (tanh form) or ``"silu"``.
        clamp: Bound of the soft clamp on the log-scale; ``None`` leaves it unbounded.
        precision: Rounding of the sub-network's products; ``"fast"`` uses bfloat16, ``"high"``
            is the same as ``"exact"``. The features themselves keep their dtype in all three.
        backend: Kernel of the elementwise part; ``None`` picks the fastest for the device.

    Raises:
        ValueError: If ``d`` is below 2, or ``activation`` or ``precision`` is unknown.

    Source: Dinh et al. 2017, Density estimation using Real NVP, eq. 7-8.
    """

    def __init__(
        self,
        d: int,
        hidden: int | None = None,
        *,
        n_hidden: int = 2,
        activation: Activation = "gelu",
        clamp: float | None = 1.0,
        precision: Precision = "exact",
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        _checks.at_least(d, 2, "d")
        _checks.one_of(activation, tuple(ACTIVATIONS), "activation")
        _checks.one_of(precision, PRECISIONS, "precision")
        self.sizes = [d // 2, d - d // 2]
        self.clamp, self.precision, self.backend = clamp, precision, backend
        self.network = mlp(
            [self.sizes[0], *[hidden or max(d, _LEAST_HIDDEN)] * n_hidden, 2 * self.sizes[1]],
            activation,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``x``, shape ``(n, d)``, to ``y`` and ``log|det dy/dx|``, shape ``(n,)``."""
        return self._move(affine_coupling, x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``y``, shape ``(n, d)``, to ``x`` and ``log|det dx/dy|``, shape ``(n,)``."""
        return self._move(affine_coupling_inverse, y)

    def _move(
        self, op: Callable[..., tuple[Tensor, Tensor]], rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        kept, moved = rows.split(self.sizes, dim=1)
        with products(self.precision, rows):
            shift, log_scale = self.network(kept).to(rows.dtype).chunk(2, dim=1)
        moved, log_det = op(moved, shift, log_scale, clamp=self.clamp, backend=self.backend)
        return torch.cat([kept, moved], dim=1), log_det
