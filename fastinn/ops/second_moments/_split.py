"""Products of rows split into two bfloat16 parts, for processors with bfloat16 matrix tiles (AMX).

With a = h + l the product is h'h + h'l + l'h + l'l. The last term is left out but on the diagonal
of symmetric products, where squares add up: it would be most of the error, 4e-6 of a correlation.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fastinn._types import Precision
from fastinn.ops.second_moments.reference import rounded

# float32 sums of more rows than this lose digits that the float64 merge cannot bring back.
_BLOCK_ROWS = 4096

# Narrower than this a product of matrices loses speed.
_BLOCK_COLUMNS = 512


def is_fast() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    return torch.cpu._is_amx_tile_supported()


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
    root = None if weight is None else weight.double().sqrt()
    with _bfloat16_products():
        for start in range(0, x.shape[1], _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            part = None if root is None else root[rows]
            a = _parts(rounded(x[:, rows], part, shift_x, "high"), precision)
            b = None if y is None else _parts(rounded(y[:, rows], part, shift_y, "high"), precision)
            for batch, total in enumerate(out):
                left = [p[batch] for p in a]
                if b is None:
                    _add_symmetric(total, *left)
                else:
                    _add_cross(total, left, [p[batch] for p in b])
    if y is None:
        out.copy_(out.tril() + out.tril(-1).mT)


def _parts(rows: Tensor, precision: Precision) -> list[Tensor]:
    """Split into float32 parts that are bfloat16 numbers: two of them, or one if fast."""
    high = rows.bfloat16().float()
    return [high] if precision == "fast" else [high, (rows - high).bfloat16().float()]


def _add_symmetric(total: Tensor, high: Tensor, *low: Tensor) -> None:
    """Add the products of the parts with themselves to the lower triangle of ``total``."""
    for start in range(0, high.shape[1], _BLOCK_COLUMNS):
        stop = start + _BLOCK_COLUMNS
        left, right = slice(start, stop), slice(stop)
        total[left, right] += high[:, left].T @ high[:, right]
        for part in low:
            total[left, right] += high[:, left].T @ part[:, right]
            total[left, right] += part[:, left].T @ high[:, right]
    for part in low:
        total.diagonal().add_(part.double().square().sum(dim=0))


def _add_cross(total: Tensor, x: list[Tensor], y: list[Tensor]) -> None:
    """Add the products of the parts, but for that of the low parts, to ``total``."""
    high_x, *low_x = x
    high_y, *low_y = y
    total += high_x.T @ high_y
    for part in low_y:
        total += high_x.T @ part
    for part in low_x:
        total += part.T @ high_y


@contextmanager
def _bfloat16_products() -> Iterator[None]:
    """Let torch multiply float32 matrices in bfloat16, with float32 sums."""
    usual = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = usual
