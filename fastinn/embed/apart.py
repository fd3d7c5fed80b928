"""Whether windows that share a batch are read as if each were alone."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastinn.embed.tokens import Window

_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.1, torch.bfloat16: 0.1}
"""Part of the largest state. Rounding differs with the shape of a batch, by 1e-6 in float32."""


def are_of_one_length(windows: Sequence[Window]) -> bool:
    """Tell whether no window needs padding, so that nothing can be read of it."""
    return len({len(window.ids) for window in windows}) < 2


def check_apart(
    source: str,
    windows: Sequence[Window],
    states: Callable[[Sequence[Window]], Tensor],
    dtype: torch.dtype,
) -> None:
    """Read a window alone and beside a longer one, and compare.

    A model that mixes all positions, as FNet does, or that convolves over padding, gives states
    that depend on what happens to be in the same batch.

    Args:
        source: What to call the model in the error.
        windows: Windows of different lengths.
        states: Runs some windows together and returns the states of the first of them, shape
            ``(length, d)``.
        dtype: What the model computes in.

    Raises:
        ValueError: If they differ by more than rounding.
    """
    by_length = sorted(windows, key=lambda window: len(window.ids))
    shortest, longest = by_length[0], by_length[-1]
    alone, together = states([shortest]).float(), states([shortest, longest]).float()
    error = float((together - alone).abs().max() / alone.abs().max())
    if error > _TOLERANCE[dtype]:
        raise ValueError(
            f"{source} reads a text otherwise beside a longer one (by {error:.0e} of the largest "
            "state), for it does not leave out the padding; give a BERT-like model"
        )
