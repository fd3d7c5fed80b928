"""Definition of :func:`fastinn.ops.second_moments` in plain torch."""

import torch
from torch import Tensor

from fastinn._types import Precision

# float32 sums of more rows than this lose digits that the float64 merge cannot bring back.
_BLOCK_ROWS = 4096

# Narrower than this a product of matrices loses speed.
_BLOCK_COLUMNS = 512


def second_moments(
    x: Tensor, y: Tensor | None, weight: Tensor | None, precision: Precision
) -> Tensor:
    """See :func:`fastinn.ops.second_moments`; the arguments are checked there."""
    right = x if y is None else y
    total = x.new_zeros(x.shape[1], right.shape[1], dtype=torch.float64)
    for start in range(0, len(x), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        # The root goes to both sides, so that a symmetric product stays symmetric.
        root = None if weight is None else weight[part].double().sqrt()
        a = _rounded(x[part], root, precision)
        if y is None:
            _add_lower_product(total, a)
        else:
            b = _rounded(y[part], root, precision)
            dtype = torch.promote_types(a.dtype, b.dtype)
            total += a.to(dtype).T @ b.to(dtype)
    return total if y is not None else total.tril() + total.tril(-1).T


def _add_lower_product(total: Tensor, a: Tensor) -> None:
    """Add ``a.T @ a`` to the lower triangle of ``total``; wide products save half the work."""
    for start in range(0, a.shape[1], _BLOCK_COLUMNS):
        stop = start + _BLOCK_COLUMNS
        total[start:stop, :stop] += a[:, start:stop].T @ a[:, :stop]


def _rounded(rows: Tensor, root: Tensor | None, precision: Precision) -> Tensor:
    """Return weighted ``rows`` in the dtype in which their products are taken."""
    if root is not None:
        rows = (rows * root[:, None]).to(torch.promote_types(rows.dtype, torch.float32))
    if rows.dtype == torch.float64 or precision == "exact":
        return rows.double()
    return rows.bfloat16().float() if precision == "fast" else rows.float()
