"""How many models are held at once, decided by what fits into memory."""

from collections import defaultdict
from collections.abc import Iterable

import torch

from fastinn._memory import free_bytes
from fastinn.embed.model import Model

_SHARE = 0.5
"""Part of the free memory that models and waiting rows may take; the rest is the caller's."""

_MOST_BLOCKS = 64
"""Blocks a model encodes in its turn at most: by then loading it hardly counts."""


def available(device: torch.device) -> int:
    """Return the bytes of memory that are free on ``device``, or on the host for ``cpu``."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_bytes()


def fit_together(models: Iterable[Model]) -> bool:
    """Tell whether all ``models`` can be held at once, each on its device."""
    wanted: defaultdict[torch.device, int] = defaultdict(int)
    for model in models:
        wanted[model.device] += 0 if model.is_loaded else model.nbytes
    return all(size <= _SHARE * available(device) for device, size in wanted.items())


def blocks_a_turn(block_bytes: int) -> int:
    """Return how many blocks each model encodes in its turn, where models take turns."""
    room = _SHARE * available(torch.device("cpu"))
    return max(1, min(_MOST_BLOCKS, int(room // block_bytes)))
