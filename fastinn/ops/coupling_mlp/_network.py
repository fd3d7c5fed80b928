"""The sub-network, or two side by side, on one block of rows after the other.

A layer of two networks holds the features of the first in its left half and those of the second in
its right half. Their first layers read the same features and are one product.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fastinn.ops.coupling_mlp import _epilogues

# Rows of a block: its widest layer stays in the cache, yet products are not thin.
_BLOCK_ELEMENTS = 1 << 21
_LEAST_ROWS = 512


class Product(NamedTuple):
    """One matrix ``(out, in)``, the columns that it reads and those it writes; ``None`` is all."""

    matrix: Tensor
    reads: slice | None = None
    writes: slice | None = None


class Network:
    """Weights as operands of products, and buffers for the activations of one block.

    Args:
        activation: What follows each layer but the last.
        weights: Matrices, or stacks of two.
        biases: Vectors, or stacks of two.
        dtype: What operands are rounded to.
        n_samples: How many rows there are in all.
    """

    def __init__(
        self,
        activation: str,
        weights: list[Tensor],
        biases: list[Tensor],
        dtype: torch.dtype,
        n_samples: int,
    ) -> None:
        self.activation, self.dtype = activation, dtype
        self.layers = products([weight.to(dtype) for weight in weights])
        self.biases = [bias.flatten() for bias in biases]
        widths = [len(bias) for bias in self.biases]
        self.n_rows = min(n_samples, max(_LEAST_ROWS, _BLOCK_ELEMENTS // max(widths)))
        self.blocks = [
            slice(start, min(start + self.n_rows, n_samples))
            for start in range(0, n_samples, self.n_rows or 1)
        ]
        *self.post, self.last = self.buffers(widths)

    def buffers(self, widths: list[int]) -> list[Tensor]:
        """Allocate a block of each width."""
        empty = self.biases[0].new_empty
        return [empty(self.n_rows, width, dtype=self.dtype) for width in widths]

    def operand(self, kept: Tensor) -> Tensor:
        """Return the kept features as an operand of the first product."""
        return kept.to(self.dtype).contiguous()

    def run(self, rows: Tensor, pre: list[Tensor]) -> Tensor:
        """Return the last product; ``pre``, unless empty, takes what goes into the activations."""
        n = len(rows)
        for index, buffer in enumerate(self.post):
            post = buffer[:n]
            apply(self.layers[index], rows, post)
            kept = pre[index] if pre else None
            _epilogues.hidden(self.activation, post, self.biases[index], kept)
            rows = post
        last = self.last[:n]
        apply(self.layers[-1], rows, last)
        return last


class Backward:
    """The gradients of a :class:`Network`, summed over its blocks.

    Args:
        network: What was run.
        grad_weights: Takes the gradients by the weights; contiguous.
        grad_biases: Takes the gradients by the biases; contiguous.
    """

    def __init__(
        self, network: Network, grad_weights: list[Tensor], grad_biases: list[Tensor]
    ) -> None:
        self.network = network
        self.weights = products(grad_weights)
        self.biases = [bias.flatten() for bias in grad_biases]
        for total in (*grad_weights, *grad_biases):
            total.zero_()
        self.n_kept = grad_weights[0].shape[-1]
        widths = [self.n_kept, *(len(bias) for bias in self.biases)]
        self.kept, *self.grads = network.buffers(widths)

    def run(self, kept: Tensor, pre: list[Tensor]) -> Tensor:
        """Go back from the gradient by the last product, in ``grads[-1]``, to the kept features."""
        network, n = self.network, len(kept)
        for index in reversed(range(len(pre))):
            grad, post = self.grads[index][:n], network.post[index][:n]
            following = self.grads[index + 1][:n]
            apply_transposed(network.layers[index + 1], following, grad)
            _epilogues.hidden_backward(network.activation, pre[index], grad, post)
            self._accumulate(index + 1, following, post)
        first, grad_kept = self.grads[0][:n], self.kept[:n]
        self._accumulate(0, first, kept)
        apply_transposed(network.layers[0], first, grad_kept)
        return grad_kept

    def _accumulate(self, index: int, grad: Tensor, rows: Tensor) -> None:
        bias = self.biases[index]
        bias += grad.sum(dim=0, dtype=bias.dtype)
        for total, reads, writes in self.weights[index]:
            left, right = _columns(grad, writes).T, _columns(rows, reads)
            if total.dtype == grad.dtype:
                total.addmm_(left, right)
            else:
                total += left @ right


def products(weights: list[Tensor]) -> list[list[Product]]:
    """Return the products of each layer; their matrices are views of contiguous weights."""
    first, *rest = weights
    if first.ndim == 2:
        return [[Product(weight)] for weight in weights]
    return [[Product(first.flatten(0, 1))], *([*_side_by_side(weight)] for weight in rest)]


def _side_by_side(weight: Tensor) -> Iterator[Product]:
    _, n_out, n_in = weight.shape
    for k, matrix in enumerate(weight):
        yield Product(matrix, slice(k * n_in, (k + 1) * n_in), slice(k * n_out, (k + 1) * n_out))


def apply(layer: list[Product], rows: Tensor, out: Tensor) -> None:
    """Write ``rows @ matrix.T`` of each product."""
    for matrix, reads, writes in layer:
        torch.mm(_columns(rows, reads), matrix.T, out=_columns(out, writes))


def apply_transposed(layer: list[Product], grad: Tensor, out: Tensor) -> None:
    """Write the gradient by the rows, ``grad @ matrix``, of each product."""
    for matrix, reads, writes in layer:
        torch.mm(_columns(grad, writes), matrix, out=_columns(out, reads))


def _columns(matrix: Tensor, which: slice | None) -> Tensor:
    return matrix if which is None else matrix[:, which]
