"""The kernels of a pass through the layer: hidden linear layers, then the last one with the coupling.

Activations of several networks stand side by side, `*_network` columns apart. That distance is a
multiple of every inner tile and the columns between are zero, so no product mixes networks.
"""

import triton
import triton.language as tl

from fastinn.ops._triton import scale_of
from fastinn.ops.coupling_mlp._triton._activation import activate
from fastinn.ops.coupling_mlp._triton._tiles import inside, load_tile, offsets


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
    X_TMA: tl.constexpr,
    W_TMA: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out = activation(x w^T + bias); saved: the same before the activation."""
    column_tiles = tl.cdiv(n_out, BLOCK_N)
    tiles = tl.cdiv(n_rows, BLOCK_M) * column_tiles * NETWORKS
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=W_TMA):
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
                X_TMA,
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
                W_TMA,
            )
            x_tile = x_tile.to(w_tile.dtype)
            z = tl.dot(x_tile, w_tile.T, z, input_precision=INPUT_PRECISION)
        rows = row + tl.arange(0, BLOCK_M)
        columns = column + tl.arange(0, BLOCK_N)
        z += tl.load(bias_ptr + network * n_out + columns, columns < n_out, 0.0)[None, :]
        if SAVE:
            written = offsets(rows, network * n_out + columns, NETWORKS * n_out, 1)
            saved = z.to(saved_ptr.dtype.element_ty)
            tl.store(saved_ptr + written, saved, inside(rows, columns, n_rows, n_out))
        out, _ = activate(z, ACTIVATION)
        out = tl.where((columns < n_out)[None, :], out, 0.0).to(out_ptr.dtype.element_ty)
        written = offsets(rows, network * out_network + columns, NETWORKS * out_network, 1)
        tl.store(out_ptr + written, out, inside(rows, columns, n_rows, out_network))


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

    The rows of w are those of the shift, then those of the log-scale. A program has the same
    columns of both in two accumulators, so that nothing of either goes to memory. log_det is
    one partial sum a row and a column tile, added up in a fixed order afterwards.
    """
    column_tiles = tl.cdiv(tl.maximum(n_kept, n_moved), BLOCK_N)
    tiles = tl.cdiv(n_rows, BLOCK_M) * column_tiles
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=TMA):
        column_tile = tile % column_tiles
        row = tile // column_tiles * BLOCK_M
        column = column_tile * BLOCK_N
        shift = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        log_scale = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for k in range(0, n_in, BLOCK_K):
            x_tile = load_tile(x, row, k, n_rows, n_in, x_row, 1, BLOCK_M, BLOCK_K, TMA)
            w_tile = load_tile(
                w, column, k, 2 * n_moved, n_in, w_row, w_column, BLOCK_N, BLOCK_K, TMA
            )
            shift = tl.dot(x_tile, w_tile.T, shift, input_precision=INPUT_PRECISION)
            if NETWORKS == 2:
                x_tile = load_tile(
                    x,
                    row,
                    x_network + k,
                    n_rows,
                    x_network + n_in,
                    x_row,
                    1,
                    BLOCK_M,
                    BLOCK_K,
                    TMA,
                )
            w_tile = load_tile(
                w, n_moved + column, k, 2 * n_moved, n_in, w_row, w_column, BLOCK_N, BLOCK_K, TMA
            )
            log_scale = tl.dot(x_tile, w_tile.T, log_scale, input_precision=INPUT_PRECISION)
        rows = row + tl.arange(0, BLOCK_M)
        columns = column + tl.arange(0, BLOCK_N)
        moves = columns < n_moved
        shift += tl.load(bias_ptr + columns, moves, 0.0)[None, :]
        log_scale += tl.load(bias_ptr + n_moved + columns, moves, 0.0)[None, :]
        mask = inside(rows, columns, n_rows, n_moved)
        if SAVE:
            tl.store(saved_ptr + offsets(rows, columns, n_moved, 1), log_scale, mask)
        log, scale, _ = scale_of(log_scale, CLAMP)
        moved = tl.load(moved_ptr + offsets(rows, columns, in_row, in_column), mask, 0.0)
        log_det = tl.sum(tl.where(moves[None, :], log, 0.0), axis=1)
        if INVERSE:
            out = (moved - shift) / (scale + EPS)
            log_det = -log_det
        else:
            out = moved * (scale + EPS) + shift
        written = offsets(rows, columns, out_row, out_column)
        tl.store(out_moved_ptr + written, out, mask)
        partial = column_tile.to(tl.int64) * n_rows + rows
        tl.store(log_det_ptr + partial, log_det, rows < n_rows)
        mask = inside(rows, columns, n_rows, n_kept)
        kept = tl.load(kept_ptr + offsets(rows, columns, in_row, in_column), mask)
        tl.store(out_kept_ptr + written, kept, mask)
