"""The gradients, chunk of rows after chunk of rows."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from fastinn.ops.coupling_mlp._layer import Layer, halves, n_networks
from fastinn.ops.coupling_mlp._triton import _launch
from fastinn.ops.coupling_mlp._triton._backward import (
    coupling_gradient_kernel,
    hidden_gradient_kernel,
    kept_gradient_kernel,
    weight_gradient_kernel,
)
from fastinn.ops.coupling_mlp._triton._blocking import blocking, n_splits
from fastinn.ops.coupling_mlp._triton._launch import BACKWARD, SAVED, Side
from fastinn.ops.coupling_mlp._triton._transform import transform_chunk, widest


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
    """Write the gradients and, unless there are ``saved`` activations, the op's input."""
    networks = n_networks(weights)
    operands = [_launch.operand(weight, BACKWARD[layer.precision]) for weight in weights]
    recompute = None if rows is None else _Recompute.of(layer, weights, biases)
    sums = [
        _Sums.of(layer, grad_weight, grad_bias, _parts(index, weights), len(grad_rows))
        for index, (grad_weight, grad_bias) in enumerate(
            zip(grad_weights, grad_biases, strict=True)
        )
    ]
    with _launch.on(grad_rows.device):
        for chunk in _launch.chunks(len(grad_rows), widest(weights)):
            x, kept = known[chunk], [tensor[chunk] for tensor in saved]
            if rows is not None and recompute is not None:
                kept = recompute.chunk(known[chunk], rows[chunk])
                x = x if layer.inverse else rows[chunk]
            _chunk(
                layer,
                networks,
                grad_out[chunk],
                grad_log_det[chunk],
                x,
                operands,
                kept,
                grad_rows[chunk],
                sums,
            )
        for total in sums:
            total.finish()


def _parts(index: int, weights: list[Tensor]) -> int:
    """Return 2 for the last layer, whose shift and log-scale have gradients of their own."""
    return 2 if index == len(weights) - 1 else n_networks(weights)


class _Recompute(NamedTuple):
    """The layer in the other direction, to go from the output back to the input."""

    layer: Layer
    networks: int
    operands: list[Tensor]
    biases: list[Tensor]

    @classmethod
    def of(cls, layer: Layer, weights: list[Tensor], biases: list[Tensor]) -> "_Recompute":
        operands = _launch.forward_operands(layer, weights)
        contiguous = [bias.contiguous() for bias in biases]
        other = layer._replace(inverse=not layer.inverse)
        return cls(other, n_networks(weights), operands, contiguous)

    def chunk(self, known: Tensor, rows: Tensor) -> list[Tensor]:
        """Write the input of one chunk and return what the op would have saved."""
        n_rows, dtype = len(known), SAVED[self.layer.precision]
        saved = [known.new_empty(n_rows, len(self.operands[-1]) // 2)]
        saved += [known.new_empty(n_rows, len(w), dtype=dtype) for w in self.operands[:-1]]
        unused = known.new_empty(n_rows)
        transform_chunk(
            self.layer, self.networks, known, self.operands, self.biases, rows, unused, saved
        )
        return saved


class _Sums(NamedTuple):
    """Gradients of one linear layer: sums over rows, in an order that never changes."""

    parts: int
    partial: Tensor
    """Of the weight, one a split, shape ``(n_splits, parts * out, in)``."""
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: Layer, weight: Tensor, bias: Tensor, parts: int, n_rows: int) -> "_Sums":
        matrix = weight.view(-1, weight.shape[-1])
        n_all, n_in = matrix.shape
        n_multiprocessors = _launch.n_multiprocessors(weight.device)
        blocks = blocking("weight_gradient", layer.precision, n_in, _launch.arch(weight.device))
        splits = n_splits(_n_tiles(n_all // parts, n_in, parts, blocks), n_rows, n_multiprocessors)
        partial = matrix.new_empty(splits, n_all, n_in) if splits > 1 else matrix[None]
        return cls(parts, partial.zero_(), matrix, bias.zero_().view(parts, -1))

    def add_weight(self, layer: Layer, grad: Side, x: Side) -> None:
        """Add what the rows of one chunk give the weight."""
        splits, n_all, n_in = self.partial.shape
        n_rows, n_out = len(x.matrix), n_all // self.parts
        blocks = blocking("weight_gradient", layer.precision, n_in, _launch.arch(x.matrix.device))
        rows_per_split = triton.cdiv(triton.cdiv(n_rows, splits), blocks.k) * blocks.k
        arguments = (
            _launch.tiles(grad.matrix, blocks.k, blocks.m),
            _launch.tiles(x.matrix, blocks.k, blocks.n),
            self.partial,
            *(n_rows, n_in, n_out, rows_per_split),
            *(grad.matrix.stride(0), grad.network, x.matrix.stride(0), x.network),
        )
        _launch.launch(
            weight_gradient_kernel,
            (_n_tiles(n_out, n_in, self.parts, blocks), splits),
            arguments,
            blocks,
            PARTS=self.parts,
            TMA=_launch.uses_tma(x.matrix),
            **_launch.product_options(layer.precision, blocks),
        )

    def add_bias(self, partial: Tensor) -> None:
        """Add sums over tiles of rows, shape ``(n_tiles, parts, padded)``."""
        self.bias.add_(partial[:, :, : self.bias.shape[1]].sum(0))

    def finish(self) -> None:
        """Add the splits up."""
        if len(self.partial) > 1:
            torch.sum(self.partial, 0, out=self.weight)


def _n_tiles(n_out: int, n_in: int, parts: int, blocks: _launch.Blocking) -> int:
    return parts * triton.cdiv(n_out, blocks.m) * triton.cdiv(n_in, blocks.n)


def _chunk(
    layer: Layer,
    networks: int,
    grad_out: Tensor,
    grad_log_det: Tensor,
    x: Tensor,
    operands: list[Tensor],
    saved: list[Tensor],
    grad_rows: Tensor,
    sums: list[_Sums],
) -> None:
    """Write the gradient of one chunk of rows and add to those of the parameters."""
    log_scale, *hidden = saved
    grad, kept = _couple(layer, grad_out, grad_log_det, x, log_scale, grad_rows, sums[-1])
    for index in range(len(hidden), 0, -1):
        previous, operand = _hidden(
            layer, networks, grad, operands[index], hidden[index - 1], sums[index - 1]
        )
        if sums[index].parts > networks:
            operand = operand._replace(network=0)
        sums[index].add_weight(layer, grad, operand)
        grad = previous
    _kept(layer, networks, grad, operands[0], grad_out, grad_rows)
    sums[0].add_weight(layer, grad, kept)


def _couple(
    layer: Layer,
    grad_out: Tensor,
    grad_log_det: Tensor,
    x: Tensor,
    log_scale: Tensor,
    grad_rows: Tensor,
    sums: _Sums,
) -> tuple[Side, Side]:
    """Return the gradients of shift and log-scale, and the kept features as an operand."""
    stays, moves = halves(x.shape[1], layer.kept)
    kept, moved, grad_moved = x[:, stays], x[:, moves], grad_rows[:, moves]
    (n_rows, n_kept), n_moved = kept.shape, moved.shape[1]
    dtype = BACKWARD[layer.precision]
    grad = _launch.empty_side(x, 2, n_moved, dtype)
    operand = _launch.empty_side(x, 1, n_kept, dtype)
    blocks = blocking("coupling_gradient", layer.precision, n_moved, _launch.arch(x.device))
    row_tiles = triton.cdiv(n_rows, blocks.m)
    grad_bias = x.new_empty(row_tiles, 2, grad.network)
    arguments = (
        *(grad_out[:, moves], grad_log_det, kept, moved, log_scale, grad_moved),
        *(grad.matrix, operand.matrix, grad_bias),
        *(n_rows, n_kept, n_moved),
        *(*grad_out[:, moves].stride(), *grad_log_det.stride()),
        *(*moved.stride(), *grad_moved.stride()),
        *(grad.network, operand.network),
    )
    _launch.launch(
        coupling_gradient_kernel,
        (row_tiles, triton.cdiv(max(n_kept, n_moved), blocks.n)),
        arguments,
        blocks,
        INVERSE=layer.inverse,
        CLAMP=layer.clamp or 0.0,
        EPS=layer.eps,
        BLOCK_M=blocks.m,
        BLOCK_N=blocks.n,
    )
    sums.add_bias(grad_bias)
    return grad, operand._replace(network=0)


def _hidden(
    layer: Layer, networks: int, grad: Side, weight: Tensor, saved: Tensor, sums: _Sums
) -> tuple[Side, Side]:
    """Return the gradient before the activation that this layer reads, and that activation."""
    (n_rows, n_parts), (n_all, n_in) = grad.matrix.shape, weight.shape
    parts = n_parts // grad.network
    out, operand = (_launch.empty_side(grad.matrix, networks, n_in, weight.dtype) for _ in range(2))
    blocks = blocking("gradient", layer.precision, n_in, _launch.arch(weight.device))
    row_tiles = triton.cdiv(n_rows, blocks.m)
    grad_bias = sums.bias.new_empty(row_tiles, networks, out.network)
    arguments = (
        _launch.tiles(grad.matrix, blocks.m, blocks.k),
        _launch.tiles(weight, blocks.k, blocks.n),
        *(saved, out.matrix, operand.matrix, grad_bias),
        *(n_rows, n_in, n_all // parts),
        *(n_parts, grad.network, *weight.stride(), out.network),
    )
    _launch.launch(
        hidden_gradient_kernel,
        _launch.grid(row_tiles * triton.cdiv(n_in, blocks.n) * networks, weight),
        arguments,
        blocks,
        ACTIVATION=layer.activation,
        NETWORKS=networks,
        SUMMED=parts // networks,
        TMA=_launch.uses_tma(weight),
        **_launch.product_options(layer.precision, blocks),
    )
    sums.add_bias(grad_bias)
    return out, operand


def _kept(
    layer: Layer, networks: int, grad: Side, weight: Tensor, grad_out: Tensor, grad_rows: Tensor
) -> None:
    """Write the gradient of the kept features."""
    stays, _ = halves(grad_rows.shape[1], layer.kept)
    grad_out, grad_rows = grad_out[:, stays], grad_rows[:, stays]
    (n_rows, n_parts), (n_all, n_in) = grad.matrix.shape, weight.shape
    blocks = blocking("gradient", layer.precision, n_in, _launch.arch(weight.device))
    arguments = (
        _launch.tiles(grad.matrix, blocks.m, blocks.k),
        _launch.tiles(weight, blocks.k, blocks.n),
        *(grad_out, grad_rows),
        *(n_rows, n_in, n_all // networks),
        *(n_parts, grad.network, *weight.stride()),
        *(*grad_out.stride(), *grad_rows.stride()),
    )
    _launch.launch(
        kept_gradient_kernel,
        _launch.grid(triton.cdiv(n_rows, blocks.m) * triton.cdiv(n_in, blocks.n), weight),
        arguments,
        blocks,
        SUMMED=networks,
        TMA=_launch.uses_tma(weight),
        **_launch.product_options(layer.precision, blocks),
    )
