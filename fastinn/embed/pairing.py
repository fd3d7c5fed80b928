"""Rows of the same tokens, words or documents in every seed."""

from collections.abc import Mapping

import torch
from torch import Tensor


def check_keys(keys: Mapping[str, Tensor]) -> Tensor:
    """Return the keys that all seeds share, or name the first row in which two seeds differ."""
    (first, expected), *others = keys.items()
    for name, found in others:
        if len(found) != len(expected):
            raise ValueError(
                f"{first} has {len(expected)} rows and {name} has {len(found)}; both must read "
                "the same corpus with the same tokenizer"
            )
        differs = (found != expected).any(dim=1).nonzero()
        if len(differs):
            row = int(differs[0])
            raise ValueError(
                f"row {row} is (document, position, token) {tuple(expected[row].tolist())} in "
                f"{first} and {tuple(found[row].tolist())} in {name}; both must read the same "
                "corpus with the same tokenizer"
            )
    return expected


def shared_keys(keys: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find the keys that every seed has.

    Args:
        keys: Keys of each seed, in ascending order and none twice.

    Returns:
        For each seed which of its rows to keep, shape ``(n,)``; all then have the same keys.
    """
    _, where, count = torch.cat(list(keys.values())).unique(
        dim=0, return_inverse=True, return_counts=True
    )
    shared = count[where] == len(keys)
    return dict(zip(keys, shared.split([len(k) for k in keys.values()]), strict=True))
