"""Windows of like length put together for one run of a model, padded or packed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastinn.embed.tokens import Window


@dataclass(frozen=True)
class Batch:
    """The input of one run of a model.

    Attributes:
        inputs: What the model is called with, on its device.
        starts: For each window where its first token lies among all positions of the batch.
    """

    inputs: dict[str, Any]
    starts: list[int]


def by_length(windows: Sequence[Window], budget: int) -> Iterator[list[int]]:
    """Group windows of like length, so that hardly anything is padding.

    Args:
        windows: Windows in any order.
        budget: Positions of a batch at most, padding included; a longer window is alone.

    Yields:
        The indices of the windows of each batch.
    """
    batch: list[int] = []
    for i in sorted(range(len(windows)), key=lambda i: len(windows[i].ids), reverse=True):
        longest = len(windows[batch[0]].ids) if batch else 0
        if batch and (len(batch) + 1) * longest > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def in_portions(
    portions: Sequence[Sequence[Window]],
    divide: Callable[[Sequence[Window]], Iterable[list[int]]],
) -> Iterator[list[int]]:
    """Divide each portion into batches of its own.

    Args:
        portions: Windows.
        divide: Returns the indices of the windows of each batch of a portion.

    Yields:
        The indices among the windows of all portions of those of each batch.
    """
    start = 0
    for portion in portions:
        for batch in divide(portion):
            yield [start + i for i in batch]
        start += len(portion)


def padded(windows: Sequence[Window], pad_id: int, device: torch.device) -> Batch:
    """Put each window in a row of its own."""
    ids = _pad([window.ids for window in windows], pad_id)
    attended = _pad([torch.ones_like(window.ids) for window in windows], 0)
    starts = [i * ids.shape[1] for i in range(len(windows))]
    inputs = on_device(device, {"input_ids": ids, "attention_mask": attended})
    return Batch(inputs, starts)


def _pad(sequences: Sequence[Tensor], value: int) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=value)


def on_device(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors from the CPU to ``device``, without waiting for what it is busy with."""
    if device.type != "cuda":
        return tensors
    # Only from pinned memory.
    return {n: t.pin_memory().to(device, non_blocking=True) for n, t in tensors.items()}
