"""How sure a mean is: percentile bootstrap over sentences, documents or any other groups."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

N_RESAMPLES = 2_000

# Of one group, every resample is the same: it would seem to be known exactly.
FEWEST_GROUPS = 2

# Counts of the groups that are drawn at once; bounds memory, not the result.
_COUNTS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that its bootstrap distribution gives.

    Attributes:
        mean: On the sample itself.
        low: Lower end; NaN where there is nothing to draw from.
        high: Upper end, likewise.
    """

    mean: float
    low: float
    high: float

    def record(self) -> dict[str, float]:
        """Return what JSON holds of it: no ends where there are none."""
        return {name: end for name, end in asdict(self).items() if not math.isnan(end)}

    def named(self, name: str) -> dict[str, float]:
        """Return it as ``name``, ``name_low`` and ``name_high``, likewise."""
        ends = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
        return {ends[end]: value for end, value in self.record().items()}


def bootstrap(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n: int = N_RESAMPLES,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Interval:
    """Return the mean of ``values`` and its percentile bootstrap interval.

    Of a single group there is none: its ends are NaN.

    Args:
        values: One number a sample, shape ``(n_samples,)``.
        groups: Group of each sample, of any kind; whole groups are drawn, since their samples may
            depend on each other. ``None``: each sample is its own.
        n: Number of resamples.
        confidence: Share of the resamples that the interval holds.
        random_state: Seed of the draws.

    Raises:
        ValueError: If there are no values, or not one group for each.
    """
    column = np.asarray(values, dtype=np.float64)
    means = resampled_means(column, groups, n=n, random_state=random_state)
    if len(np.unique(np.arange(len(column)) if groups is None else groups)) < FEWEST_GROUPS:
        return Interval(float(column.mean()), math.nan, math.nan)
    return percentile_interval(float(column.mean()), means, confidence)


def resampled_means(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n: int = N_RESAMPLES,
    random_state: int = 0,
) -> np.ndarray:
    """Return the means of ``n`` resamples.

    All columns share the draws, and so do calls with the same numbers of groups and resamples and
    the same seed: statistics of them, such as a difference or a ratio of two, are paired.

    Args:
        values: Shape ``(n_samples,)`` or ``(n_samples, n_columns)``.
        groups: See :func:`bootstrap`, as for the others.
        n: Number of resamples.
        random_state: Seed of the draws.

    Returns:
        Shape ``(n,)`` or ``(n, n_columns)``, float64.

    Raises:
        ValueError: As :func:`bootstrap`.
    """
    samples = np.asarray(values, dtype=np.float64)
    if not len(samples):
        raise ValueError("there are no values to resample; give at least one")
    sums, sizes = _by_group(samples, groups)
    n_groups = len(sizes)
    draws = np.random.default_rng(random_state)
    parts = []
    for start in range(0, n, max(1, _COUNTS_AT_ONCE // n_groups)):
        size = min(max(1, _COUNTS_AT_ONCE // n_groups), n - start)
        drawn = multiplicities(n_groups, size, draws)
        drawn_sizes = (drawn @ sizes).reshape(-1, *[1] * (samples.ndim - 1))
        parts.append(drawn @ sums / drawn_sizes)
    return np.concatenate(parts)


def multiplicities(n_groups: int, n: int, draws: np.random.Generator) -> np.ndarray:
    """Return how often each group is in each of ``n`` resamples, shape ``(n, n_groups)``."""
    return draws.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n)


def percentile_interval(
    estimate: float, resampled: np.ndarray, confidence: float = 0.95
) -> Interval:
    """Return ``estimate`` with the range that the middle of its resamples takes.

    Args:
        estimate: The statistic on the sample itself.
        resampled: The statistic on each resample, shape ``(n,)``.
        confidence: Share of the resamples that the interval holds, in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share in (0, 1)")
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def _by_group(samples: np.ndarray, groups: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the samples of each group and their number."""
    if groups is None:
        return samples, np.ones(len(samples))
    numbers = np.asarray(groups)
    if len(numbers) != len(samples):
        raise ValueError(
            f"there are {len(numbers)} groups for {len(samples)} values, expected one each"
        )
    _, member = np.unique(numbers, return_inverse=True)
    sums = np.zeros((member.max() + 1, *samples.shape[1:]))
    np.add.at(sums, member, samples)
    return sums, np.bincount(member).astype(np.float64)
