"""Strata of held-out rows: how often a token was trained on, and where in its document it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

FREQUENCY, POSITION = "frequency", "position"

# Levels whose rows have the property; rows of whole texts have neither.
_WITH_FREQUENCY, _WITH_POSITION = ("token",), ("token", "word")

_DECADES = 10 ** np.arange(10)


@dataclass(frozen=True)
class Stratum:
    """The stratum of every row by one property.

    Attributes:
        names: Of the strata that hold rows, in ascending order.
        member: Index of each row's stratum, shape ``(n,)``.
    """

    names: Sequence[str]
    member: np.ndarray


Strata: TypeAlias = dict[str, Stratum]
"""Strata of the same rows, by the property that tells them apart."""


def strata_of(level: str, train_keys: np.ndarray, keys: np.ndarray) -> Strata:
    """Sort rows by powers of ten of their property.

    Args:
        level: What a row is.
        train_keys: Document, position and token id of the rows that maps were trained on, shape
            ``(n_train, 3)``; the frequency of a token is its number of them.
        keys: Of the rows to sort, shape ``(n, 3)``.

    Returns:
        ``"frequency"`` and ``"position"`` (in the document, counted from 1), as far as rows of
        the level have them.
    """
    found = {}
    if level in _WITH_FREQUENCY:
        found[FREQUENCY] = _by_decade(_counts(train_keys[:, 2], keys[:, 2]))
    if level in _WITH_POSITION:
        found[POSITION] = _by_decade(keys[:, 1] + 1)
    return found


def _counts(train_tokens: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return how often each of ``tokens`` is among the training rows."""
    counts = np.bincount(train_tokens, minlength=int(tokens.max()) + 1)
    return counts[tokens]


def _by_decade(numbers: np.ndarray) -> Stratum:
    digits, member = np.unique(np.searchsorted(_DECADES, numbers, "right"), return_inverse=True)
    return Stratum([_decade(int(n)) for n in digits], member)


def _decade(digits: int) -> str:
    """Name the numbers of so many digits; 0 has none."""
    return f"{10 ** (digits - 1):,} to {10**digits - 1:,}" if digits else "0"
