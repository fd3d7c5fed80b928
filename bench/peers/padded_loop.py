"""The usual way to read hidden states: pad every window to the full length, keep all layers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fastinn.embed.tokens import Window

WINDOWS_AT_ONCE = 8


@torch.no_grad()
def hidden_states(
    model: PreTrainedModel, windows: Sequence[Window], length: int
) -> dict[int, Tensor]:
    """Return the states of the content tokens of ``windows`` at every layer."""
    found: dict[int, list[Tensor]] = {}
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        part = windows[start : start + WINDOWS_AT_ONCE]
        ids, attended, content = (torch.zeros(len(part), length, dtype=torch.int64) for _ in "iac")
        for row, window in enumerate(part):
            n = len(window.ids)
            ids[row, :n], attended[row, :n], content[row, :n] = window.ids, 1, window.content.long()
        states = model(input_ids=ids, attention_mask=attended, output_hidden_states=True)
        for layer, whole in enumerate(states.hidden_states):
            found.setdefault(layer, []).append(whole[content.bool()])
    return {layer: torch.cat(parts) for layer, parts in found.items()}
