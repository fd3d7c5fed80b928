"""The C++ and CUDA backends: torch multiplies matrices, kernels compute everything in between.

Rows are taken in blocks, so that activations stay in the cache from one product to the next, and
none is ever held for all rows unless it is saved.
"""

import torch
from torch import Tensor

from fastinn._products import multiplies_bfloat16
from fastinn.ops.coupling_mlp import _epilogues, _tiled
from fastinn.ops.coupling_mlp._layer import Layer, halves
from fastinn.ops.coupling_mlp._network import Backward, Network


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
    if _tiled.supports(layer, rows):
        _tiled.transform(layer, rows, weights, biases, out, log_det, saved)
        return
    network = Network(layer.activation, weights, biases, operands(layer, rows), len(rows))
    stays, moves = halves(rows.shape[1], layer.kept)
    for block in network.blocks:
        before, after = rows[block], out[block]
        log_scale, *pre = (tensor[block] for tensor in saved) if saved else (None,)
        kept = before[:, stays]
        _epilogues.couple(
            layer,
            network.run(network.operand(kept), pre),
            network.biases[-1],
            kept,
            before[:, moves],
            after[:, stays],
            after[:, moves],
            log_det[block],
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
    if _tiled.supports(layer, known):
        _tiled.differentiate(
            layer, grad_out, grad_log_det, known, weights, biases, saved, rows, grad_rows,
            grad_weights, grad_biases,
        )  # fmt: skip
        return
    dtype = gradient_operands(layer, known)
    network = Network(layer.activation, weights, biases, dtype, len(known))
    backward = Backward(network, grad_weights, grad_biases)
    again = [] if saved else network.buffers([post.shape[1] for post in network.post])
    stays, moves = halves(known.shape[1], layer.kept)
    for block in network.blocks:
        n = block.stop - block.start
        kept = network.operand(known[block, stays])
        if rows is None:
            product = None
            log_scale, *pre = (tensor[block] for tensor in saved)
        else:
            log_scale, pre = None, [buffer[:n] for buffer in again]
            product = network.run(kept, pre)
            rows[block, stays] = known[block, stays]
        _epilogues.couple_backward(
            layer,
            grad_out[block, moves],
            grad_log_det[block],
            known[block, moves],
            log_scale,
            product,
            network.biases[-1],
            None if rows is None else rows[block, moves],
            grad_rows[block, moves],
            backward.grads[-1][:n],
        )
        grad_kept = backward.run(kept, pre)
        torch.add(grad_out[block, stays], grad_kept, out=grad_rows[block, stays])


def operands(layer: Layer, rows: Tensor) -> torch.dtype:
    """Return what operands of the network's products are rounded to."""
    if layer.precision != "fast" or rows.dtype != torch.float32:
        return rows.dtype
    if rows.is_cuda:
        return torch.float16
    return torch.bfloat16 if multiplies_bfloat16(rows.device) else rows.dtype


def gradient_operands(layer: Layer, rows: Tensor) -> torch.dtype:
    """Return what operands of products among gradients are rounded to: float16 would underflow."""
    dtype = operands(layer, rows)
    return torch.bfloat16 if dtype == torch.float16 else dtype
