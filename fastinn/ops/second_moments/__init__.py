"""Second moments: weighted sums of products of paired rows."""

from typing import get_args

import torch
from torch import Tensor

from fastinn import _checks
from fastinn._types import Backend, Precision
from fastinn.ops._backend import declare, resolve
from fastinn.ops.second_moments import _op, reference
from fastinn.ops.second_moments._check import check

__all__ = ["second_moments"]

declare("second_moments", "cpu")


def second_moments(
    x: Tensor,
    y: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    shift: Tensor | None = None,
    shift_y: Tensor | None = None,
    precision: Precision = "high",
    backend: Backend | None = None,
) -> Tensor:
    r"""Sum of products of rows, :math:`\sum_i w_i (x_i - a) (y_i - b)^T`.

    Shift large means away: rounding is relative to the size of what is multiplied. The shift is
    subtracted as the rows are read, in float64 on the CPU, before they are rounded.

    The rows of a frozen encoder need no gradient, and the op has none. The same input gives the
    same bits, whatever the number of threads.

    Args:
        x: Rows, shape ``(n, d_x)``, or of several layers, shape ``(layers, n, d_x)``; any
            floating-point dtype.
        y: Rows paired with ``x``, shape ``(n, d_y)`` or ``(layers, n, d_y)``; ``None`` stands for
            ``x`` and halves the work.
        weight: Non-negative weight of each row, shape ``(n,)``, or a mask of booleans; ``None``
            stands for ones.
        shift: The :math:`a` that is subtracted from the rows of ``x``, shape ``(d_x,)`` or
            ``(layers, d_x)``; ``None`` stands for zeros.
        shift_y: The :math:`b` of ``y``, shape ``(d_y,)`` or ``(layers, d_y)``.
        precision: ``"exact"``: float64 products. ``"high"``: error of a correlation at most 2e-6,
            typically 1e-7, whatever the number of rows: float32 products, or split 16-bit ones
            where the matrix units are faster at them, merged in float64. ``"fast"``: the same of
            rows rounded to 16 bits once they are shifted; it saves time only where there are
            16-bit matrix units. float64 rows are multiplied in float64 always.
        backend: Kernel to use; ``None`` picks the fastest for the device of ``x``.

    Returns:
        Shape ``(d_x, d_y)`` or ``(layers, d_x, d_y)``, float64; exactly symmetric when ``y`` is
        ``None``.

    Raises:
        ValueError: If shapes do not fit, devices differ, the precision is unknown, or the rows
            require a gradient.
        TypeError: If the rows are not floating-point.
        BackendUnavailableError: If a named backend is not available.
    """
    _checks.one_of(precision, get_args(Precision), "precision")
    check(x, y, weight, shift, shift_y)
    dtype = x.dtype if y is None else torch.promote_types(x.dtype, y.dtype)
    chosen = resolve("second_moments", backend, x.device.type, dtype)
    if weight is not None and not weight.is_floating_point():
        weight = weight.double()
    batched = x.ndim == 3
    operands = (
        x.to(dtype) if batched else x.to(dtype)[None],
        y if y is None else y.to(dtype) if batched else y.to(dtype)[None],
        weight,
        shift if shift is None or batched else shift[None],
        shift_y if shift_y is None or batched else shift_y[None],
    )
    if chosen == "reference":
        product = _op.empty_product(*operands)
        reference.accumulate(*operands, precision, product)
    else:
        product = _op.second_moments(*operands, precision, chosen)
    return product if batched else product[0]
