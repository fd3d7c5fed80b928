"""From tensors to launches: types, padding, descriptors and grids."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fastinn._types import Precision
from fastinn.ops.coupling_mlp._layer import Layer, n_networks
from fastinn.ops.coupling_mlp._triton._blocking import PADDING, Blocking, chunk_rows

FORWARD = {"exact": torch.float32, "high": torch.float32, "fast": torch.float16}
"""The type of operands. float16 rounds 8 times finer than bfloat16, ..."""

BACKWARD = FORWARD | {"fast": torch.bfloat16}
"""... in which gradients do not underflow."""

SAVED = BACKWARD
"""The type of saved pre-activations, which only the backward pass reads."""

_INPUT_PRECISION = {"exact": "ieee", "high": "tf32x3", "fast": "ieee"}


class Side(NamedTuple):
    """The rows that a product reads, of several networks side by side."""

    matrix: Tensor
    network: int
    """Columns from one network to the next; 0 where all read the same."""


def padded(width: int) -> int:
    """Return the distance between networks of ``width`` columns."""
    return triton.cdiv(width, PADDING) * PADDING


def empty_side(like: Tensor, networks: int, width: int, dtype: torch.dtype) -> Side:
    """Allocate activations for as many rows as ``like`` has."""
    network = padded(width)
    return Side(like.new_empty(len(like), networks * network, dtype=dtype), network)


def operand(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows, or a weight with its networks below each other, as a matrix in ``dtype``."""
    matrix = values.reshape(-1, values.shape[-1])
    if matrix.dtype == dtype:
        return matrix
    n_rows, n_columns = matrix.shape
    aligned = matrix.new_empty(n_rows, padded(n_columns), dtype=dtype)[:, :n_columns]
    return aligned.copy_(matrix)


def forward_operands(layer: Layer, weights: list[Tensor]) -> list[Tensor]:
    """Return the weights as the forward kernels read them.

    They are converted in every call: a cache would save a thousandth of the time that a chunk
    takes, and would have to notice every change of a parameter.
    """
    dtype = FORWARD[layer.precision]
    last = weights[-1]
    if n_networks(weights) == 1:
        # The shift and the log-scale of a feature next to each other.
        last = last.unflatten(0, (2, -1)).transpose(0, 1)
    return [operand(weight, dtype) for weight in (*weights[:-1], last)]


def chunks(n_rows: int, widest: int) -> Iterator[slice]:
    """Cut the rows into pieces whose activations fit in memory, however many rows there are."""
    step = chunk_rows(widest)
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def arch(device: torch.device) -> int | None:
    """Return the compute capability, 90 for 9.0; ``None`` where Triton interprets."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def n_multiprocessors(device: torch.device) -> int:
    """Return how many programs run at once, at least."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


def has_tma(device: torch.device) -> bool:
    """Return whether the tensor memory accelerator reads tiles."""
    return (arch(device) or 0) >= 90


def uses_tma(matrix: Tensor) -> bool:
    """16-bit matrices are all made here, padded and aligned as the accelerator needs them."""
    return matrix.element_size() == 2 and has_tma(matrix.device)


def tiles(matrix: Tensor, rows: int, columns: int) -> Any:
    """Return what a kernel reads tiles of ``(rows, columns)`` from."""
    if not uses_tma(matrix):
        return matrix
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, columns])


def launch(
    kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], blocks: Blocking, **options: Any
) -> None:
    """Run ``kernel``."""
    kernel[grid](
        *arguments,
        **options,
        num_warps=blocks.num_warps,
        num_stages=blocks.num_stages,
    )


def product_options(precision: Precision, blocks: Blocking) -> dict[str, Any]:
    """Return the constants of a kernel with a product."""
    return {
        "INPUT_PRECISION": _INPUT_PRECISION[precision],
        "BLOCK_M": blocks.m,
        "BLOCK_N": blocks.n,
        "BLOCK_K": blocks.k,
    }


def grid(n_tiles: int, weight: Tensor) -> tuple[int]:
    """Return how many programs share the tiles: one a multiprocessor where tiles are prefetched."""
    return (min(n_tiles, n_multiprocessors(weight.device)) if uses_tma(weight) else n_tiles,)


def on(device: torch.device) -> AbstractContextManager[None]:
    """Make ``device`` the current one, as Triton launches there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
