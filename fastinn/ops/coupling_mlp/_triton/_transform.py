"""A pass through the layer, chunk of rows after chunk of rows."""

import triton
from torch import Tensor

from fastinn.ops.coupling_mlp._layer import Layer, halves, n_networks
from fastinn.ops.coupling_mlp._triton import _launch
from fastinn.ops.coupling_mlp._triton._blocking import blocking
from fastinn.ops.coupling_mlp._triton._forward import coupling_kernel, hidden_kernel
from fastinn.ops.coupling_mlp._triton._launch import Side


def transform(
    layer: Layer,
    rows: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    out: Tensor,
    log_det: Tensor,
    saved: list[Tensor],
) -> None:
    """Write the transformed rows, their log-determinant and, where there is room, ``saved``."""
    operands = _launch.forward_operands(layer, weights)
    biases = [bias.contiguous() for bias in biases]
    networks = n_networks(weights)
    with _launch.on(rows.device):
        for chunk in _launch.chunks(len(rows), widest(weights)):
            kept = [tensor[chunk] for tensor in saved]
            transform_chunk(
                layer, networks, rows[chunk], operands, biases, out[chunk], log_det[chunk], kept
            )


def widest(weights: list[Tensor]) -> int:
    """Return the columns of the widest activations."""
    return max(weight[..., 0].numel() for weight in weights)


def transform_chunk(
    layer: Layer,
    networks: int,
    rows: Tensor,
    operands: list[Tensor],
    biases: list[Tensor],
    out: Tensor,
    log_det: Tensor,
    saved: list[Tensor],
) -> None:
    """Compute one chunk, all of whose hidden activations lie in memory."""
    stays, _ = halves(rows.shape[1], layer.kept)
    kept: list[Tensor | None] = [*saved] or [None] * len(operands)
    log_scale, *hidden = kept
    # Rounded before they are multiplied: a product of what it converts itself reads that from
    # registers, and Triton 3.6 uses such products before they are complete.
    x = Side(_launch.operand(rows[:, stays], operands[0].dtype), 0)
    for weight, bias, pre_activation in zip(operands[:-1], biases[:-1], hidden, strict=True):
        x = _hidden(layer, networks, x, weight, bias, pre_activation)
    _couple(layer, networks, x, operands[-1], biases[-1], rows, out, log_det, log_scale)


def _hidden(
    layer: Layer, networks: int, x: Side, weight: Tensor, bias: Tensor, saved: Tensor | None
) -> Side:
    """Return the activations of one hidden layer; ``saved`` takes them before the activation."""
    n_rows, (n_all, n_in) = len(x.matrix), weight.shape
    n_out = n_all // networks
    out = _launch.empty_side(x.matrix, networks, n_out, weight.dtype)
    blocks = blocking("hidden", layer.precision, n_out, _launch.arch(weight.device))
    n_tiles = triton.cdiv(n_rows, blocks.m) * triton.cdiv(n_out, blocks.n) * networks
    arguments = (
        _launch.tiles(x.matrix, blocks.m, blocks.k),
        _launch.tiles(weight, blocks.n, blocks.k),
        bias,
        out.matrix,
        saved,
        *(n_rows, n_in, n_out),
        *(*x.matrix.stride(), x.network),
        *(*weight.stride(), out.network),
    )
    _launch.launch(
        hidden_kernel,
        _launch.grid(n_tiles, weight),
        arguments,
        blocks,
        ACTIVATION=layer.activation,
        NETWORKS=networks,
        SAVE=saved is not None,
        TMA=_launch.uses_tma(weight),
        **_launch.product_options(layer.precision, blocks),
    )
    return out


def _couple(
    layer: Layer,
    networks: int,
    x: Side,
    weight: Tensor,
    bias: Tensor,
    rows: Tensor,
    out: Tensor,
    log_det: Tensor,
    log_scale: Tensor | None,
) -> None:
    """Write the rows and their log-determinant; ``log_scale`` takes that before clamping."""
    stays, moves = halves(rows.shape[1], layer.kept)
    (kept, moved), (out_kept, out_moved) = ((t[:, stays], t[:, moves]) for t in (rows, out))
    (n_rows, n_kept), n_moved = kept.shape, moved.shape[1]
    blocks = blocking("coupling", layer.precision, n_moved, _launch.arch(weight.device))
    column_tiles = triton.cdiv(max(n_kept, n_moved), blocks.n)
    partial = rows.new_empty(column_tiles, n_rows)
    arguments = (
        _launch.tiles(x.matrix, blocks.m, blocks.k),
        _launch.tiles(weight, blocks.n * 2 // networks, blocks.k),
        bias,
        *(kept, moved, out_kept, out_moved),
        partial,
        log_scale,
        *(n_rows, weight.shape[1], n_kept, n_moved),
        *(x.matrix.stride(0), x.network, *weight.stride()),
        *(*moved.stride(), *out_moved.stride()),
    )
    _launch.launch(
        coupling_kernel,
        _launch.grid(triton.cdiv(n_rows, blocks.m) * column_tiles, weight),
        arguments,
        blocks,
        INVERSE=layer.inverse,
        CLAMP=layer.clamp or 0.0,
        EPS=layer.eps,
        NETWORKS=networks,
        SAVE=log_scale is not None,
        TMA=_launch.uses_tma(weight),
        **_launch.product_options(layer.precision, blocks),
    )
    # torch adds one dimension up in the same order every time.
    log_det.copy_(partial.sum(0))
