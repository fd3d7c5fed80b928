"""How the products inside a sub-network are rounded."""

from contextlib import AbstractContextManager, nullcontext
from typing import get_args

import torch
from torch import Tensor

from fastinn._types import Precision

PRECISIONS = get_args(Precision)


def products(precision: Precision, rows: Tensor) -> AbstractContextManager[object]:
    """Return a context in which linear layers applied to ``rows`` round as ``precision`` says.

    ``"fast"`` multiplies in bfloat16 and accumulates in float32. ``"exact"`` and ``"high"`` both
    multiply in the dtype of ``rows``; float64 rows are never rounded.
    """
    if precision == "fast" and rows.dtype == torch.float32:
        return torch.autocast(rows.device.type, dtype=torch.bfloat16)
    return nullcontext()
