"""How sure a mean is: percentile bootstrap over sentences, documents or any other groups."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

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

    Of a single group there is none: its ends are NaN. Of a few it is wider than its percentiles,
    see :func:`percentile_interval`.

    Args:
        values: One number a sample, shape ``(n_samples,)``.
        groups: Group of each sample, of any kind; whole groups are drawn, since their samples may
            depend on each other. ``None``: each sample is its own.
        n: Number of resamples.
        confidence: Share of such intervals that hold the true mean, in (0, 1).
        random_state: Seed of the draws.

    Raises:
        ValueError: If there are no values, or not one group for each.
    """
    column = np.asarray(values, dtype=np.float64)
    means = resampled_means(column, groups, n=n, random_state=random_state)
    n_groups = len(np.unique(np.arange(len(column)) if groups is None else groups))
    if n_groups < FEWEST_GROUPS:
        return Interval(float(column.mean()), math.nan, math.nan)
    return percentile_interval(float(column.mean()), means, n_groups, confidence)


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
    estimate: float,
    resampled: np.ndarray,
    n_groups: int,
    confidence: float = 0.95,
    *,
    most: float = math.inf,
) -> Interval:
    """Return ``estimate`` with the range that the middle of its resamples takes, and some more.

    Resamples of few groups spread too little, and that spread is known badly: percentiles of 4
    groups hold the truth in four cases of five, not in 95 %. So the ends lie as much further
    from the estimate as those of a t interval do from those of a normal one of the same resamples:
    1.9 times as far for 4 groups, 1.2 times for 10, 1.02 times for 100.

    Args:
        estimate: The statistic on the sample itself.
        resampled: The statistic on each resample, shape ``(n,)``.
        n_groups: How many groups were drawn from, at least 2; if groups of several kinds were, the
            fewest of a kind, which is cautious where another kind decides.
        confidence: Share of such intervals that hold the true statistic, in (0, 1).
        most: Largest value that the statistic can take, such as the 1 of an R2.

    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap, on narrowness bias
    (arXiv 1411.5279). It asks for outer percentiles, which resamples of a few groups lack.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share in (0, 1)")
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    more = _stretch(n_groups, (1 + confidence) / 2) - 1
    # An end on the wrong side of the estimate, which skewed resamples may have, stays.
    return Interval(
        estimate,
        float(low - more * max(estimate - low, 0)),
        min(most, float(high + more * max(high - estimate, 0))),
    )


def _stretch(n_groups: int, level: float) -> float:
    """Return a quantile of a mean of so few groups over that of its resamples, if normal."""
    spread = math.sqrt(n_groups / (n_groups - 1))
    return spread * float(stdtrit(n_groups - 1, level) / ndtri(level))


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
