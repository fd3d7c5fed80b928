"""The way of the GPU kernels through rows and features, the same for Triton and CUDA.

Rows are *staged* first: shifted, weighted and written as float16, with a second float16 matrix
for what the first leaves over, or as float64. Staged matrices are padded with zeros to whole
tiles, so that the products need no bounds. Rows are cut into panels and the result into tiles;
one block of threads multiplies one tile over one panel, and panels are merged in float64 one after
the other. Nothing depends on timing or on the GPU: the same input gives the same bits.
"""

from collections.abc import Iterator
from functools import cache
from math import lcm
from typing import Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from fastinn._types import Precision

Form: TypeAlias = Literal["double", "split", "single"]
"""What rows are staged as: float64, two float16 that sum to float32, or one float16."""

ROWS_MULTIPLE = 128
"""Staged rows end at a multiple of this, with zeros: a promotion never looks for the end."""

MERGED_TILE = 64
"""Side of what one block of the merge writes; divides the sides of every tile."""

# Below so many blocks of threads some of the processors of a large GPU idle.
_FULL_GPU = 264

# Longer panels read and write less; in shorter ones float32 totals lose less, and more run at once.
_PANEL_ROWS = (512, 8192)

# Staged at once, which bounds the memory: 8192 rows of 25 views of 768 features, split.
_STAGED_BYTES = 640 << 20
_STAGED_ROWS = 16_384
_BYTES: dict[Form, int] = {"double": 8, "split": 4, "single": 2}

# Rows of tiles that are walked together, so that they share what they read in the L2 cache.
_BAND = 11


class Tile(NamedTuple):
    """Shape of the part of the result that one block of threads computes."""

    height: int
    width: int


class Staged(NamedTuple):
    """Rows of one side of the product as the product kernel reads them, zero-padded."""

    high: Tensor
    """Shape ``(layers, rows, features)``; a multiple of 128 rows and of whole tiles."""
    low: Tensor | None
    """What ``high`` leaves over, in the form ``"split"``."""
    scale: Tensor
    """Powers of two, shape ``(layers, panels, features)``, float64: rows are staged times scale."""
    panel: int
    """Rows of a panel; the last may be shorter."""

    @property
    def form(self) -> Form:
        """What the rows are staged as."""
        if self.high.dtype == torch.float64:
            return "double"
        return "single" if self.low is None else "split"


class Kernels(Protocol):
    """The three steps; each writes into given tensors."""

    def tile(self, form: Form, device: torch.device) -> Tile:
        """Return the tile of the product kernel for rows of this form."""

    def stage(self, x: Tensor, shift: Tensor | None, root: Tensor | None, staged: Staged) -> None:
        """Stage the rows ``root * (x - shift)``, each panel and column with a scale of its own."""

    def multiply(self, x: Staged, y: Staged, tiles: Tensor, sums: Tensor) -> None:
        """Write each tile's sum over each panel, ``(layers, panels, tiles, height, width)``."""

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
        """Write the scaled sum of the panels, in order, on top of ``out`` if ``add``.

        With ``symmetric`` the tiles are those of the lower triangle, to be mirrored.
        """


class _Side(NamedTuple):
    """Rows of one side of the product, ``(layers, n, d)``, and their shift, ``(layers, d)``."""

    rows: Tensor
    shift: Tensor | None

    def part(self, layers: slice, rows: slice) -> "_Side":
        return _Side(self.rows[layers, rows], None if self.shift is None else self.shift[layers])


def accumulate(
    kernels: Kernels,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    shift_x: Tensor | None,
    shift_y: Tensor | None,
    precision: Precision,
    out: Tensor,
) -> None:
    """Write the weighted products of shifted rows, summed over the rows of each layer.

    Args:
        kernels: Who computes.
        x: Rows, shape ``(layers, n, d_x)``.
        y: Rows paired with ``x``, shape ``(layers, n, d_y)``; ``None`` stands for ``x``.
        weight: Non-negative weight of each row, shape ``(n,)``.
        shift_x: Subtracted from the rows of ``x``, shape ``(layers, d_x)``.
        shift_y: Subtracted from the rows of ``y``, shape ``(layers, d_y)``.
        precision: See :func:`fastinn.ops.second_moments`.
        out: Shape ``(layers, d_x, d_y)``, float64; every entry is written.
    """
    if not (out.numel() and x.shape[1]):
        out.zero_()
        return
    sides = [_Side(x, shift_x)] if y is None else [_Side(x, shift_x), _Side(y, shift_y)]
    root = None if weight is None else weight.double().sqrt().contiguous()
    form = _form(sides, root, precision)
    tile = kernels.tile(form, x.device)
    tiles = _tiles(*out.shape[1:], tile, y is None, x.device)
    for layers in _cut(len(x), max(1, _FULL_GPU // len(tiles))):
        width = sum(side.rows[layers].shape[0] * side.rows.shape[2] for side in sides)
        for rows in _cut(x.shape[1], _rows_at_once(width, form)):
            parts = [side.part(layers, rows) for side in sides]
            part_of_root = None if root is None else root[rows]
            add = rows.start > 0
            _add_rows(kernels, parts, part_of_root, form, tiles, out[layers], add)


def _add_rows(
    kernels: Kernels,
    sides: list[_Side],
    root: Tensor | None,
    form: Form,
    tiles: Tensor,
    out: Tensor,
    add: bool,
) -> None:
    """Write, or add, the products of rows few enough to be staged at once."""
    tile = kernels.tile(form, out.device)
    layers, n, _ = sides[0].rows.shape
    panel = _panel_rows(n, layers * len(tiles))
    staged = [_empty_stage(side.rows, panel, lcm(*tile), form) for side in sides]
    for side, target in zip(sides, staged, strict=True):
        kernels.stage(*side, root, target)
    x, y = staged[0], staged[-1]
    dtype = torch.float64 if form == "double" else torch.float32
    sums = out.new_empty(layers, -(-n // panel), len(tiles), *tile, dtype=dtype)
    kernels.multiply(x, y, tiles, sums)
    kernels.merge(x, y, tiles, sums, out, symmetric=len(sides) == 1, add=add)


def _form(sides: list[_Side], root: Tensor | None, precision: Precision) -> Form:
    dtypes = {side.rows.dtype for side in sides}
    if precision == "exact" or torch.float64 in dtypes:
        return "double"
    # 16 bits hold 16-bit rows, unless a shift or a weight adds digits.
    grown = root is not None or any(side.shift is not None for side in sides)
    return "split" if precision == "high" and (grown or torch.float32 in dtypes) else "single"


def _empty_stage(rows: Tensor, panel: int, padding: int, form: Form) -> Staged:
    layers, n, features = rows.shape
    features = round_up(features, padding)
    dtype = torch.float64 if form == "double" else torch.float16
    high = rows.new_empty(layers, round_up(n, ROWS_MULTIPLE), features, dtype=dtype)
    low = torch.empty_like(high) if form == "split" else None
    scale = rows.new_empty(layers, -(-n // panel), features, dtype=torch.float64)
    return Staged(high, low, scale, panel)


def round_up(size: int, multiple: int) -> int:
    """Return the smallest multiple that holds ``size``."""
    return -(-size // multiple) * multiple


def _cut(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(size, start + step)) for start in range(0, size, step))


def _rows_at_once(width: int, form: Form) -> int:
    """Return how many rows are staged at once: a power of two, for ``width`` features a row."""
    fitting = _STAGED_BYTES // (width * _BYTES[form])
    return min(_STAGED_ROWS, max(_PANEL_ROWS[0], 1 << (fitting.bit_length() - 1)))


def _panel_rows(n: int, blocks: int) -> int:
    """Return the longest panel that fills a GPU, given the blocks of threads that a panel makes."""
    shortest, panel = _PANEL_ROWS
    while panel > shortest and blocks * -(-n // panel) < _FULL_GPU:
        panel //= 2
    return panel


@cache  # never given back: a kernel on another stream may still read it
def _tiles(d_x: int, d_y: int, tile: Tile, symmetric: bool, device: torch.device) -> Tensor:
    """Return row and column of each tile to compute, shape ``(tiles, 2)``, int32, in walking order.

    ``symmetric`` leaves out the tiles that lie above the diagonal.
    """
    rows, columns = -(-d_x // tile.height), -(-d_y // tile.width)
    bands = [range(start, min(rows, start + _BAND)) for start in range(0, rows, _BAND)]
    walk = ((i, j) for band in bands for j in range(columns) for i in band)
    kept = [(i, j) for i, j in walk if not symmetric or j * tile.width < (i + 1) * tile.height]
    return torch.tensor(kept, dtype=torch.int32, device=device)
