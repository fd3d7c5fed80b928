"""The counts of the reliability campaign: kept test by test, shown row by row."""

import json

import reliability
from campaign import examples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.statistics import collector, describe_statistics

COUNT = {"row": "R1", "trials": 250, "failures": 0, "commit": "0123456789abcdef"}


def test_a_test_that_is_run_again_replaces_its_own_counts_only(tmp_path):
    path = tmp_path / "reliability.json"
    reliability.record({"a": COUNT, "b": COUNT}, path)
    reliability.record({"b": COUNT | {"trials": 7}}, path)
    held = json.loads(path.read_text())["tests"]
    assert [held[name]["trials"] for name in "ab"] == [250, 7]


def test_a_row_adds_up_its_tests(tmp_path):
    path = tmp_path / "reliability.json"
    reliability.record({"a": COUNT, "b": COUNT | {"failures": 2}}, path)
    lines = reliability.rendered(path).splitlines()
    assert lines[2] == (
        "| R1 | writers of stores killed at random moments | 500 | 500 | 2 | 2 | `0123456789ab` |"
    )
    assert "| not run |" in lines[3]


def test_nothing_was_run_yet(tmp_path):
    assert reliability.rendered(tmp_path / "none").count("| not run |") == len(reliability.ROWS)


def test_examples_of_hypothesis_are_counted():
    said = []

    @settings(max_examples=12, database=None)
    @given(st.integers())
    def tried(number):
        assert isinstance(number, int)

    with collector.with_value(lambda found: said.append(describe_statistics(found))):
        tried()
    assert examples_of(said[0]) == 12
