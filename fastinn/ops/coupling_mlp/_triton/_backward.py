"""The kernels of the gradients: of the coupling, then of each linear layer from last to first.

Gradients have the layout of activations (see `_forward.py`). Those of the last layer are always two
parts, of the shift and of the log-scale, whether one network gave them or two.
"""

import triton
import triton.language as tl

from fastinn.ops._triton import scale_of
from fastinn.ops.coupling_mlp._triton._activation import activate
from fastinn.ops.coupling_mlp._triton._tiles import column_slice, inside, load_tile, offsets, within


@triton.jit
def coupling_gradient_kernel(
    grad_out_ptr,
    grad_log_det_ptr,
    kept_ptr,
    moved_ptr,
    log_scale_ptr,
    grad_moved_ptr,
    grad_ptr,
    operand_ptr,
    grad_bias_ptr,
    n_rows,
    n_kept,
    n_moved,
    grad_out_row,
    grad_out_column,
    grad_log_det_row,
    in_row,
    in_column,
    grad_in_row,
    grad_in_column,
    grad_part,
    operand_row,
    INVERSE: tl.constexpr,
    CLAMP: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Gradients of the moved features, the shift and the log-scale.

    Also the kept features in the type that products read, and one sum over the rows of each tile
    for the gradient of the bias.
    """
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = inside(rows, columns, n_rows, n_moved)
    read = offsets(rows, columns, in_row, in_column)
    grad_out = tl.load(
        grad_out_ptr + offsets(rows, columns, grad_out_row, grad_out_column), mask, 0.0
    )
    grad_log_det = tl.load(
        grad_log_det_ptr + rows.to(tl.int64) * grad_log_det_row, rows < n_rows, 0.0
    )
    moved = tl.load(moved_ptr + read, mask, 0.0)
    log_scale = tl.load(log_scale_ptr + offsets(rows, columns, n_moved, 1), mask, 0.0)
    _, scale, slope = scale_of(log_scale, CLAMP)
    if INVERSE:
        grad_moved = grad_out / (scale + EPS)
        grad_shift = -grad_moved
        grad_log = -(grad_moved * moved * scale + grad_log_det[:, None])
    else:
        grad_moved = grad_out * (scale + EPS)
        grad_shift = grad_out
        grad_log = grad_out * moved * scale + grad_log_det[:, None]
    grad_log = tl.where(mask, grad_log * slope, 0.0)
    written = offsets(rows, columns, grad_in_row, grad_in_column)
    tl.store(grad_moved_ptr + written, grad_moved, mask)

    # Zero up to the next part: the products that read this go over whole tiles.
    padded = inside(rows, columns, n_rows, grad_part)
    written = offsets(rows, columns, 2 * grad_part, 1)
    tl.store(grad_ptr + written, grad_shift.to(grad_ptr.dtype.element_ty), padded)
    tl.store(grad_ptr + grad_part + written, grad_log.to(grad_ptr.dtype.element_ty), padded)
    sums = grad_bias_ptr + tl.program_id(0).to(tl.int64) * (2 * grad_part) + columns
    tl.store(sums, tl.sum(grad_shift, axis=0), columns < n_moved)
    tl.store(sums + grad_part, tl.sum(grad_log, axis=0), columns < n_moved)

    mask = inside(rows, columns, n_rows, n_kept)
    kept = tl.load(kept_ptr + read, mask, 0.0).to(operand_ptr.dtype.element_ty)
    tl.store(operand_ptr + offsets(rows, columns, operand_row, 1), kept, mask)


@triton.jit
def _product(
    grad,
    w,
    row,
    column,
    first_part,
    n_rows,
    n_in,
    n_out,
    grad_row,
    grad_part,
    w_row,
    w_column,
    PARTS: tl.constexpr,
    SUMMED: tl.constexpr,
    TMA: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Sum of grad w over SUMMED parts from first_part on."""
    steps = tl.cdiv(n_out, BLOCK_K)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in range(0, SUMMED * steps):
        part = first_part + step // steps
        k = step % steps * BLOCK_K
        grad_tile = load_tile(
            grad,
            row,
            part * grad_part + k,
            n_rows,
            part * grad_part + n_out,
            grad_row,
            1,
            BLOCK_M,
            BLOCK_K,
            TMA,
        )
        w_tile = load_tile(
            w,
            part * n_out + k,
            column,
            PARTS * n_out,
            n_in,
            w_row,
            w_column,
            BLOCK_K,
            BLOCK_N,
            TMA,
        )
        total = tl.dot(grad_tile, w_tile, total, input_precision=INPUT_PRECISION)
    return total


@triton.jit
def _slope_slice(
    total,
    saved_ptr,
    out_ptr,
    operand_ptr,
    sums_ptr,
    row,
    column,
    network,
    n_rows,
    n_in,
    out_network,
    ACTIVATION: tl.constexpr,
    NETWORKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = row + tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    mask = inside(rows, columns, n_rows, n_in)
    read = within(row, network * n_in + column, NETWORKS * n_in, ROWS, COLUMNS)
    z = tl.load(saved_ptr + read, mask, 0.0).to(tl.float32)
    operand, slope = activate(z, ACTIVATION)
    out = tl.where(mask, total * slope, 0.0)
    tl.store(sums_ptr + columns, tl.sum(out, axis=0), columns < n_in)
    # Zero up to the next network: the products that read this go over whole tiles.
    padded = inside(rows, columns, n_rows, out_network)
    written = within(row, network * out_network + column, NETWORKS * out_network, ROWS, COLUMNS)
    tl.store(out_ptr + written, out.to(out_ptr.dtype.element_ty), padded)
    tl.store(operand_ptr + written, operand.to(operand_ptr.dtype.element_ty), padded)


@triton.jit
def hidden_gradient_kernel(
    grad,
    w,
    saved_ptr,
    out_ptr,
    operand_ptr,
    grad_bias_ptr,
    n_rows,
    n_in,
    n_out,
    grad_row,
    grad_part,
    w_row,
    w_column,
    out_network,
    ACTIVATION: tl.constexpr,
    NETWORKS: tl.constexpr,
    SUMMED: tl.constexpr,
    TMA: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write (grad w) activation'(saved), the gradient before the activation that this layer reads.

    Also that activation again, as the operand of the weight gradient, and one sum over the rows
    of each tile for the gradient of the bias.
    """
    column_tiles = tl.cdiv(n_in, BLOCK_N)
    tiles = tl.cdiv(n_rows, BLOCK_M) * column_tiles * NETWORKS
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=TMA):
        network = tile // column_tiles % NETWORKS
        row_tile = tile // (column_tiles * NETWORKS)
        row = row_tile * BLOCK_M
        column = tile % column_tiles * BLOCK_N
        total = _product(
            grad,
            w,
            row,
            column,
            network * SUMMED,
            n_rows,
            n_in,
            n_out,
            grad_row,
            grad_part,
            w_row,
            w_column,
            NETWORKS * SUMMED,
            SUMMED,
            TMA,
            INPUT_PRECISION,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
        )
        SLICES: tl.constexpr = (BLOCK_N + 63) // 64
        for index in tl.static_range(SLICES):
            _slope_slice(
                column_slice(total, index, SLICES),
                saved_ptr,
                out_ptr,
                operand_ptr,
                grad_bias_ptr + (row_tile * NETWORKS + network).to(tl.int64) * out_network,
                row,
                column + index * (BLOCK_N // SLICES),
                network,
                n_rows,
                n_in,
                out_network,
                ACTIVATION,
                NETWORKS,
                BLOCK_M,
                BLOCK_N // SLICES,
            )


@triton.jit
def kept_gradient_kernel(
    grad,
    w,
    grad_out_ptr,
    grad_in_ptr,
    n_rows,
    n_in,
    n_out,
    grad_row,
    grad_part,
    w_row,
    w_column,
    grad_out_row,
    grad_out_column,
    grad_in_row,
    grad_in_column,
    SUMMED: tl.constexpr,
    TMA: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gradient of the kept features: their own, and what comes through all networks."""
    column_tiles = tl.cdiv(n_in, BLOCK_N)
    tiles = tl.cdiv(n_rows, BLOCK_M) * column_tiles
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=TMA):
        row = tile // column_tiles * BLOCK_M
        column = tile % column_tiles * BLOCK_N
        total = _product(
            grad,
            w,
            row,
            column,
            0,
            n_rows,
            n_in,
            n_out,
            grad_row,
            grad_part,
            w_row,
            w_column,
            SUMMED,
            SUMMED,
            TMA,
            INPUT_PRECISION,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
        )
        SLICES: tl.constexpr = (BLOCK_N + 31) // 32
        COLUMNS: tl.constexpr = BLOCK_N // SLICES
        for index in tl.static_range(SLICES):
            rows = row + tl.arange(0, BLOCK_M)
            columns = column + index * COLUMNS + tl.arange(0, COLUMNS)
            mask = inside(rows, columns, n_rows, n_in)
            read = offsets(rows, columns, grad_out_row, grad_out_column)
            grad_in = column_slice(total, index, SLICES) + tl.load(grad_out_ptr + read, mask, 0.0)
            written = offsets(rows, columns, grad_in_row, grad_in_column)
            tl.store(grad_in_ptr + written, grad_in, mask)


@triton.jit
def weight_gradient_kernel(
    grad,
    x,
    partial_ptr,
    n_rows,
    n_in,
    n_out,
    rows_per_split,
    grad_row,
    grad_part,
    x_row,
    x_network,
    PARTS: tl.constexpr,
    TMA: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Add grad^T x over one split of the rows to that split's partial sum.

    Splits are added up in a fixed order afterwards. rows_per_split is a multiple of BLOCK_K, so
    that no tile reaches into the next split. x_network is 0 where all parts read the same x.
    """
    column_tiles = tl.cdiv(n_in, BLOCK_N)
    row_tiles = tl.cdiv(n_out, BLOCK_M)
    part = tl.program_id(0) // (row_tiles * column_tiles)
    row = tl.program_id(0) // column_tiles % row_tiles * BLOCK_M
    column = tl.program_id(0) % column_tiles * BLOCK_N
    start = tl.program_id(1) * rows_per_split
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(start, tl.minimum(start + rows_per_split, n_rows), BLOCK_K):
        grad_tile = load_tile(
            grad,
            k,
            part * grad_part + row,
            n_rows,
            part * grad_part + n_out,
            grad_row,
            1,
            BLOCK_K,
            BLOCK_M,
            TMA,
        )
        x_tile = load_tile(
            x,
            k,
            part * x_network + column,
            n_rows,
            part * x_network + n_in,
            x_row,
            1,
            BLOCK_K,
            BLOCK_N,
            TMA,
        )
        total = tl.dot(grad_tile.T, x_tile, total, input_precision=INPUT_PRECISION)
    rows = row + tl.arange(0, BLOCK_M)
    columns = column + tl.arange(0, BLOCK_N)
    mask = inside(rows, columns, n_out, n_in)
    first_row = (tl.program_id(1) * PARTS + part).to(tl.int64) * n_out
    written = partial_ptr + first_row * n_in + offsets(rows, columns, n_in, 1)
    tl.store(written, total + tl.load(written, mask, 0.0), mask)
