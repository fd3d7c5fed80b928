"""The CPU's products: the C++ kernel, whose tiles are bfloat16 where the processor has them."""

from typing import TypeAlias

import torch
from torch import Tensor

from fastinn._types import Precision
from fastinn.ops._native import dtype_name, native
from fastinn.ops.second_moments.reference import product_dtype

_Described: TypeAlias = tuple[int, str, int, int, int, int, int]
"""Address, dtype, width, strides of batch, row and column, and the address of the shift."""


def accumulate(
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    shift_x: Tensor | None,
    shift_y: Tensor | None,
    precision: Precision,
    out: Tensor,
) -> None:
    """Write the products; see :func:`fastinn.ops.second_moments.reference.accumulate`."""
    dtype = product_dtype(x.dtype, precision)
    root = (x.new_ones(1) if weight is None else weight).double().sqrt().expand(x.shape[1])
    sides = [(x, _dense(shift_x, x)), *([] if y is None else [(y, _dense(shift_y, y))])]
    described = [_described(rows, shift) for rows, shift in sides]
    root = root.contiguous()
    module, where = native(x.device)
    module.second_moments(
        "float64" if dtype == torch.float64 else "float32",
        precision == "fast" and dtype == torch.float32,
        *x.shape[:2],
        described[0],
        described[-1],
        y is None,
        root.data_ptr(),
        out.data_ptr(),
        *where,
    )


def _dense(shift: Tensor | None, rows: Tensor) -> Tensor:
    """Return the shift of each column of each batch, one after the other, in float64."""
    if shift is None:
        return rows.new_zeros(len(rows), rows.shape[2], dtype=torch.float64)
    return shift.double().contiguous()


def _described(rows: Tensor, shift: Tensor) -> _Described:
    address, dtype, width = rows.data_ptr(), dtype_name(rows), rows.shape[2]
    return address, dtype, width, rows.stride(0), rows.stride(1), rows.stride(2), shift.data_ptr()
