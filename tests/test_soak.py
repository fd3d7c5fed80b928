"""Moments and training over and over: memory, open files and the rate stay as they are."""

import os
import statistics
import time

import interrupted
import pytest

from fastinn.study.passes import run_pass

# Of resident memory between the first third and the last; of processor time of a round, which
# shares its caches with whatever else runs on the machine.
_GROWTH, _SLOWDOWN = 1.01, 1.25

ROUNDS = [
    pytest.param(3, id="3 rounds"),
    pytest.param(None, id="3 minutes", marks=pytest.mark.campaign("R16", full=True)),
]
MINUTES = 3


@pytest.mark.parametrize("n_rounds", ROUNDS)
def test_nothing_grows(trials, n_rounds):
    for _ in range(2 if n_rounds else 20):  # allocators and caches fill
        one_round()
    seen = [measured() for _ in rounds_of(n_rounds, trials)]
    first, last = seen[: len(seen) // 3], seen[-(len(seen) // 3) :]
    assert last[-1][1] <= first[0][1], "files were left open"
    if n_rounds is None:  # too few rounds tell nothing of the rest
        assert median(last, 0) <= _GROWTH * median(first, 0), "memory grew"
        assert median(last, 2) <= _SLOWDOWN * median(first, 2), "rounds became slower"


def rounds_of(n_rounds, trials):
    """Yield that many times, or for some minutes, which are then the trials."""
    if n_rounds is not None:
        yield from range(n_rounds)
        return
    begun = time.monotonic()
    while time.monotonic() - begun < 60 * MINUTES:
        yield
    trials.n = MINUTES


def measured():
    begun = time.thread_time()
    one_round()
    seconds = time.thread_time() - begun
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1])
    return resident, len(os.listdir("/proc/self/fd")), seconds


def one_round():
    stream = interrupted.Blocks(12)
    run_pass(stream, **interrupted.RUN)
    interrupted.inn(max_steps=5).fit_stream(stream.pairs())


def median(seen, place):
    return statistics.median(one[place] for one in seen)
