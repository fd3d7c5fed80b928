"""Seconds of several candidates, taken in turns so that drift of the machine hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

Call = Callable[[], object]

_MOST_REPEATS = 10_000
# Idle threads of OpenBLAS and OpenMP keep their cores busy for up to a tenth of a second, which the
# next candidate would pay for.
_IDLE_SECONDS = 0.2


class Ratio(NamedTuple):
    """How many times as long one candidate took as another: median and quartiles over rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Timings:
    """Seconds a call, one entry a round, of each candidate."""

    rounds: Mapping[str, list[float]]

    def seconds(self, name: str) -> float:
        """Return the median over rounds."""
        return statistics.median(self.rounds[name])

    def ratio(self, slow: str, fast: str) -> Ratio:
        """Compare within rounds, never across: a slow phase of the machine then cancels."""
        pairs = zip(self.rounds[slow], self.rounds[fast], strict=True)
        return quartiles([a / b for a, b in pairs])


def quartiles(values: list[float]) -> Ratio:
    """Return median, lower and upper quartile; of one value three times that."""
    if len(values) == 1:
        return Ratio(*values * 3)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(median, low, high)


def interleaved(
    candidates: Mapping[str, Call],
    *,
    device: str = "cpu",
    rounds: int = 7,
    turn_seconds: float = 0.05,
) -> Timings:
    """Time every candidate once a round, in an order that rotates from round to round.

    Args:
        candidates: Calls without arguments, by name.
        device: ``"cpu"`` (wall clock) or ``"cuda"`` (events on the current stream).
        rounds: How many rounds.
        turn_seconds: A candidate is repeated within its turn to last about this long.

    Raises:
        ValueError: If there is no candidate or ``rounds`` is below 1.
    """
    if not candidates or rounds < 1:
        raise ValueError(f"{len(candidates)} candidates, {rounds} rounds: need at least one each")
    clock = _CLOCKS[device]
    repeats = {name: _repeats(clock, call, turn_seconds) for name, call in candidates.items()}
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds):
        for name in _rotated(list(candidates), turn):
            seconds = clock(candidates[name], repeats[name])
            taken[name].append(seconds / repeats[name])
    return Timings(taken)


def _repeats(clock: Callable[[Call, int], float], call: Call, turn_seconds: float) -> int:
    """Warm up, which compiles and allocates, and count the calls that fill a turn."""
    clock(call, 1)
    once = clock(call, 1)
    return min(max(1, round(turn_seconds / max(once, 1e-9))), _MOST_REPEATS)


def _rotated(names: list[str], turn: int) -> list[str]:
    start = turn % len(names)
    return names[start:] + names[:start]


def _wall(call: Call, repeats: int) -> float:
    time.sleep(_IDLE_SECONDS)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start


def _events(call: Call, repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


_CLOCKS: dict[str, Callable[[Call, int], float]] = {"cpu": _wall, "cuda": _events}
