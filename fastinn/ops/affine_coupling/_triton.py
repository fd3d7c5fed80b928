"""The Triton kernels: one program computes a block of whole rows."""

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastinn.ops._triton import scale_of

# What a program holds of each matrix; twice as much spills registers in float64 on sm_80.
_BLOCK_BYTES = 2048


@triton.jit
def _tile(rows, columns, row_stride, column_stride):
    return rows[:, None] * row_stride + columns[None, :].to(tl.int64) * column_stride


@triton.jit
def transform_kernel(
    z_ptr,
    shift_ptr,
    log_scale_ptr,
    out_ptr,
    log_det_ptr,
    n_samples,
    n_features,
    z_row,
    z_column,
    shift_row,
    shift_column,
    log_scale_row,
    log_scale_column,
    INVERSE: tl.constexpr,
    CLAMP: tl.constexpr,
    EPS: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # 64-bit offsets: 32 bits overflow past 2.8 million rows of 768.
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    log_det = tl.zeros([BLOCK_N], log_det_ptr.dtype.element_ty)
    for tile in tl.static_range(TILES):
        columns = tile * BLOCK_D + tl.arange(0, BLOCK_D)
        mask = (rows < n_samples)[:, None] & (columns < n_features)[None, :]
        z = tl.load(z_ptr + _tile(rows, columns, z_row, z_column), mask, 0.0)
        shift = tl.load(shift_ptr + _tile(rows, columns, shift_row, shift_column), mask, 0.0)
        log_scale = tl.load(
            log_scale_ptr + _tile(rows, columns, log_scale_row, log_scale_column), mask, 0.0
        )
        log, scale, _ = scale_of(log_scale, CLAMP)
        if INVERSE:
            out = (z - shift) / (scale + EPS)
            log_det -= tl.sum(log, axis=1)
        else:
            out = z * (scale + EPS) + shift
            log_det += tl.sum(log, axis=1)
        tl.store(out_ptr + _tile(rows, columns, n_features, 1), out, mask)
    tl.store(log_det_ptr + rows, log_det, rows < n_samples)


@triton.jit
def differentiate_kernel(
    grad_out_ptr,
    grad_log_det_ptr,
    x_ptr,
    log_scale_ptr,
    grad_z_ptr,
    grad_log_scale_ptr,
    grad_shift_ptr,
    n_samples,
    n_features,
    grad_out_row,
    grad_out_column,
    grad_log_det_row,
    x_row,
    x_column,
    log_scale_row,
    log_scale_column,
    INVERSE: tl.constexpr,
    CLAMP: tl.constexpr,
    EPS: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    grad_log_det = tl.load(grad_log_det_ptr + rows * grad_log_det_row, rows < n_samples, 0.0)
    for tile in tl.static_range(TILES):
        columns = tile * BLOCK_D + tl.arange(0, BLOCK_D)
        mask = (rows < n_samples)[:, None] & (columns < n_features)[None, :]
        grad_out = tl.load(
            grad_out_ptr + _tile(rows, columns, grad_out_row, grad_out_column), mask, 0.0
        )
        x = tl.load(x_ptr + _tile(rows, columns, x_row, x_column), mask, 0.0)
        log_scale = tl.load(
            log_scale_ptr + _tile(rows, columns, log_scale_row, log_scale_column), mask, 0.0
        )
        _, scale, slope = scale_of(log_scale, CLAMP)
        written = _tile(rows, columns, n_features, 1)
        if INVERSE:
            grad_z = grad_out / (scale + EPS)
            grad_log = -(grad_z * x * scale + grad_log_det[:, None])
            tl.store(grad_shift_ptr + written, -grad_z, mask)
        else:
            grad_z = grad_out * (scale + EPS)
            grad_log = grad_out * x * scale + grad_log_det[:, None]
        tl.store(grad_z_ptr + written, grad_z, mask)
        tl.store(grad_log_scale_ptr + written, grad_log * slope, mask)


def transform(
    inverse: bool,
    z: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    clamp: float | None,
    eps: float,
    out: Tensor,
    log_det: Tensor,
) -> None:
    """Write the transformed ``z`` and its log-determinant."""
    strides = (*z.stride(), *shift.stride(), *log_scale.stride())
    pointers = (z, shift, log_scale, out, log_det)
    _launch(transform_kernel, z, (*pointers, *z.shape, *strides, inverse, clamp or 0.0, eps))


def differentiate(
    inverse: bool,
    grad_out: Tensor,
    grad_log_det: Tensor,
    x: Tensor,
    log_scale: Tensor,
    clamp: float | None,
    eps: float,
    grad_z: Tensor,
    grad_log_scale: Tensor,
    grad_shift: Tensor | None = None,
) -> None:
    """Write the gradients; forward, that of the shift is ``grad_out`` and is not written."""
    strides = (*grad_out.stride(), *grad_log_det.stride(), *x.stride(), *log_scale.stride())
    pointers = (grad_out, grad_log_det, x, log_scale, grad_z, grad_log_scale, grad_shift)
    arguments = (*pointers, *x.shape, *strides, inverse, clamp or 0.0, eps)
    _launch(differentiate_kernel, x, arguments)


def _launch(kernel: Any, z: Tensor, arguments: tuple[Any, ...]) -> None:
    n_samples, n_features = z.shape
    block_n, block_d, tiles = blocking(n_features, z.element_size())
    if n_samples:
        with torch.cuda.device(z.device) if z.is_cuda else nullcontext():
            kernel[(triton.cdiv(n_samples, block_n),)](*arguments, tiles, block_n, block_d)


def blocking(n_features: int, element_size: int) -> tuple[int, int, int]:
    """Return rows and columns of a tile, and how many tiles make a row."""
    elements = _BLOCK_BYTES // element_size
    block_d = min(elements, triton.next_power_of_2(max(1, n_features)))
    return elements // block_d, block_d, triton.cdiv(n_features, block_d)
