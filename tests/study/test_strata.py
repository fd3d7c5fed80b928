"""Strata of held-out rows, and the errors that results give of them."""

import numpy as np
import pytest

from fastinn.study.strata import FREQUENCY, POSITION, strata_of


def keys(tokens, positions=None):
    tokens = np.asarray(tokens)
    positions = np.zeros_like(tokens) if positions is None else np.asarray(positions)
    return np.stack([np.zeros_like(tokens), positions, tokens], axis=1)


def test_frequency_counts_the_training_rows():
    train = keys([5] * 12 + [6] * 9 + [7])
    found = strata_of("token", train, keys([5, 6, 7, 8, 5]))[FREQUENCY]
    assert [found.names[i] for i in found.member] == [
        "10 to 99",
        "1 to 9",
        "1 to 9",
        "0",
        "10 to 99",
    ]
    assert list(found.names) == ["0", "1 to 9", "10 to 99"]


def test_positions_count_from_one_and_strata_without_rows_are_left_out():
    found = strata_of("token", keys([1]), keys([1] * 4, [0, 8, 9, 1200]))[POSITION]
    assert [found.names[i] for i in found.member] == [
        "1 to 9",
        "1 to 9",
        "10 to 99",
        "1,000 to 9,999",
    ]


@pytest.mark.parametrize(
    ("level", "properties"),
    [("token", {FREQUENCY, POSITION}), ("word", {POSITION}), ("sentence", set()), ("cls", set())],
)
def test_rows_are_told_apart_by_what_their_level_has(level, properties):
    assert set(strata_of(level, keys([1]), keys([1]))) == properties


def test_a_comparison_tells_strata_of_three_methods_apart(results):
    records = results["strata"]
    assert {r["method"] for r in records} == {"INN (two-way)", "MLP (free)", "least squares"}
    assert {r["by"] for r in records} == {FREQUENCY, POSITION}
    assert all(r["low"] <= r["mean"] <= r["high"] and r["over"] == "documents" for r in records)


@pytest.mark.parametrize("by", [FREQUENCY, POSITION])
def test_strata_hold_every_row_and_the_whole_error(results, by):
    for method in ("INN (two-way)", "MLP (free)", "least squares"):
        records = [r for r in results["strata"] if (r["method"], r["by"]) == (method, by)]
        assert sum(r["rows"] for r in records) == results["corpus"]["tokens"]["test"]
        assert sum(r["error_share"] for r in records) == pytest.approx(1)
