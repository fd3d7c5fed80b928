import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastinn.report.tables import decimal, fits, method_rows, sentences, summarise
from fastinn.study.records import is_of


@given(st.lists(st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf])))
def test_a_summary_lies_within_its_range_and_counts_every_value(values):
    summary = summarise(values)
    assert summary.n_finite + summary.n_bad == len(values)
    if summary.n_finite:
        slack = 1e-9 * max(abs(summary.low), abs(summary.high))
        assert summary.low - slack <= summary.mean <= summary.high + slack
    else:
        assert math.isnan(summary.mean)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-0.0001, "0.000"), (-43000.2, "-43,000"), (math.inf, "n/a")],
    ids=["fixed places", "no minus zero", "exploded", "infinite"],
)
def test_decimal(value, text):
    assert decimal(value) == text


@pytest.mark.parametrize(
    ("method", "family", "expected"),
    [("INN (two-way)", "INN", True), ("INN", "INN", True), ("INNER", "INN", False)],
)
def test_is_of(method, family, expected):
    assert is_of(method, family) is expected


@pytest.mark.parametrize(
    ("method", "n_fits", "maps"),
    [
        ("CCA map", 12, "one, both ways"),
        ("INN (two-way)", 6, "one, both ways"),
        ("ridge", 6, "one per direction"),
        ("MLP (free)", 6, "one per direction"),
    ],
)
def test_every_method_is_paired_up_by_its_maps(results, method, n_fits, maps):
    found = [fit for fit in fits(results) if fit.method == method]
    assert len(found) == n_fits
    assert {fit.maps for fit in found} == {maps}


@pytest.mark.parametrize("method", ["CCA map", "ridge"])
def test_the_way_back_is_the_same_pair_turned_round(results, method):
    for fit in fits(results):
        if fit.method == method:
            assert (fit.backward["source"], fit.backward["target"]) == (fit.target, fit.source)
            assert fit.backward["fitted"] == ("inverse" if fit.bijection else "direct")


def test_only_the_last_layers_count(results):
    layers = {fit.forward[side] for fit in fits(results) for side in ("source_layer",)}
    assert layers == {4}


def test_a_score_without_its_way_back_stands_alone(results):
    results["scores"] = [
        record
        for record in results["scores"]
        if record["method"] == "ridge"
        and (record["source"], record["target"]) == ("seed-1", "seed-0")
    ]
    (fit,) = fits(results)
    assert fit.maps == "one direction only"
    assert method_rows([fit])[0].backward.n_finite == 0


def test_the_round_trip_of_a_method_is_the_worst_of_its_pairs(results):
    trained = [r for r in results["scores"] if "round_trip" in r]
    trained[2]["round_trip"] = 5e-4
    trips = {row.method: row.round_trip for row in method_rows(fits(results))}
    assert trips["INN (two-way)"] == 5e-4
    assert math.isnan(trips["MLP (free)"])


def test_the_summary_names_the_best_linear_bijection_and_the_networks(results):
    text = " ".join(sentences(method_rows(fits(results))))
    for method in ("INN (two-way)", "CCA map, the best linear", "MLP (free)"):
        assert method in text
    assert "Procrustes" not in text
    assert "least squares" not in text


def test_a_hub_is_no_linear_bijection(results):
    pairwise = [r for r in results["scores"] if r["method"] == "INN (two-way)"]
    hub = "hub INN (two-way, consensus)"
    results["scores"] += [r | {"method": hub, "r2": r["r2"] - 0.01} for r in pairwise]
    text = " ".join(sentences(method_rows(fits(results))))
    assert "CCA map, the best linear" in text
    assert f"{hub}, one map a model instead of one a pair, reaches 0.7" in text


@pytest.mark.parametrize("gone", ["INN (two-way)", "MLP (free)"])
def test_the_summary_leaves_out_what_was_not_run(results, gone):
    results["scores"] = [record for record in results["scores"] if record["method"] != gone]
    text = " ".join(sentences(method_rows(fits(results))))
    assert gone not in text
    assert "keeps" not in text
