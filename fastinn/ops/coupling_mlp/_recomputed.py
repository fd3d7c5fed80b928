"""Gradients from the output alone: block by block, what the backward pass reads is recovered first.

Each kernel recovers rows by itself, or they would drift by the difference between two kernels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fastinn.ops.coupling_mlp._layer import Layer
from fastinn.ops.coupling_mlp._network import blocks, rows_of_block

Recover = Callable[[Layer, Tensor, list[Tensor], list[Tensor], Tensor], list[Tensor]]
"""Writes the rows whose output is known, and returns what is saved of a layer."""


def differentiate(
    recover: Recover,
    backward: Callable[..., None],
    layer: Layer,
    grad_out: Tensor,
    grad_log_det: Tensor,
    known: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    rows: Tensor,
    grad_rows: Tensor,
    grad_weights: list[Tensor],
    grad_biases: list[Tensor],
) -> None:
    """Write the gradients and the recovered ``rows``; ``backward`` starts from saved tensors."""
    totals, n = [*grad_weights, *grad_biases], len(weights)
    widest = max(bias.numel() for bias in biases)
    parts: list[Tensor] = []
    cut = blocks(len(known), rows_of_block(len(known), widest, known.device))
    if not cut:
        torch._foreach_zero_(totals)
    for block in cut:
        saved = recover(layer, known[block], weights, biases, rows[block])
        without_scale = known[block] if layer.inverse else rows[block]
        if block.start > 0:
            parts = parts or [torch.empty_like(total) for total in totals]
        sums = parts or totals
        backward(
            layer, grad_out[block], grad_log_det[block], without_scale, weights, biases, saved,
            None, grad_rows[block], sums[:n], sums[n:],
        )  # fmt: skip
        if parts:
            torch._foreach_add_(totals, parts)
