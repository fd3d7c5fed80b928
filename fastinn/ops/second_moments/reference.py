"""Definition of :func:`fastinn.ops.second_moments` in plain torch."""

import torch
from torch import Tensor

from fastinn._types import Precision

# float32 sums of more rows than this lose digits that the float64 merge cannot bring back.
_BLOCK_ROWS = 4096

# Narrower than this a product of matrices loses speed.
_BLOCK_COLUMNS = 512


def accumulate(
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    shift_x: Tensor | None,
    shift_y: Tensor | None,
    precision: Precision,
    out: Tensor,
) -> None:
    """Write the products into ``out``.

    Args:
        x: Rows, shape ``(b, n, d_x)``.
        y: Rows paired with ``x``, shape ``(b, n, d_y)``; ``None`` stands for ``x``.
        weight: Weight of each row, shape ``(n,)``.
        shift_x: Subtracted from the rows of ``x``, shape ``(b, d_x)``.
        shift_y: Subtracted from the rows of ``y``, shape ``(b, d_y)``.
        precision: See :func:`fastinn.ops.second_moments`.
        out: Shape ``(b, d_x, d_y)``, float64; exactly symmetric when ``y`` is ``None``.
    """
    out.zero_()
    root = None if weight is None else weight.double().sqrt()
    for start in range(0, x.shape[1], _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        part = None if root is None else root[rows]
        a = rounded(x[:, rows], part, shift_x, precision)
        if y is None:
            _add_lower_product(out, a)
        else:
            out += a.mT @ rounded(y[:, rows], part, shift_y, precision)
    if y is None:
        out.copy_(out.tril() + out.tril(-1).mT)


def rounded(
    rows: Tensor, root: Tensor | None, shift: Tensor | None, precision: Precision
) -> Tensor:
    """Return shifted rows times the root of their weight, in the dtype of their products.

    Args:
        rows: Shape ``(b, n, d)``.
        root: Shape ``(n,)``. It goes to both sides, so that symmetric products stay symmetric.
        shift: Shape ``(b, d)``.
        precision: See :func:`fastinn.ops.second_moments`.
    """
    dtype = product_dtype(rows.dtype, precision)
    if shift is not None:
        rows = rows.double() - shift.double()[:, None]
    if root is not None:
        rows = rows.double() * root[:, None]
    rows = rows.to(dtype)
    return rows.bfloat16().float() if precision == "fast" and dtype == torch.float32 else rows


def product_dtype(rows: torch.dtype, precision: Precision) -> torch.dtype:
    """Return the dtype of products: float64 if exact, or if the rows are."""
    exact = precision == "exact" or rows == torch.float64
    return torch.float64 if exact else torch.float32


def _add_lower_product(out: Tensor, a: Tensor) -> None:
    """Add ``a.mT @ a`` to the lower triangle of ``out``; wide products save half the work."""
    for start in range(0, a.shape[-1], _BLOCK_COLUMNS):
        stop = start + _BLOCK_COLUMNS
        out[:, start:stop, :stop] += a[..., start:stop].mT @ a[..., :stop]
