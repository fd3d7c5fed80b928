"""Flows inside autocast regions: they compute in the dtype that their inverse needs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def no_autocast(device: str) -> AbstractContextManager[object]:
    """Return a context in which products on ``device`` keep the dtype of their operands."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def outside_autocast(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method of rows outside autocast, and inside such a region on at least float32 rows.

    A product that autocast rounds to 16 bits on the way there is not the one that the way back
    undoes. How the products of a coupling are rounded is its ``precision``.
    """

    @wraps(method)
    def wrapped(self: Any, rows: Tensor) -> Any:
        device = rows.device.type
        if torch.is_autocast_enabled(device):
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        with no_autocast(device):
            return method(self, rows)

    return wrapped
