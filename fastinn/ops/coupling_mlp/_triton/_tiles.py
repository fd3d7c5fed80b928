"""Reading and writing tiles of matrices whose size no tile needs to divide."""

import triton
import triton.language as tl


@triton.jit
def offsets(rows, columns, row_stride, column_stride):
    """Offsets of a tile, in 64 bits: 32 overflow past 2.8 million rows of 768."""
    return (
        rows[:, None].to(tl.int64) * row_stride + columns[None, :].to(tl.int64) * column_stride
    )


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
    else:
        rows = row + tl.arange(0, ROWS)
        columns = column + tl.arange(0, COLUMNS)
        mask = inside(rows, columns, n_rows, n_columns)
        return tl.load(matrix + offsets(rows, columns, row_stride, column_stride), mask, 0.0)
