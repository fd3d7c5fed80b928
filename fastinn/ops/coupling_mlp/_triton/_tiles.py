"""Reading and writing tiles of matrices whose size no tile needs to divide."""

import triton
import triton.language as tl


@triton.jit
def offsets(rows, columns, row_stride, column_stride):
    """Offsets of a tile, in 64 bits: 32 overflow past 2.8 million rows of 768."""
    return rows[:, None].to(tl.int64) * row_stride + columns[None, :].to(tl.int64) * column_stride


@triton.jit
def within(row, column, row_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of a tile of a matrix with contiguous rows: 64 bits to the tile, 32 within it."""
    first = row.to(tl.int64) * row_stride + column
    return first + tl.arange(0, ROWS)[:, None] * row_stride + tl.arange(0, COLUMNS)[None, :]


@triton.jit
def inside(rows, columns, n_rows, n_columns):
    """Which elements of a tile belong to the matrix."""
    return (rows < n_rows)[:, None] & (columns < n_columns)[None, :]


@triton.jit
def load_tile(
    matrix,
    row,
    column,
    n_rows,
    n_columns,
    row_stride,
    column_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TMA: tl.constexpr,
):
    """Tile of a pointer or, with TMA, of a tensor descriptor; zero outside of the matrix."""
    if TMA:
        return matrix.load([row, column])
    else:  # noqa: RET505 (Triton compiles the branch that the constant selects)
        rows = row + tl.arange(0, ROWS)
        columns = column + tl.arange(0, COLUMNS)
        mask = inside(rows, columns, n_rows, n_columns)
        return tl.load(matrix + offsets(rows, columns, row_stride, column_stride), mask, 0.0)


@triton.jit
def column_slice(tile, index: tl.constexpr, SLICES: tl.constexpr):
    """One of 1, 2 or 4 slices of a tile, for what needs too many registers for all of it."""
    if SLICES == 1:
        return tile
    else:  # noqa: RET505 (Triton compiles the branch that the constant selects)
        halves = tl.permute(tl.reshape(tile, [tile.shape[0], 2, tile.shape[1] // 2]), (0, 2, 1))
        left, right = tl.split(halves)
        HALF: tl.constexpr = SLICES // 2
        return column_slice(left if index < HALF else right, index % HALF, HALF)
