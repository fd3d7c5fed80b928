"""Resamples of documents and seeds that every statistic of a comparison shares."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch

from fastinn._types import Array
from fastinn.metrics import r2_score
from fastinn.study.held_out import DOCUMENTS, HeldOut, Sums, document_groups
from fastinn.study.significance import (
    FEWEST_GROUPS,
    N_RESAMPLES,
    Interval,
    multiplicities,
    percentile_interval,
)

Sides: TypeAlias = tuple[tuple[str, str], ...]
"""The two seeds of each pair."""

# Of two seeds, a resample holds the one pair or none; of three, one or all, which is too little
# to tell a spread by.
FEWEST_SEEDS = 4


class Resamples:
    """Draws of groups of documents, and of seeds, both with replacement.

    A pair of seeds counts as often as both of its seeds are drawn, one times the other; a seed
    is no pair with itself. Fewer than four seeds are not drawn: their statistics vary with the
    documents only. Equal draws make differences of two statistics paired.

    Args:
        n_groups: Number of groups of documents.
        n: Number of resamples.
        random_state: Seed of the draws.

    Attributes:
        vary: Whether there are documents enough to draw from.

    Source: Owen 2007, The pigeonhole bootstrap; Snijders and Borgatti 1999 for pairs.
    """

    def __init__(self, n_groups: int, *, n: int = N_RESAMPLES, random_state: int = 0) -> None:
        self.n, self._random_state = n, random_state
        self.vary = n_groups >= FEWEST_GROUPS
        self._documents = multiplicities(n_groups, n, np.random.default_rng(random_state))
        self._weights = lru_cache(maxsize=8)(self._drawn_pairs)

    def relative_error(self, sums: Sums) -> np.ndarray:
        """Return squared error over squared deviation on each resample, shape ``(n,)``.

        It is NaN on a resample none of whose documents deviates.
        """
        error, deviation = (self._documents @ np.asarray(column) for column in sums)
        return np.divide(error, deviation, out=np.full(self.n, np.nan), where=deviation > 0)

    def mean(self, values: np.ndarray, sides: Sides) -> np.ndarray:
        """Return the mean over pairs on each resample that holds any of them.

        Args:
            values: Statistic of each pair, shape ``(n_pairs, n)``, or ``(n_pairs, 1)`` where it
                does not vary with the documents.
            sides: Seeds of each pair.

        Returns:
            At most ``n`` finite numbers.
        """
        weights = self._weights(sides)
        totals = weights.sum(axis=1)
        held = totals > 0
        means = (weights * values.T).sum(axis=1)[held] / totals[held]
        return means[np.isfinite(means)]

    def _drawn_pairs(self, sides: Sides) -> np.ndarray:
        """Return how often each pair counts in each resample, shape ``(n, n_pairs)``."""
        seeds = sorted({seed for pair in sides for seed in pair})
        if len(seeds) < FEWEST_SEEDS:
            return np.ones((self.n, len(sides)))
        # Other draws than those of the documents.
        draws = np.random.default_rng([self._random_state, 1])
        drawn = multiplicities(len(seeds), self.n, draws)
        first, second = ([seeds.index(pair[side]) for pair in sides] for side in (0, 1))
        return (drawn[:, first] * drawn[:, second]).astype(np.float64)


def r2_interval(true: Array, predicted: Array, documents: np.ndarray) -> Interval:
    """Return the R2 of predicted rows and its 95 % interval over documents.

    Args:
        true: True rows, shape ``(n, d)``.
        predicted: Predicted rows, shape ``(n, d)``.
        documents: Document, or text, of each row, shape ``(n,)``. Of a single one there is no
            interval: its ends are NaN.
    """
    held_out = HeldOut(*document_groups(documents))
    rows, guess = (torch.as_tensor(part).double().cpu().numpy() for part in (true, predicted))
    resamples = Resamples(held_out.n_groups)
    if not resamples.vary:
        return Interval(r2_score(rows, guess), math.nan, math.nan)
    error = resamples.relative_error(held_out.sums(rows, guess)[DOCUMENTS])
    return percentile_interval(r2_score(rows, guess), 1 - error, held_out.n_groups, most=1.0)


def drawn_over(sides: Sides, *, documents: bool) -> str:
    """Say what resamples of these pairs are drawn from; empty if they cannot vary."""
    seeds = {seed for pair in sides for seed in pair}
    named = ["documents"] * documents + ["seeds"] * (len(seeds) >= FEWEST_SEEDS)
    return " and ".join(named)


def interval_record(
    estimate: float,
    resampled: Sequence[float] | np.ndarray,
    n_groups: int,
    *,
    most: float = math.inf,
) -> dict[str, float]:
    """Return an estimate with its 95 % interval, or alone if there are no resamples.

    Args:
        estimate: See :func:`percentile_interval`, as for the others.
        resampled: Likewise.
        n_groups: Likewise.
        most: Likewise.
    """
    if not len(resampled):
        return {"mean": estimate}
    found: Interval = percentile_interval(estimate, np.asarray(resampled), n_groups, most=most)
    return found.record()
