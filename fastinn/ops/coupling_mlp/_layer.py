"""What a coupling layer is besides its tensors."""

from typing import NamedTuple

from torch import Tensor

from fastinn._types import Activation, Kept, Precision


class Layer(NamedTuple):
    """The options of one call, checked; see :func:`fastinn.ops.coupling_mlp`."""

    inverse: bool
    kept: Kept
    activation: Activation
    clamp: float | None
    eps: float
    precision: Precision


def halves(n_features: int, kept: Kept) -> tuple[slice, slice]:
    """Return the columns that stay and the columns that move.

    Contiguous halves of an odd number move one feature more than they keep; of interleaved ones
    the even features are one more.
    """
    if kept in ("even", "odd"):
        stays, moves = slice(0, None, 2), slice(1, None, 2)
        return (stays, moves) if kept == "even" else (moves, stays)
    n_kept = n_features // 2
    if kept == "first":
        return slice(0, n_kept), slice(n_kept, None)
    return slice(n_features - n_kept, None), slice(0, n_features - n_kept)


def n_networks(weights: list[Tensor]) -> int:
    """Return 1 for one sub-network, 2 for one of the shift and one of the log-scale."""
    return 1 if weights[0].ndim == 2 else 2
