"""The definition of the op, in plain torch."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from fastinn._types import Precision
from fastinn.ops.affine_coupling.reference import affine_coupling, affine_coupling_inverse
from fastinn.ops.coupling_mlp._layer import Layer, halves, n_networks

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "selu": functional.selu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


def coupling_mlp(
    layer: Layer, rows: Tensor, weights: list[Tensor], biases: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """See :func:`fastinn.ops.coupling_mlp` and its inverse; the arguments are checked there."""
    stays, moves = halves(rows.shape[1], layer.kept)
    with torch.autocast(rows.device.type, enabled=False):
        shift, log_scale = network(layer, rows[:, stays], weights, biases)
    couple = affine_coupling_inverse if layer.inverse else affine_coupling
    moved, log_det = couple(rows[:, moves], shift, log_scale, layer.clamp, layer.eps)
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    # Not in place on `rows`: autograd and the caller keep it.
    out[:, stays], out[:, moves] = rows[:, stays], moved
    return out, log_det


def coupling_mlp_vjp(
    layer: Layer,
    out: Tensor,
    grad_out: Tensor,
    grad_log_det: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """See :func:`fastinn.ops.coupling_mlp_vjp`."""
    undo = layer._replace(inverse=not layer.inverse)
    rows, _ = coupling_mlp(undo, out, weights, biases)
    vjp = torch.func.vjp(partial(coupling_mlp, layer), rows, weights, biases)[1]
    return rows, *vjp((grad_out, grad_log_det))


def network(
    layer: Layer, kept: Tensor, weights: list[Tensor], biases: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the shift and the log-scale that the kept features ask for."""
    if n_networks(weights) == 1:
        shift, log_scale = _perceptron(layer, kept, weights, biases).chunk(2, dim=1)
        return shift, log_scale
    shift, log_scale = (
        _perceptron(layer, kept, [w[k] for w in weights], [b[k] for b in biases]) for k in (0, 1)
    )
    return shift, log_scale


def _perceptron(layer: Layer, rows: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    activation = _ACTIVATIONS[layer.activation]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        rows = activation(_product(rows, weight, layer.precision) + bias)
    return _product(rows, weights[-1], layer.precision) + biases[-1]


def _product(rows: Tensor, weight: Tensor, precision: Precision) -> Tensor:
    """Return ``rows @ weight.T``; ``"fast"`` rounds float32 operands to bfloat16."""
    if precision == "fast" and rows.dtype == torch.float32:
        rows, weight = rows.bfloat16().float(), weight.bfloat16().float()
    return rows @ weight.mT
