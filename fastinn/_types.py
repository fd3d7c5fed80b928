"""Aliases used in public signatures."""

from collections.abc import Hashable
from typing import Any, Literal, TypeAlias

Activation: TypeAlias = Literal["relu", "selu", "gelu", "silu"]
"""Activation of a sub-network; ``"gelu"`` is the tanh form."""

Array: TypeAlias = Any
"""A torch tensor, NumPy array, CuPy array or any object that speaks DLPack."""

Backend: TypeAlias = Literal["reference", "cpu", "triton", "cuda"]
"""Who computes an op; ``None`` in a signature means the fastest that is available."""

Kept: TypeAlias = Literal["first", "last", "even", "odd"]
"""Which half of the features a coupling leaves as it is."""

Memory: TypeAlias = Literal["store", "recompute"]
"""Whether the backward pass reads stored activations or computes them again."""

Precision: TypeAlias = Literal["exact", "high", "fast"]
"""How products are rounded: IEEE, split 16-bit (about 1e-6 of the scale), or one 16-bit product."""

View: TypeAlias = Hashable
"""One seed at one layer: a name or a ``(seed, layer)`` pair."""
