"""How the products inside a sub-network are rounded."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fastinn._types import Precision
from fastinn.ops._native import multiplies_bfloat16


def products(precision: Precision, rows: Tensor) -> AbstractContextManager[object]:
    """Return a context in which linear layers applied to ``rows`` round as ``precision`` says.

    ``"fast"`` multiplies in bfloat16 and accumulates in float32 where that is fast. ``"exact"``
    and ``"high"`` both multiply in the dtype of ``rows``; float64 rows are never rounded.
    """
    fast = precision == "fast" and (rows.is_cuda or multiplies_bfloat16())
    if fast and rows.dtype == torch.float32:
        return torch.autocast(rows.device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def rounded(module: nn.Module, precision: Precision) -> Iterator[None]:
    """Let every layer in ``module`` that has a ``precision`` round with this one meanwhile."""
    layers: list[Any] = [layer for layer in module.modules() if hasattr(layer, "precision")]
    own = [layer.precision for layer in layers]
    try:
        for layer in layers:
            layer.precision = precision
        yield
    finally:
        for layer, before in zip(layers, own, strict=True):
            layer.precision = before
