"""Rounding of the products inside sub-networks, changed for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from fastinn._types import Precision


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
