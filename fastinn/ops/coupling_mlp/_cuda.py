"""The CUDA backend: one kernel for the whole layer where there is one, products in torch elsewhere.

``"fast"`` products have float16 operands in the network and bfloat16 ones among gradients. A layer
is undone by the kernels that did it, or round trips would drift by the difference between them.
"""

from torch import Tensor

from fastinn.ops.coupling_mlp import _cuda_fused, _native, _recomputed
from fastinn.ops.coupling_mlp._layer import Layer
from fastinn.ops.coupling_mlp._op import empty_saved


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
    if not saved and _cuda_fused.supports(layer, rows, weights):
        _cuda_fused.transform(layer, rows, weights, biases, out, log_det)
    else:
        _native.transform(layer, rows, weights, biases, out, log_det, saved)


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
    if rows is None:
        _native.differentiate(
            layer, grad_out, grad_log_det, known, weights, biases, saved, None, grad_rows,
            grad_weights, grad_biases,
        )  # fmt: skip
        return
    _recomputed.differentiate(
        recover, _native.differentiate, layer, grad_out, grad_log_det, known, weights, biases, rows,
        grad_rows, grad_weights, grad_biases,
    )  # fmt: skip


def recover(
    layer: Layer, known: Tensor, weights: list[Tensor], biases: list[Tensor], rows: Tensor
) -> list[Tensor]:
    """Write the input whose output is ``known``; return what the backward pass reads."""
    back = layer._replace(inverse=not layer.inverse)
    log_det, saved = known.new_empty(len(known)), empty_saved(layer, known, weights)
    _native.transform(back, known, weights, biases, rows, log_det, saved)
    if _cuda_fused.supports(layer, known, weights):
        _cuda_fused.transform(back, known, weights, biases, rows, log_det)
    return saved
