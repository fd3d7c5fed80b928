"""Second moments: weighted sums of products of paired rows."""

from typing import get_args

from torch import Tensor

from fastinn import _checks
from fastinn._types import Precision
from fastinn.ops.second_moments import reference

__all__ = ["second_moments"]


def second_moments(
    x: Tensor,
    y: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    precision: Precision = "high",
) -> Tensor:
    r"""Sum of products of rows, :math:`\sum_i w_i x_i y_i^T`.

    Shift large means away first: rounding is relative to the size of the entries.

    Args:
        x: Rows, shape ``(n, d_x)``, any floating-point dtype.
        y: Rows paired with ``x``, shape ``(n, d_y)``; ``None`` stands for ``x``.
        weight: Non-negative weight of each row, shape ``(n,)``; ``None`` stands for ones.
        precision: ``"exact"``: float64 products. ``"high"``: IEEE float32 products of at most
            4096 rows, merged in float64; maximum error of a correlation about 1e-7. ``"fast"``:
            the same of rows rounded to bfloat16. float64 rows are multiplied in float64 always.

    Returns:
        Shape ``(d_x, d_y)``, float64; exactly symmetric when ``y`` is ``None``.

    Raises:
        ValueError: If shapes do not fit or the precision is unknown.
    """
    _checks.one_of(precision, get_args(Precision), "precision")
    _check_shapes(x, x if y is None else y, weight)
    return reference.second_moments(x, y, weight, precision)


def _check_shapes(x: Tensor, y: Tensor, weight: Tensor | None) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and y has shape {tuple(y.shape)}, "
            "expected (n, d_x) and (n, d_y)"
        )
    if weight is not None and weight.shape != (len(x),):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected ({len(x)},)")
