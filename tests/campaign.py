"""The reliability campaign as a plugin of pytest: counts trials and failures, test by test."""

import re
from collections import Counter

import machine
import pytest
import reliability
from hypothesis import settings

_PROFILE = "campaign"
_TIMES_AS_MANY = 10

settings.register_profile(_PROFILE, derandomize=True)


def begin(config):
    """Count, if it is the campaign that is run: ``pytest -m campaign``."""
    if config.option.markexpr == "campaign":
        settings.load_profile(_PROFILE)
        config.pluginmanager.register(Campaign(config))


def examples(n):
    """Return how many examples a property is tried on: ``n``, and more in the campaign."""
    return n * (_TIMES_AS_MANY if settings.get_current_profile_name() == _PROFILE else 1)


class Trials:
    """Counts what a test goes through: ``for state in trials(states)``, or ``trials.n += 1``."""

    def __init__(self):
        self.n = 0

    def __call__(self, states):
        for state in states:
            self.n += 1
            yield state


class Campaign:
    """Writes the counts of each test that bears the mark, as soon as it has ended.

    A test is one trial, unless it says otherwise by the fixture ``trials`` or hypothesis does.
    """

    def __init__(self, config):
        self._commit = machine.commit()  # before the results make the tree differ from it
        self._writes = not hasattr(config, "workerinput")
        self._counts = {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            if mark := item.get_closest_marker("campaign"):
                item.user_properties.append(("row", mark.args[0]))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        if call.when == "teardown" and hasattr(item, "hypothesis_statistics"):
            tried = examples_of(item.hypothesis_statistics)
            item.user_properties.append(("trials", tried))

    def pytest_runtest_logreport(self, report):
        said = dict(report.user_properties)
        if "row" not in said or not self._writes:
            return
        count = self._counts.setdefault(report.nodeid, Counter())
        count.update(failures=report.failed, skipped=report.skipped)
        if report.when == "teardown" and not count["skipped"]:
            counts = {"trials": said.get("trials", 1), "failures": count["failures"]}
            row = {"row": said["row"], **counts, "commit": self._commit}
            reliability.record({report.nodeid: row})


def examples_of(statistics):
    """Return how many examples hypothesis ran, from what it says about a test."""
    found = re.findall(r"(\d+) passing, (\d+) failing", statistics)
    return sum(int(passing) + int(failing) for passing, failing in found)
