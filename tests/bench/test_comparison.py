"""From calls to a figure: what is divided by what, what is printed and what is written."""

import json

import comparison
import pytest
from ceilings import Ceiling
from comparison import Case, Comparison, summary
from results import Results
from timing import Timings

CEILING = Ceiling("copy", "B", 100.0, lambda: None)
CASE = Case("forward", 50, CEILING, 200.0, "exact", "cpu", {"zuko": "zuko is not installed"})


class Plugin:
    def __init__(self):
        self.extra_info, self.calls = {}, 0

    def pedantic(self, call, *, rounds):
        for _ in range(rounds):
            call()
        self.calls += rounds


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A comparison whose clock and memory meter are made up."""
    seconds = {"fastinn": [4.0, 8.0], "ceiling": [1.0, 2.0], "eager": [6.0, 12.0]}
    memory = {"ours": 10, "theirs": 40}
    monkeypatch.setattr(comparison, "interleaved", lambda *_, **__: Timings(seconds))
    monkeypatch.setattr(comparison, "peak_memory", lambda call, _: memory[call()])
    lines = []
    results = Results(tmp_path / "machine.json", {"commit": "abc"})
    compare = Comparison("op", "cpu", 2, Plugin(), results, lines.append)
    compare(CASE, lambda: "ours", {"eager": lambda: "theirs"}, error=3e-7)
    (figure,) = json.loads((tmp_path / "machine.json").read_text())["figures"]
    return figure, lines, compare.benchmark


def test_figure(run):
    figure, _, _ = run
    assert figure["ns_per_token"] == pytest.approx(6.0 / 50 * 1e9)
    assert figure["ceiling"] == {"name": "copy", "B/s": pytest.approx(100 / 1.5)}
    # The ceiling's speed is 100 B/s in the first round; 200 B in its four seconds are half of it.
    assert figure["share_of_ceiling"] == pytest.approx(0.5)
    assert figure["peak_memory"] == 10
    assert figure["peers"] == {"eager": {"median": 1.5, "low": 1.5, "high": 1.5, "peak_memory": 40}}
    assert figure["error"] == 3e-7


def test_line_names_ratios_and_absent_peers(run):
    figure, lines, _ = run
    assert lines == [summary(figure)]
    assert "op: forward, exact, cpu" in lines[0]
    assert "1.50x eager (1.50 to 1.50), zuko: zuko is not installed" in lines[0]


def test_plugin_times_ours_and_gets_the_figure(run):
    figure, _, plugin = run
    assert plugin.calls > 0
    assert plugin.extra_info["case"] == figure["case"]
