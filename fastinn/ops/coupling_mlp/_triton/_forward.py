"""The kernels of a pass: hidden linear layers, then the last one with the coupling.

Activations of several networks stand side by side, `*_network` columns apart. That distance is a
multiple of every inner tile and the columns between are zero, so no product mixes networks.
"""

import triton
import triton.language as tl

from fastinn.ops._triton import scale_of
from fastinn.ops.coupling_mlp._triton._activation import activate
from fastinn.ops.coupling_mlp._triton._tiles import column_slice, inside, load_tile, offsets, within


@triton.jit
def _activate_slice(
    z,
    bias_ptr,
    out_ptr,
    saved_ptr,
    row,
    column,
    network,
    n_rows,
    n_out,
    out_network,
    ACTIVATION: tl.constexpr,
    NETWORKS: tl.constexpr,
    SAVE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = row + tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    z += tl.load(bias_ptr + network * n_out + columns, columns < n_out, 0.0)[None, :]
    if SAVE:
        written = within(row, network * n_out + column, NETWORKS * n_out, ROWS, COLUMNS)
        saved = z.to(saved_ptr.dtype.element_ty)
        tl.store(saved_ptr + written, saved, inside(rows, columns, n_rows, n_out))
    out, _ = activate(z, ACTIVATION)
    # Zero up to the next network: the products that read this go over whole tiles.
    out = tl.where((columns < n_out)[None, :], out, 0.0).to(out_ptr.dtype.element_ty)
    written = within(row, network * out_network + column, NETWORKS * out_network, ROWS, COLUMNS)
    tl.store(out_ptr + written, out, inside(rows, columns, n_rows, out_network))


@triton.jit
def hidden_kernel(
    x,
    w,
    bias_ptr,
    out_ptr,
    saved_ptr,
    n_rows,
    n_in,
    n_out,
    x_row,
    x_column,
    x_network,
    w_row,
    w_column,
    out_network,
    ACTIVATION: tl.constexpr,
    NETWORKS: tl.constexpr,
    SAVE: tl.constexpr,
    TMA: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write activation(x w^T + bias) to out, and to saved what it is before the activation."""
    column_tiles = tl.cdiv(n_out, BLOCK_N)
    tiles = tl.cdiv(n_rows, BLOCK_M) * column_tiles * NETWORKS
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=TMA):
        # Neighbouring programs share rows, which are many; the weights stay in the L2 cache.
        network = tile // column_tiles % NETWORKS
        row = tile // (column_tiles * NETWORKS) * BLOCK_M
        column = tile % column_tiles * BLOCK_N
        z = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for k in range(0, n_in, BLOCK_K):
            x_tile = load_tile(
                x,
                row,
                network * x_network + k,
                n_rows,
                network * x_network + n_in,
                x_row,
                x_column,
                BLOCK_M,
                BLOCK_K,
                TMA,
            )
            w_tile = load_tile(
                w,
                network * n_out + column,
                k,
                NETWORKS * n_out,
                n_in,
                w_row,
                w_column,
                BLOCK_N,
                BLOCK_K,
                TMA,
            )
            z = tl.dot(x_tile, w_tile.T, z, input_precision=INPUT_PRECISION)
        SLICES: tl.constexpr = (BLOCK_N + 63) // 64
        for index in tl.static_range(SLICES):
            _activate_slice(
                column_slice(z, index, SLICES),
                bias_ptr,
                out_ptr,
                saved_ptr,
                row,
                column + index * (BLOCK_N // SLICES),
                network,
                n_rows,
                n_out,
                out_network,
                ACTIVATION,
                NETWORKS,
                SAVE,
                BLOCK_M,
                BLOCK_N // SLICES,
            )


@triton.jit
def _last_layer(
    x,
    w,
    row,
    column,
    n_rows,
    n_in,
    n_moved,
    x_row,
    x_network,
    w_row,
    w_column,
    NETWORKS: tl.constexpr,
    TMA: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Shift and log-scale of one tile, without their biases."""
    if NETWORKS == 1:
        both = tl.zeros([BLOCK_M, 2 * BLOCK_N], tl.float32)
        for k in range(0, n_in, BLOCK_K):
            x_tile = load_tile(x, row, k, n_rows, n_in, x_row, 1, BLOCK_M, BLOCK_K, TMA)
            w_tile = load_tile(
                w, 2 * column, k, 2 * n_moved, n_in, w_row, w_column, 2 * BLOCK_N, BLOCK_K, TMA
            )
            both = tl.dot(x_tile, w_tile.T, both, input_precision=INPUT_PRECISION)
        # Neighbours of an accumulator are in one thread, so that this moves nothing.
        return tl.split(tl.reshape(both, [BLOCK_M, BLOCK_N, 2]))
    else:  # noqa: RET505 (Triton compiles the branch that the constant selects)
        shift = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        log_scale = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for k in range(0, n_in, BLOCK_K):
            x_tile = load_tile(x, row, k, n_rows, n_in, x_row, 1, BLOCK_M, BLOCK_K, TMA)
            w_tile = load_tile(
                w, column, k, 2 * n_moved, n_in, w_row, w_column, BLOCK_N, BLOCK_K, TMA
            )
            shift = tl.dot(x_tile, w_tile.T, shift, input_precision=INPUT_PRECISION)
            second, end = x_network + k, x_network + n_in
            x_tile = load_tile(x, row, second, n_rows, end, x_row, 1, BLOCK_M, BLOCK_K, TMA)
            first = n_moved + column
            w_tile = load_tile(
                w, first, k, 2 * n_moved, n_in, w_row, w_column, BLOCK_N, BLOCK_K, TMA
            )
            log_scale = tl.dot(x_tile, w_tile.T, log_scale, input_precision=INPUT_PRECISION)
        return shift, log_scale


@triton.jit
def _couple_slice(
    shift,
    log_scale,
    bias_ptr,
    kept_ptr,
    moved_ptr,
    out_kept_ptr,
    out_moved_ptr,
    saved_ptr,
    row,
    column,
    n_rows,
    n_kept,
    n_moved,
    in_row,
    in_column,
    out_row,
    out_column,
    INVERSE: tl.constexpr,
    CLAMP: tl.constexpr,
    EPS: tl.constexpr,
    SAVE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write some columns and return the sum of their log-scales."""
    rows = row + tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    moves = columns < n_moved
    shift += tl.load(bias_ptr + columns, moves, 0.0)[None, :]
    log_scale += tl.load(bias_ptr + n_moved + columns, moves, 0.0)[None, :]
    mask = inside(rows, columns, n_rows, n_moved)
    if SAVE:
        tl.store(saved_ptr + within(row, column, n_moved, ROWS, COLUMNS), log_scale, mask)
    log, scale, _ = scale_of(log_scale, CLAMP)
    read = offsets(rows, columns, in_row, in_column)
    moved = tl.load(moved_ptr + read, mask, 0.0)
    out = (moved - shift) / (scale + EPS) if INVERSE else moved * (scale + EPS) + shift
    written = offsets(rows, columns, out_row, out_column)
    tl.store(out_moved_ptr + written, out, mask)
    mask = inside(rows, columns, n_rows, n_kept)
    tl.store(out_kept_ptr + written, tl.load(kept_ptr + read, mask, 0.0), mask)
    return tl.sum(tl.where(moves[None, :], log, 0.0), axis=1)


@triton.jit
def coupling_kernel(
    x,
    w,
    bias_ptr,
    kept_ptr,
    moved_ptr,
    out_kept_ptr,
    out_moved_ptr,
    log_det_ptr,
    saved_ptr,
    n_rows,
    n_in,
    n_kept,
    n_moved,
    x_row,
    x_network,
    w_row,
    w_column,
    in_row,
    in_column,
    out_row,
    out_column,
    INVERSE: tl.constexpr,
    CLAMP: tl.constexpr,
    EPS: tl.constexpr,
    NETWORKS: tl.constexpr,
    SAVE: tl.constexpr,
    TMA: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Last linear layer, coupling of the moved features and copy of the kept ones.

    A program computes the same columns of shift and log-scale, so that neither goes to memory. One
    network has their rows of w interleaved, and one accumulator for both; two networks have the
    rows of the shift first. log_det is one partial sum a row and a column tile, added up in a
    fixed order afterwards.
    """
    column_tiles = tl.cdiv(tl.maximum(n_kept, n_moved), BLOCK_N)
    tiles = tl.cdiv(n_rows, BLOCK_M) * column_tiles
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=TMA):
        column_tile = tile % column_tiles
        row = tile // column_tiles * BLOCK_M
        column = column_tile * BLOCK_N
        shift, log_scale = _last_layer(
            x,
            w,
            row,
            column,
            n_rows,
            n_in,
            n_moved,
            x_row,
            x_network,
            w_row,
            w_column,
            NETWORKS,
            TMA,
            INPUT_PRECISION,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
        )
        log_det = tl.zeros([BLOCK_M], tl.float32)
        SLICES: tl.constexpr = (BLOCK_N + 31) // 32
        for index in tl.static_range(SLICES):
            log_det += _couple_slice(
                column_slice(shift, index, SLICES),
                column_slice(log_scale, index, SLICES),
                bias_ptr,
                kept_ptr,
                moved_ptr,
                out_kept_ptr,
                out_moved_ptr,
                saved_ptr,
                row,
                column + index * (BLOCK_N // SLICES),
                n_rows,
                n_kept,
                n_moved,
                in_row,
                in_column,
                out_row,
                out_column,
                INVERSE,
                CLAMP,
                EPS,
                SAVE,
                BLOCK_M,
                BLOCK_N // SLICES,
            )
        rows = row + tl.arange(0, BLOCK_M)
        partial = log_det_ptr + column_tile.to(tl.int64) * n_rows + rows
        tl.store(partial, -log_det if INVERSE else log_det, rows < n_rows)
