"""The op as torch sees it: allocation, shapes for the compiler, and gradients.

With ``store`` the network's pre-activations are outputs of the op, kept for the backward pass;
without, the backward pass starts from the output alone.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastinn.ops.coupling_mlp._layer import Layer, halves, n_networks

_LIBRARY = torch.library.Library("fastinn", "FRAGMENT")
_MODULES = {"cpu": "_native", "cuda": "_native", "triton": "_triton"}
_N_OPTIONS = len(Layer._fields)
_OPTIONS = "bool inverse, str kept, str activation, float? clamp, float eps, str precision"


def kernels(backend: str) -> ModuleType:
    """Return the module whose ``transform`` and ``differentiate`` write into given outputs."""
    return import_module(f"fastinn.ops.coupling_mlp.{_MODULES[backend]}")


def empty_outputs(
    rows: Tensor, weights: list[Tensor], biases: list[Tensor], *options: Any
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Allocate the transformed rows, their log-determinant and what the backward pass reads."""
    layer, store = Layer(*options[:_N_OPTIONS]), options[_N_OPTIONS]
    saved = _empty_saved(layer, rows, weights) if store else []
    return rows.new_empty(rows.shape), rows.new_empty(len(rows)), saved


def _empty_saved(layer: Layer, rows: Tensor, weights: list[Tensor]) -> list[Tensor]:
    n_samples, n_features = rows.shape
    _, moves = halves(n_features, layer.kept)
    n_moved = len(range(n_features)[moves])
    rounded = layer.precision == "fast" and rows.dtype == torch.float32
    dtype = torch.bfloat16 if rounded else rows.dtype
    widths = [n_networks(weights) * weight.shape[-2] for weight in weights[:-1]]
    hidden = [rows.new_empty(n_samples, width, dtype=dtype) for width in widths]
    return [rows.new_empty(n_samples, n_moved), *hidden]


def _transform(
    rows: Tensor, weights: list[Tensor], biases: list[Tensor], *options: Any
) -> tuple[Tensor, Tensor, list[Tensor]]:
    outputs = empty_outputs(rows, weights, biases, *options)
    layer, backend = Layer(*options[:_N_OPTIONS]), options[-1]
    with torch.autocast(rows.device.type, enabled=False):
        kernels(backend).transform(layer, rows, weights, biases, *outputs)
    return outputs


def empty_gradients(
    grad_out: Tensor,
    grad_log_det: Tensor,
    known: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    saved: list[Tensor],
    *options: Any,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Allocate the op's input, unless ``known`` tells it, and the gradients."""
    rows = known.new_empty(0 if saved else known.shape)
    grad_weights = [weight.new_empty(weight.shape) for weight in weights]
    grad_biases = [bias.new_empty(bias.shape) for bias in biases]
    return rows, known.new_empty(known.shape), grad_weights, grad_biases


def _differentiate(
    grad_out: Tensor,
    grad_log_det: Tensor,
    known: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    saved: list[Tensor],
    *options: Any,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    inputs = (grad_out, grad_log_det, known, weights, biases, saved)
    rows, *gradients = outputs = empty_gradients(*inputs, *options)
    layer, backend = Layer(*options[:_N_OPTIONS]), options[-1]
    with torch.autocast(known.device.type, enabled=False):
        kernels(backend).differentiate(layer, *inputs, None if saved else rows, *gradients)
    return outputs


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    rows, weights, biases, *options, store, backend = inputs
    out, _, saved = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*saved)
    known = rows if store and not Layer(*options).inverse else out
    ctx.n_layers, ctx.options = len(weights), (*options, backend)
    ctx.save_for_backward(known, *weights, *biases, *saved)


def _backward(
    ctx: Any, grad_out: Tensor | None, grad_log_det: Tensor | None, _: Any
) -> tuple[Any, ...]:
    known, *tensors = ctx.saved_tensors
    n = ctx.n_layers
    weights, biases, saved = tensors[:n], tensors[n : 2 * n], tensors[2 * n :]
    if grad_out is None:
        grad_out = known.new_zeros(1, 1).expand(known.shape)
    if grad_log_det is None:
        grad_log_det = known.new_zeros(1).expand(len(known))
    _, *gradients = backward(grad_out, grad_log_det, known, weights, biases, saved, *ctx.options)
    return (*gradients, *[None] * (_N_OPTIONS + 2))


def _backward_twice(ctx: Any, *_: Any) -> None:
    raise NotImplementedError(
        "the kernels of coupling_mlp have no second derivatives; backend='reference' has"
    )


_LIBRARY.define(
    f"coupling_mlp(Tensor rows, Tensor[] weights, Tensor[] biases, {_OPTIONS}, bool store, "
    "str backend) -> (Tensor, Tensor, Tensor[])"
)
_LIBRARY.define(
    "coupling_mlp_backward(Tensor grad_out, Tensor grad_log_det, Tensor known, Tensor[] weights, "
    f"Tensor[] biases, Tensor[] saved, {_OPTIONS}, str backend) "
    "-> (Tensor, Tensor, Tensor[], Tensor[])"
)
for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("coupling_mlp", _transform, _device)
    _LIBRARY.impl("coupling_mlp_backward", _differentiate, _device)
torch.library.register_fake("fastinn::coupling_mlp", empty_outputs, lib=_LIBRARY)
torch.library.register_fake("fastinn::coupling_mlp_backward", empty_gradients, lib=_LIBRARY)
torch.library.register_autograd(
    "fastinn::coupling_mlp", _backward, setup_context=_save, lib=_LIBRARY
)
torch.library.register_autograd("fastinn::coupling_mlp_backward", _backward_twice, lib=_LIBRARY)

forward = torch.ops.fastinn.coupling_mlp.default
backward = torch.ops.fastinn.coupling_mlp_backward.default
