"""The whole layer in one C++ kernel with bfloat16 operands, for CPUs that multiply them.

Weights are rounded once a call, activations as they leave the sums, which stay float32 until then.
"""

import torch
from torch import Tensor

from fastinn.ops._native import native, strided
from fastinn.ops.coupling_mlp import _recomputed
from fastinn.ops.coupling_mlp._layer import Layer, halves, n_networks
from fastinn.ops.coupling_mlp._op import empty_saved


def supports(layer: Layer, rows: Tensor) -> bool:
    """Say whether this processor computes this layer so."""
    if layer.precision != "fast" or rows.dtype != torch.float32 or rows.is_cuda:
        return False
    module, _ = native(rows.device)
    return module.build_info()["isa"] in ("avx512_bf16", "amx")


def transform(
    layer: Layer,
    rows: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    out: Tensor,
    log_det: Tensor,
    saved: list[Tensor],
) -> None:
    """Write the transformed ``rows``, their log-determinant, and ``saved`` unless it is empty."""
    module, _ = native(rows.device)
    stays, moves = halves(rows.shape[1], layer.kept)
    kept, moved = rows[:, stays], rows[:, moves]
    weights = [weight.contiguous() for weight in weights]
    biases = [bias.contiguous() for bias in biases]
    log_scale, *pre = _addresses(saved) or [0] * len(weights)
    module.coupling_mlp_tiled(
        layer.inverse,
        layer.activation,
        n_networks(weights),
        [
            (weight.data_ptr(), bias.data_ptr(), weight.shape[-1], weight.shape[-2], address)
            for weight, bias, address in zip(weights, biases, [*pre, 0], strict=True)
        ],
        *kept.shape,
        moved.shape[1],
        strided(kept),
        strided(moved),
        layer.clamp or 0.0,
        layer.eps,
        strided(out[:, stays]),
        strided(out[:, moves]),
        log_det.data_ptr(),
        log_scale,
    )


def differentiate(
    layer: Layer,
    grad_out: Tensor,
    grad_log_det: Tensor,
    known: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    saved: list[Tensor],
    rows: Tensor | None,
    grad_rows: Tensor,
    grad_weights: list[Tensor],
    grad_biases: list[Tensor],
) -> None:
    """Write the gradients; without ``saved``, ``known`` is the output and ``rows`` is recovered."""
    if rows is not None:
        _recomputed.differentiate(
            recover, differentiate, layer, grad_out, grad_log_det, known, weights, biases, rows,
            grad_rows, grad_weights, grad_biases,
        )  # fmt: skip
        return
    module, _ = native(known.device)
    stays, moves = halves(known.shape[1], layer.kept)
    kept, moved = known[:, stays], known[:, moves]
    weights = [weight.contiguous() for weight in weights]
    log_scale, *pre = _addresses(saved)
    into = zip(_addresses(grad_weights), _addresses(grad_biases), strict=True)
    module.coupling_mlp_tiled_backward(
        layer.inverse,
        layer.activation,
        n_networks(weights),
        [
            (weight.data_ptr(), weight.shape[-1], weight.shape[-2], address, *grads)
            for weight, address, grads in zip(weights, [*pre, 0], into, strict=True)
        ],
        *kept.shape,
        moved.shape[1],
        strided(kept),
        strided(grad_out[:, stays]),
        strided(grad_rows[:, stays]),
        strided(grad_out[:, moves]),
        strided(grad_log_det[:, None]),
        strided(moved),
        log_scale,
        layer.clamp or 0.0,
        layer.eps,
        strided(grad_rows[:, moves]),
    )


def recover(
    layer: Layer, known: Tensor, weights: list[Tensor], biases: list[Tensor], rows: Tensor
) -> list[Tensor]:
    """Write the input whose output is ``known``; return what the backward pass reads."""
    back = layer._replace(inverse=not layer.inverse)
    log_det, saved = known.new_empty(len(known)), empty_saved(layer, known, weights)
    transform(back, known, weights, biases, rows, log_det, saved)
    return saved


def _addresses(tensors: list[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
