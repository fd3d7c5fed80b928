"""Tile sizes of every kernel: the one place that chooses them, and all that the gates compile."""

from typing import Literal, NamedTuple

from fastinn._types import Precision

Kernel = Literal["hidden", "coupling", "coupling_gradient", "gradient", "weight_gradient"]
"""``"gradient"`` are both kernels of data gradients, of hidden and of kept features."""

PADDING = 64
"""Columns that activations are padded to: a multiple of every inner tile."""

_CHUNK_ELEMENTS = 2**25
_CHUNK_ROWS = 8192
_SPLIT_ROWS = 1024


class Blocking(NamedTuple):
    """A tile of the output, its step along the inner dimension, and what computes it."""

    m: int
    n: int
    k: int
    num_warps: int
    num_stages: int


_ELEMENTWISE = Blocking(32, 64, 1, 4, 1)
# Small, so that tests of small shapes cross from tile to tile.
_INTERPRETED = Blocking(32, 32, 32, 4, 1)
# Python loops over the programs there.
_INTERPRETED_WIDE = Blocking(128, 256, 32, 4, 1)


def blocking(kernel: Kernel, precision: Precision, width: int, arch: int | None) -> Blocking:
    """Return the tiles of ``kernel`` for outputs of ``width`` columns.

    Args:
        kernel: What is computed.
        precision: How products are rounded: ``"fast"`` has 16-bit operands.
        width: Columns of the output, of one network.
        arch: Compute capability, 90 for 9.0; ``None`` where Triton interprets the kernels.
    """
    if arch is None:
        return _INTERPRETED if width <= 64 else _INTERPRETED_WIDE
    if kernel == "coupling_gradient":
        return _ELEMENTWISE
    if precision != "fast":
        return _float32(kernel)
    # 9.0 and 10.0 have 227 KiB of shared memory, the others as little as 99 KiB.
    return _hopper(kernel, width) if arch // 10 in (9, 10) else _ampere(kernel)


def _float32(kernel: Kernel) -> Blocking:
    columns, warps = (32, 4) if kernel == "coupling" else (64, 8 if kernel == "gradient" else 4)
    return Blocking(64, columns, 32, warps, 2)


def _ampere(kernel: Kernel) -> Blocking:
    return Blocking(128, 64 if kernel == "coupling" else 128, 32, 8, 3)


def _hopper(kernel: Kernel, width: int) -> Blocking:
    if kernel == "coupling":
        return Blocking(128, 64, 64, 8, 3)
    # More columns spill registers in the kernels that do more to each element.
    wide = kernel == "hidden" and width > 128
    return Blocking(128, 256 if wide else 128, 64, 8, 3)


def n_splits(n_tiles: int, n_rows: int, n_multiprocessors: int) -> int:
    """Return into how many parts to split the rows for a weight gradient of ``n_tiles``."""
    return max(1, min(n_multiprocessors // n_tiles, n_rows // _SPLIT_ROWS, 128))


def chunk_rows(widest: int) -> int:
    """Return how many rows to take at once: few enough to bound what lies in memory.

    Args:
        widest: Columns of the widest activations, all networks together.
    """
    return max(_CHUNK_ROWS, _CHUNK_ELEMENTS // max(widest, PADDING))
