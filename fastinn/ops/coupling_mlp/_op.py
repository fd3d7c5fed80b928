"""The op as torch sees it: allocation, shapes for the compiler, and gradients.

With ``store`` the network's pre-activations are outputs of the op, kept for the backward pass;
without, the backward pass starts from the output alone.
"""

from contextlib import AbstractContextManager, nullcontext
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
    with _no_autocast(rows.device.type):
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
    with _no_autocast(known.device.type):
        kernels(backend).differentiate(layer, *inputs, None if saved else rows, *gradients)
    return outputs


def _no_autocast(device: str) -> AbstractContextManager[object]:
    # Leaving an autocast region costs microseconds even where there is none to leave.
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


class _Differentiable(torch.autograd.Function):
    """The op on flat arguments: ``register_autograd`` would walk the lists of tensors as trees."""

    @staticmethod
    def forward(
        ctx: Any, n_layers: int, options: tuple[Any, ...], rows: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        weights, biases = parameters[:n_layers], parameters[n_layers:]
        with torch._C._AutoDispatchBelowAutograd():
            out, log_det, saved = forward(rows, weights, biases, *options)
        *layer, store, backend = options
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*saved)
        known = rows if store and not Layer(*layer).inverse else out
        ctx.n_layers, ctx.options = n_layers, (*layer, backend)
        ctx.save_for_backward(known, *parameters, *saved)
        return out, log_det, *saved

    @staticmethod
    def backward(
        ctx: Any, grad_out: Tensor | None, grad_log_det: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        known, *tensors = ctx.saved_tensors
        n = ctx.n_layers
        if grad_out is None:
            grad_out = known.new_zeros(1, 1).expand(known.shape)
        if grad_log_det is None:
            grad_log_det = known.new_zeros(1).expand(len(known))
        _, grad_rows, grad_weights, grad_biases = backward(
            grad_out,
            grad_log_det,
            known,
            tensors[:n],
            tensors[n : 2 * n],
            tensors[2 * n :],
            *ctx.options,
        )
        return None, None, grad_rows, *grad_weights, *grad_biases


def _differentiable(
    rows: Tensor, weights: list[Tensor], biases: list[Tensor], *options: Any
) -> tuple[Tensor, Tensor, list[Tensor]]:
    tensors = (rows, *weights, *biases)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        with torch._C._AutoDispatchBelowAutograd():
            return forward(rows, weights, biases, *options)
    out, log_det, *saved = _Differentiable.apply(len(weights), options, *tensors)
    return out, log_det, saved


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
_LIBRARY.impl("coupling_mlp", _differentiable, "Autograd")
torch.library.register_autograd("fastinn::coupling_mlp_backward", _backward_twice, lib=_LIBRARY)

forward = torch.ops.fastinn.coupling_mlp.default
backward = torch.ops.fastinn.coupling_mlp_backward.default
