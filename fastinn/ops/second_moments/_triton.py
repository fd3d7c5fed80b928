"""The Triton kernels: stage rows, multiply tiles of them panel by panel, merge the panels.

Tensor cores truncate what they add to an accumulator, so that a long sum drifts. Each program
starts a fresh accumulator every 32 to 128 rows and promotes it to a float32 total with rounding.
The small products of a split come first, where truncation cuts least.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fastinn.ops.second_moments import _panels
from fastinn.ops.second_moments._panels import MERGED_TILE, Form, Staged, Tile

# What a program of the staging kernel holds: whole cache lines of a few rows.
STAGE_ROWS, STAGE_COLUMNS, STAGE_WARPS = 64, 32, 8

MERGE_WARPS = 8

# The largest staged entry of a column is 2^14 or more and below 2^15, which float16 holds. Its
# smallest step, 2^-24, is then 2^-38 of that entry: subnormals cost nothing.
STAGED_EXPONENT = tl.constexpr(14)


@triton.jit
def _power_of_two(exponent):
    return ((exponent + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _exponent(largest):
    """Return k with 2^k <= largest < 2^(k+1), bounded so that 2^k and 2^-k are float64."""
    k = (largest.to(tl.int64, bitcast=True) >> 52) - 1023
    return tl.minimum(tl.maximum(k, -900), 900)


@triton.jit
def _prepared(x_ptr, shift, root_ptr, rows, columns, n_samples, n_features, row, column):
    """Return root (x - shift) in float64, where any mean leaves without a trace; 0 outside."""
    mask = (rows < n_samples)[:, None] & (columns < n_features)[None, :]
    x = tl.load(x_ptr + rows[:, None] * row + columns[None, :].to(tl.int64) * column, mask, 0.0)
    x = tl.where(mask, x.to(tl.float64) - shift[None, :], 0.0)
    if root_ptr is not None:
        x *= tl.load(root_ptr + rows, rows < n_samples, 0.0)[:, None]
    return x


@triton.jit
def stage_kernel(
    x_ptr,
    shift_ptr,
    root_ptr,
    high_ptr,
    low_ptr,
    scale_ptr,
    n_samples,
    n_features,
    staged_rows,
    staged_columns,
    panel,
    panels,
    x_layer,
    x_row,
    x_column,
    SCALED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Stage one panel of a few columns; it is read twice, the second time from the L2 cache."""
    blocks = staged_columns // COLUMNS
    layer = (tl.program_id(0) // (blocks * panels)).to(tl.int64)
    first = tl.program_id(0) // blocks % panels * panel
    last = tl.minimum(first + panel, staged_rows)
    columns = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    if shift_ptr is not None:
        inside = columns < n_features
        shift = tl.load(shift_ptr + layer * n_features + columns, inside, 0.0)
    else:
        shift = tl.zeros([COLUMNS], tl.float64)
    x_ptr += layer * x_layer
    factor = tl.full([COLUMNS], 1.0, tl.float64)
    scale = tl.full([COLUMNS], 1.0, tl.float64)
    if SCALED:
        largest = tl.zeros([COLUMNS], tl.float64)
        for start in range(first, last, ROWS):
            rows = start + tl.arange(0, ROWS).to(tl.int64)
            x = _prepared(
                x_ptr, shift, root_ptr, rows, columns, n_samples, n_features, x_row, x_column
            )
            largest = tl.maximum(largest, tl.max(tl.abs(x), axis=0))
        exponent = _exponent(largest)
        factor = _power_of_two(-exponent + STAGED_EXPONENT)
        scale = _power_of_two(exponent - STAGED_EXPONENT)
    row_of_scale = layer * panels + first // panel
    tl.store(scale_ptr + row_of_scale * staged_columns + columns, scale)
    for start in range(first, last, ROWS):
        rows = start + tl.arange(0, ROWS).to(tl.int64)
        x = _prepared(x_ptr, shift, root_ptr, rows, columns, n_samples, n_features, x_row, x_column)
        x *= factor[None, :]
        high = x.to(tl.float32).to(tl.float16) if SCALED else x
        written = (layer * staged_rows + rows)[:, None] * staged_columns + columns[None, :]
        tl.store(high_ptr + written, high)
        if low_ptr is not None:
            low = (x - high.to(tl.float64)).to(tl.float32).to(tl.float16)
            tl.store(low_ptr + written, low)


@triton.jit
def _load_left(
    staged, row, column, width, TMA: tl.constexpr, HEIGHT: tl.constexpr, ROWS: tl.constexpr
):
    """Load a block of the left side, transposed."""
    if TMA:
        block = staged.load([row, column]).T
    else:
        # Not a transposed load: only this way is it copied to shared memory in the background.
        rows = row + tl.arange(0, ROWS).to(tl.int64)
        columns = column + tl.arange(0, HEIGHT)
        block = tl.load(staged + rows[None, :] * width + columns[:, None])
    return block


@triton.jit
def _load_right(
    staged, row, column, width, TMA: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    if TMA:
        block = staged.load([row, column])
    else:
        rows = row + tl.arange(0, ROWS).to(tl.int64)
        columns = column + tl.arange(0, WIDTH)
        block = tl.load(staged + rows[:, None] * width + columns[None, :])
    return block


@triton.jit
def product_kernel(
    x_high,
    x_low,
    y_high,
    y_low,
    tiles_ptr,
    sums_ptr,
    n_tiles,
    staged_rows,
    x_columns,
    y_columns,
    panel,
    panels,
    SPLIT: tl.constexpr,
    TMA: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Multiply one tile over one panel, two pairs of blocks of ``ROWS`` rows at a time.

    The pairs are both halves of a split, or else ``ROWS`` rows and the next.
    """
    dtype: tl.constexpr = sums_ptr.dtype.element_ty
    tile = tl.program_id(0) % n_tiles
    first = tl.program_id(0) // n_tiles % panels * panel
    layer = tl.program_id(0) // (n_tiles * panels)
    i = tl.load(tiles_ptr + 2 * tile) * HEIGHT
    j = tl.load(tiles_ptr + 2 * tile + 1) * WIDTH
    length = tl.minimum(panel, staged_rows - first)
    first += layer * staged_rows
    STEP: tl.constexpr = ROWS if SPLIT else 2 * ROWS
    NEXT: tl.constexpr = 0 if SPLIT else ROWS
    total = tl.zeros([HEIGHT, WIDTH], dtype)
    for row in tl.range(first, first + length, STEP):
        x = _load_left(x_high, row, i, x_columns, TMA, HEIGHT, ROWS)
        y = _load_right(y_high, row, j, y_columns, TMA, ROWS, WIDTH)
        # Never a sum with a single product: Triton would fold that into one long accumulation.
        if SPLIT:
            rest_x = _load_left(x_low, row, i, x_columns, TMA, HEIGHT, ROWS)
            rest_y = _load_right(y_low, row, j, y_columns, TMA, ROWS, WIDTH)
            block = tl.dot(x, rest_y, out_dtype=dtype)
            block = tl.dot(rest_x, y, block, out_dtype=dtype)
            block = tl.dot(x, y, block, out_dtype=dtype)
        else:
            next_x = _load_left(x_high, row + NEXT, i, x_columns, TMA, HEIGHT, ROWS)
            next_y = _load_right(y_high, row + NEXT, j, y_columns, TMA, ROWS, WIDTH)
            block = tl.dot(x, y, out_dtype=dtype)
            block = tl.dot(next_x, next_y, block, out_dtype=dtype)
        total += block
    written = tl.program_id(0).to(tl.int64) * HEIGHT * WIDTH
    written += tl.arange(0, HEIGHT)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(sums_ptr + written, total)


@triton.jit
def merge_kernel(
    x_scale_ptr,
    y_scale_ptr,
    tiles_ptr,
    sums_ptr,
    out_ptr,
    n_tiles,
    n_rows,
    n_columns,
    x_columns,
    y_columns,
    panels,
    out_layer,
    out_row,
    out_column,
    SYMMETRIC: tl.constexpr,
    ADD: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Merge a square part of a tile; the panels always in the same order."""
    PARTS: tl.constexpr = WIDTH // SIDE
    part = tl.program_id(1)
    top, left = part // PARTS * SIDE, part % PARTS * SIDE
    tile = tl.program_id(0) % n_tiles
    layer = (tl.program_id(0) // n_tiles).to(tl.int64)
    rows = tl.load(tiles_ptr + 2 * tile) * HEIGHT + top + tl.arange(0, SIDE)
    columns = tl.load(tiles_ptr + 2 * tile + 1) * WIDTH + left + tl.arange(0, SIDE)
    within = (top + tl.arange(0, SIDE))[:, None] * WIDTH + left + tl.arange(0, SIDE)[None, :]
    x_scale_ptr += layer * panels * x_columns
    y_scale_ptr += layer * panels * y_columns
    total = tl.zeros([SIDE, SIDE], tl.float64)
    for panel in range(panels):
        place = ((layer * panels + panel) * n_tiles + tile) * HEIGHT * WIDTH
        x_scale = tl.load(x_scale_ptr + panel * x_columns + rows)
        y_scale = tl.load(y_scale_ptr + panel * y_columns + columns)
        product = tl.load(sums_ptr + place + within).to(tl.float64)
        total += product * x_scale[:, None] * y_scale[None, :]
    out_ptr += layer * out_layer
    i, j = rows[:, None].to(tl.int64), columns[None, :].to(tl.int64)
    out = out_ptr + i * out_row + j * out_column
    mask = (i < n_rows) & (j < n_columns)
    if SYMMETRIC:
        mask &= i >= j
    if ADD:
        total += tl.load(out, mask, 0.0)
    tl.store(out, total, mask)
    if SYMMETRIC:
        tl.store(out_ptr + j * out_row + i * out_column, total, mask & (i > j))


class Configuration(NamedTuple):
    """How the product kernel is compiled."""

    tma: bool
    tile: Tile
    rows: int
    num_warps: int
    num_stages: int


@lru_cache
def configuration(form: Form, capability: tuple[int, int]) -> Configuration:
    """Return the configuration for GPUs of a compute capability; (0, 0) is the interpreter."""
    if form == "double":
        return Configuration(tma=False, tile=Tile(64, 64), rows=16, num_warps=4, num_stages=3)
    if capability[0] in (9, 10):
        return Configuration(tma=True, tile=Tile(128, 128), rows=64, num_warps=8, num_stages=3)
    # Fits into the 99 KiB of shared memory that most have; the registers of sm_80 hold no more.
    return Configuration(tma=False, tile=Tile(128, 128), rows=32, num_warps=8, num_stages=3)


class _Kernels:
    """Launches on the current stream of the tensors' device."""

    def tile(self, form: Form, device: torch.device) -> Tile:
        return configuration(form, _capability(device)).tile

    def stage(self, x: Tensor, shift: Tensor | None, root: Tensor | None, staged: Staged) -> None:
        shift = None if shift is None else shift.double().contiguous()
        high, low, scale, panel = staged
        layers, panels, columns = scale.shape
        sizes = (*x.shape[1:], *high.shape[1:], panel, panels, *x.stride())
        with _on(x.device):
            stage_kernel[(layers * panels * (columns // STAGE_COLUMNS),)](
                *(x, shift, root, high, low, scale, *sizes),
                SCALED=staged.form != "double",
                ROWS=STAGE_ROWS,
                COLUMNS=STAGE_COLUMNS,
                num_warps=STAGE_WARPS,
            )

    def multiply(self, x: Staged, y: Staged, tiles: Tensor, sums: Tensor) -> None:
        how = configuration(x.form, _capability(sums.device))
        layers, panels, n_tiles, height, width = sums.shape
        operands = [
            _operand(matrix, how, columns)
            for side, columns in ((x, height), (y, width))
            for matrix in (side.high, side.low)
        ]
        sizes = (n_tiles, x.high.shape[1], x.high.shape[2], y.high.shape[2], x.panel, panels)
        with _on(sums.device):
            product_kernel[(layers * panels * n_tiles,)](
                *(*operands, tiles, sums, *sizes),
                SPLIT=x.form == "split",
                TMA=how.tma,
                HEIGHT=height,
                WIDTH=width,
                ROWS=how.rows,
                num_warps=how.num_warps,
                num_stages=how.num_stages,
            )

    def merge(
        self,
        x: Staged,
        y: Staged,
        tiles: Tensor,
        sums: Tensor,
        out: Tensor,
        symmetric: bool,
        add: bool,
    ) -> None:
        layers, panels, n_tiles, height, width = sums.shape
        sizes = (n_tiles, *out.shape[1:], x.scale.shape[2], y.scale.shape[2], panels)
        parts = height * width // MERGED_TILE**2
        with _on(out.device):
            merge_kernel[(layers * n_tiles, parts)](
                *(x.scale, y.scale, tiles, sums, out, *sizes, *out.stride()),
                SYMMETRIC=symmetric,
                ADD=add,
                HEIGHT=height,
                WIDTH=width,
                SIDE=MERGED_TILE,
                num_warps=MERGE_WARPS,
            )


accumulate = partial(_panels.accumulate, _Kernels())


def _operand(matrix: Tensor | None, how: Configuration, columns: int) -> Any:
    """Return what the kernel reads a staged matrix through: a TMA descriptor or its address."""
    if matrix is None or not how.tma:
        return matrix
    return TensorDescriptor.from_tensor(matrix.flatten(0, 1), [how.rows, columns])


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
