"""The whole layer in one CUDA kernel, where there is one for its widths (sm_90a)."""

import functools

import torch
from torch import Tensor

from fastinn.ops._native import native, strided
from fastinn.ops.coupling_mlp._layer import Layer, halves, n_networks

_COMPUTE_CAPABILITY = (9, 0)  # wgmma is in no other


def supports(layer: Layer, rows: Tensor, weights: list[Tensor]) -> bool:
    """Say whether :func:`transform` computes this layer, in both directions."""
    return (
        layer.precision == "fast"
        and rows.is_cuda
        and rows.dtype == torch.float32
        and n_networks(weights) == 1
        and torch.cuda.get_device_capability(rows.device) == _COMPUTE_CAPABILITY
        and packed_bytes(layer, rows.shape[1], weights) > 0
    )


def packed_bytes(layer: Layer, n_features: int, weights: list[Tensor]) -> int:
    """Return how much memory the kernel's copy of the weights takes; 0 where there is no kernel."""
    kept, moved = (_columns(half, n_features) for half in halves(n_features, layer.kept))
    return _packed_bytes(kept[2], moved[2], tuple(len(weight) for weight in weights[:-1]))


@functools.cache
def _packed_bytes(n_kept: int, n_moved: int, hidden: tuple[int, ...]) -> int:
    from fastinn import _cuda

    return _cuda.fused_coupling_bytes(n_kept, n_moved, hidden)


def transform(
    layer: Layer,
    rows: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    out: Tensor,
    log_det: Tensor,
) -> None:
    """Write the transformed ``rows`` and their log-determinant."""
    module, where = native(rows.device)
    n_samples, n_features = rows.shape
    kept, moved = (_columns(half, n_features) for half in halves(n_features, layer.kept))
    # Packed in every call: it takes microseconds, and a cache would have to notice all the ways in
    # which weights change.
    packed = rows.new_empty(packed_bytes(layer, n_features, weights), dtype=torch.uint8)
    rows, biases = rows.contiguous(), [bias.contiguous() for bias in biases]
    module.fused_coupling(
        layer.inverse,
        layer.activation,
        n_samples,
        n_features,
        kept,
        moved,
        [
            (strided(weight), bias.data_ptr(), *weight.shape)
            for weight, bias in zip(weights, biases, strict=True)
        ],
        layer.clamp or 0.0,
        layer.eps,
        rows.data_ptr(),
        out.data_ptr(),
        log_det.data_ptr(),
        packed.data_ptr(),
        *where,
    )


def _columns(half: slice, n_features: int) -> tuple[int, int, int]:
    """Return the first column, the step, and how many columns there are."""
    columns = range(n_features)[half]
    return columns.start, columns.step, len(columns)
