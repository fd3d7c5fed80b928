"""How far an output is from the definition in float64."""

from collections.abc import Iterable

import torch
from torch import Tensor


def relative_error(found: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """Return the largest deviation over pairs of tensors, each relative to its largest entry."""
    pairs = zip(found, expected, strict=True)
    return max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in pairs)


def ends(rows: Tensor, n: int = 256) -> Tensor:
    """Return the first and the last ``n`` rows: where offsets that overflow would show."""
    return torch.cat([rows[:n], rows[-n:]])


def check(error: float, tolerance: float, what: str) -> float:
    """Return ``error``; raise if it is too large, because a wrong result has no speed."""
    if not error <= tolerance:
        raise AssertionError(f"{what} is off by {error:.1e}, more than {tolerance:.0e}: not timed")
    return error
