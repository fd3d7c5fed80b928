"""Products of rows split into two bfloat16 parts, for processors with bfloat16 matrix tiles (AMX).

With a = h + l the product is h'h + h'l + l'h + l'l. The last term is rounding noise (1e-7 of a
correlation) except where two columns agree to three digits or more: there it is 4e-6. The parts
leave 2^-17 of an entry, which averages out over rows, but not in the squares of columns that a few
rows make up. So the diagonal of symmetric products is summed apart.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import TypeAlias

import torch
from torch import Tensor

from fastinn._types import Precision
from fastinn.ops.second_moments.reference import rounded

_Parts: TypeAlias = tuple[Tensor, Tensor | None]
"""Both parts of some rows, as float32 tensors; the second is ``None`` where it is all zero."""

# float32 sums of more rows than this lose digits that the float64 merge cannot bring back.
_BLOCK_ROWS = 1024

# Narrower than this a product of matrices loses speed.
_BLOCK_COLUMNS = 512

# The rounding of fewer rows does not average out.
_LEAST_ROWS = 1024


def is_better(n_rows: int) -> bool:
    """Whether this processor multiplies bfloat16 faster than float32, and accurately enough."""
    return n_rows >= _LEAST_ROWS and torch.cpu._is_amx_tile_supported()


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
    out.zero_()
    squares = x.new_zeros(x.shape[0], x.shape[2], dtype=torch.float64)
    root = None if weight is None else weight.double().sqrt()
    with _bfloat16_products():
        for start in range(0, x.shape[1], _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            part = None if root is None else root[rows]
            a = rounded(x[:, rows], part, shift_x, precision)
            if y is None:
                _add_lower_product(out, *_parts(a))
                squares += a.double().square().sum(dim=1)
            else:
                b = rounded(y[:, rows], part, shift_y, precision)
                _add_product(out, _parts(a), _parts(b))
    if y is None:
        out.copy_(out.tril() + out.tril(-1).mT)
        out.diagonal(dim1=1, dim2=2).copy_(squares)


def _parts(rows: Tensor) -> _Parts:
    high = rows.bfloat16().float()
    low = (rows - high).bfloat16().float()
    return high, low if low.any() else None


def _add_product(total: Tensor, x: _Parts, y: _Parts) -> None:
    """Add the products of all parts to ``total``, once, as that takes as long as a product."""
    parts = [a.mT @ b for a, b in product(x, y) if a is not None and b is not None]
    # The smallest first: adding them to a large one rounds less.
    for part in parts[-2::-1]:
        parts[-1] += part
    total += parts[-1]


def _add_lower_product(total: Tensor, high: Tensor, low: Tensor | None) -> None:
    """Add the product of the parts with themselves to the lower triangle of ``total``."""
    for start in range(0, high.shape[2], _BLOCK_COLUMNS):
        left, right = slice(start, start + _BLOCK_COLUMNS), slice(start + _BLOCK_COLUMNS)
        x, y = (
            (high[..., side], None if low is None else low[..., side]) for side in (left, right)
        )
        _add_product(total[:, left, right], x, y)


@contextmanager
def _bfloat16_products() -> Iterator[None]:
    """Let torch multiply float32 matrices in bfloat16, with float32 sums."""
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    usual = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = usual
