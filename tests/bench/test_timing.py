"""Interleaved timing, with a clock that counts instead of waiting."""

import pytest
import timing
from timing import Timings, interleaved, quartiles


@pytest.fixture
def clock(monkeypatch):
    """A clock under the test's control, and the log of what ran."""

    class Clock:
        def __init__(self):
            self.now, self.log = 0.0, []

        def work(self, name, seconds):
            def call():
                self.log.append(name)
                self.now += seconds() if callable(seconds) else seconds

            return call

    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_candidates_take_turns(clock):
    calls = {name: clock.work(name, 1.0) for name in "abc"}
    interleaved(calls, rounds=3)
    warm_up, turns = clock.log[:6], clock.log[6:]
    assert sorted(warm_up) == sorted("aabbcc")
    assert "".join(turns) == "abcbcacab"


def test_fast_candidates_repeat_to_fill_their_turn(clock):
    timings = interleaved({"a": clock.work("a", 0.01)}, rounds=2, turn_seconds=0.05)
    assert clock.log.count("a") == 2 + 2 * 5
    assert timings.rounds["a"] == pytest.approx([0.01, 0.01])


def test_first_call_does_not_count(clock):
    durations = iter([100.0])  # compiling, say
    timings = interleaved({"a": clock.work("a", lambda: next(durations, 1.0))}, rounds=3)
    assert timings.seconds("a") == 1.0


def test_drift_of_the_machine_cancels_in_ratios():
    slowing = [1.0, 2.0, 4.0, 8.0]
    timings = Timings({"slow": [3 * s for s in slowing], "fast": slowing})
    assert timings.ratio("slow", "fast") == (3.0, 3.0, 3.0)


def test_quartiles():
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(("candidates", "rounds"), [({}, 1), ({"a": print}, 0)])
def test_nothing_to_time_is_an_error(candidates, rounds):
    with pytest.raises(ValueError, match="need at least one"):
        interleaved(candidates, rounds=rounds)
