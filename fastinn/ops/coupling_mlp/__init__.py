"""A whole coupling layer: the sub-network, the affine coupling and its log-determinant."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastinn._types import Activation, Backend, Kept, Memory, Precision
from fastinn.ops._backend import declare, resolve
from fastinn.ops.coupling_mlp import _check, _op, reference
from fastinn.ops.coupling_mlp._layer import Layer

__all__ = ["CouplingGradients", "coupling_mlp", "coupling_mlp_inverse", "coupling_mlp_vjp"]

declare("coupling_mlp", "cpu", "triton", "cuda", float32_only=("triton", "cuda"))


class CouplingGradients(NamedTuple):
    """What :func:`coupling_mlp_vjp` returns, in the shapes of the layer's arguments."""

    rows: Tensor
    grad_rows: Tensor
    grad_weights: list[Tensor]
    grad_biases: list[Tensor]


def coupling_mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    kept: Kept = "first",
    activation: Activation = "gelu",
    clamp: float | None = None,
    eps: float = 0.0,
    precision: Precision = "exact",
    memory: Memory = "store",
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Coupling layer :math:`y_m = x_m \odot (e^{l} + \epsilon) + t`, :math:`y_k = x_k`.

    The kept features :math:`x_k` feed a perceptron of one to three hidden layers that gives the
    shift :math:`t` and the log-scale :math:`s`, bounded to :math:`l = c \tanh(s / c)`, of the
    moved features :math:`x_m`.

    Args:
        x: Rows, shape ``(n, d)``, float32 or float64.
        weights: One matrix ``(out, in)`` a linear layer, in the dtype of ``x``: from ``d_kept``
            features through the hidden ones to ``2 * d_moved``, of which the first half is the
            shift. Stacks ``(2, out, in)`` instead are two networks, one of the shift and one of
            the log-scale, each with ``d_moved`` outputs.
        biases: One vector ``(out,)`` a layer, or stacks ``(2, out)``.
        kept: Which features stay: the ``"first"`` or ``"last"`` ``d // 2``, or those of ``"even"``
            or ``"odd"`` index.
        activation: ``"relu"``, ``"selu"``, ``"gelu"`` (tanh form) or ``"silu"``.
        clamp: See :func:`fastinn.ops.affine_coupling`.
        eps: See :func:`fastinn.ops.affine_coupling`.
        precision: ``"exact"``: products in the dtype of ``x``. ``"high"``: float32 products split
            into 16-bit ones where that is faster. ``"fast"``: operands of products rounded to 16
            bits, sums in float32; everything else, the rows above all, stays as it is. Triton
            and the fused CUDA kernel round those of ``y`` to float16: standardise rows, what is
            above 65504 overflows. Autocast changes none of the three.
        memory: ``"store"`` keeps the hidden activations for the backward pass; ``"recompute"``
            keeps only ``y`` and goes back through the inverse. The reference always stores.
        backend: Kernel to use; ``None`` picks the fastest for the device of ``x``.

    Returns:
        ``y``, shape ``(n, d)``, and ``log_det``, :math:`\sum_j l_{ij}`, shape ``(n,)``, in nats.

    Raises:
        ValueError: If shapes, dtypes or devices do not fit, or an option is unknown.
        TypeError: If ``x`` is neither float32 nor float64.
        BackendUnavailableError: If a named backend is not available.

    Source: Dinh et al. 2017, Density estimation using Real NVP, eq. 7-8; recomputing: Gomez et al.
    2017, The Reversible Residual Network.
    """
    layer = Layer(False, kept, activation, clamp, eps, precision)
    _check.arguments(layer, "x", x, weights, biases)
    return _compute(layer, x, list(weights), list(biases), memory, backend)


def coupling_mlp_inverse(
    y: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    kept: Kept = "first",
    activation: Activation = "gelu",
    clamp: float | None = None,
    eps: float = 0.0,
    precision: Precision = "exact",
    memory: Memory = "store",
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Inverse :math:`x_m = (y_m - t) / (e^{l} + \epsilon)` of :func:`coupling_mlp`.

    Args:
        y: Rows, shape ``(n, d)``, float32 or float64.
        weights: See :func:`coupling_mlp`, as for the other arguments.
        biases: See :func:`coupling_mlp`.
        kept: See :func:`coupling_mlp`.
        activation: See :func:`coupling_mlp`.
        clamp: See :func:`coupling_mlp`.
        eps: See :func:`coupling_mlp`.
        precision: See :func:`coupling_mlp`.
        memory: See :func:`coupling_mlp`.
        backend: See :func:`coupling_mlp`.

    Returns:
        ``x``, shape ``(n, d)``, and the log-determinant of the inverse, the negative of that of
        the layer, shape ``(n,)``, in nats.

    Raises:
        ValueError: See :func:`coupling_mlp`, as for the other errors.
        TypeError: See :func:`coupling_mlp`.
        BackendUnavailableError: See :func:`coupling_mlp`.
    """
    layer = Layer(True, kept, activation, clamp, eps, precision)
    _check.arguments(layer, "y", y, weights, biases)
    return _compute(layer, y, list(weights), list(biases), memory, backend)


@torch.no_grad()
def coupling_mlp_vjp(
    out: Tensor,
    grad_out: Tensor,
    grad_log_det: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    inverse: bool = False,
    kept: Kept = "first",
    activation: Activation = "gelu",
    clamp: float | None = None,
    eps: float = 0.0,
    precision: Precision = "exact",
    backend: Backend | None = None,
) -> CouplingGradients:
    """Go back through a coupling layer from its output alone.

    The input is recovered by inversion and the network is run again from the kept features, which
    input and output share. A flow that goes back layer by layer stores no activation.

    Args:
        out: What the layer returned, shape ``(n, d)``, float32 or float64.
        grad_out: Gradient of a scalar by ``out``, shape ``(n, d)``.
        grad_log_det: Gradient of that scalar by the log-determinant, shape ``(n,)``.
        weights: See :func:`coupling_mlp`, as for the other arguments.
        biases: See :func:`coupling_mlp`.
        inverse: Whether the layer was :func:`coupling_mlp_inverse`.
        kept: See :func:`coupling_mlp`.
        activation: See :func:`coupling_mlp`.
        clamp: See :func:`coupling_mlp`.
        eps: See :func:`coupling_mlp`.
        precision: See :func:`coupling_mlp`.
        backend: See :func:`coupling_mlp`.

    Returns:
        The layer's input ``rows`` and the gradients by it, the weights and the biases. None of
        them has gradients of its own.

    Raises:
        ValueError: See :func:`coupling_mlp`, as for the other errors.
        TypeError: See :func:`coupling_mlp`.
        BackendUnavailableError: See :func:`coupling_mlp`.

    Source: Gomez et al. 2017, The Reversible Residual Network, algorithm 1.
    """
    layer = Layer(inverse, kept, activation, clamp, eps, precision)
    _check.arguments(layer, "out", out, weights, biases)
    _check.gradient("grad_out", grad_out, out, out.shape)
    _check.gradient("grad_log_det", grad_log_det, out, out.shape[:1])
    gradients = (out, grad_out, grad_log_det, list(weights), list(biases))
    chosen = resolve("coupling_mlp", backend, out.device.type, out.dtype)
    if chosen == "reference":
        return CouplingGradients(*reference.coupling_mlp_vjp(layer, *gradients))
    return CouplingGradients(
        *_op.backward(grad_out, grad_log_det, out, *gradients[3:], [], *layer, chosen)
    )


def _compute(
    layer: Layer,
    rows: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    memory: Memory,
    backend: Backend | None,
) -> tuple[Tensor, Tensor]:
    _check.memory(memory)
    chosen = resolve("coupling_mlp", backend, rows.device.type, rows.dtype)
    if chosen == "reference":
        return reference.coupling_mlp(layer, rows, weights, biases)
    store = memory == "store" and torch.is_grad_enabled()
    out, log_det, _ = _op.forward(rows, weights, biases, *layer, store, chosen)
    return out, log_det
