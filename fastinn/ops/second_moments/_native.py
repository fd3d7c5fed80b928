"""The C++ kernel: any floating-point rows, shifted, weighted and converted as they are packed."""

import torch
from torch import Tensor

from fastinn._types import Precision
from fastinn.ops._native import dtype_name, native
from fastinn.ops.second_moments import _split
from fastinn.ops.second_moments.reference import product_dtype


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
    if dtype == torch.float32 and _split.is_fast():
        _split.accumulate(x, y, weight, shift_x, shift_y, precision, out)
        return
    n_batches, n_rows, _ = x.shape
    root = x.new_ones(n_rows, dtype=torch.float64) if weight is None else weight.double().sqrt()
    shift_x = _dense_shift(x, shift_x)
    shift_y = None if y is None else _dense_shift(y, shift_y)
    left = _described(x, shift_x)
    right = left if y is None or shift_y is None else _described(y, shift_y)
    module, where = native(x.device)
    module.second_moments(
        dtype_name(out if dtype == torch.float64 else out.new_empty(0, dtype=dtype)),
        precision == "fast" and dtype == torch.float32,
        n_batches,
        n_rows,
        left,
        right,
        y is None,
        root.data_ptr(),
        out.data_ptr(),
        *where,
    )
