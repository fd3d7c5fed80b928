"""Figures and tables of stitching and of attention, heads apart."""

import itertools
import json

import numpy as np
import pytest

from fastinn.report import study_figures, terminal, write_report

METHODS = ["no map", "least squares", "INN (two-way)"]


def _span(mean):
    return {"mean": mean, "low": mean - 0.02, "high": mean + 0.01}


def _scores(level):
    return {name: _span(level) for name in ("accuracy", "agreement", "kept")}


@pytest.fixture
def stitched():
    scores = [
        {"method": method, "layer": layer, **_scores(0.5 + 0.1 * rank), "r2": 0.2 * rank}
        for layer, (rank, method) in itertools.product(range(3), enumerate(METHODS))
    ]
    own = {"source": _scores(0.71), "target": _scores(0.83)}
    data = {"name": "dev.tsv", "texts": 871}
    baseline = {"accuracy": 0.51, "agreement": 0.52}
    return {"stitching": {"data": data, "own": own, "baseline": baseline, "scores": scores}}


@pytest.fixture
def attended():
    views = [(f"seed-{i}", layer, head) for i in range(2) for layer in (1, 2) for head in range(3)]
    pairs = [(a, b) for a, b in itertools.permutations(views, 2) if a[0] != b[0]]
    names = ("source", "source_layer", "source_head", "target", "target_layer", "target_head")
    scores = [
        dict(zip(names, (*a, *b), strict=True)) | {"r2": n / 100, "method": "ridge", "fitted": "x"}
        for n, (a, b) in enumerate(pairs)
    ]
    names = ("a", "layer_a", "head_a", "b", "layer_b", "head_b")
    similarities = [
        dict(zip(names, (*a, *b), strict=True)) | {"value": 0.7, "measure": "linear CKA"}
        for a, b in pairs
        if a[0] == "seed-0"
    ]
    baseline = [{"method": "ridge", "r2": 0.25}, {"method": "ridge", "r2": 0.35}]
    return {"heads": {"scores": scores, "similarities": similarities, "baseline": baseline}}


@pytest.mark.parametrize("score", study_figures.SCORES)
def test_curves_hold_every_method_layer_and_interval(stitched, score):
    figure = study_figures.stitching_curves(stitched, score)
    assert [trace.name for trace in figure.data] == METHODS
    for rank, trace in enumerate(figure.data):
        assert list(trace.x) == [0, 1, 2]
        np.testing.assert_allclose(trace.y, 0.5 + 0.1 * rank)
        np.testing.assert_allclose(trace.error_y.array, 0.01)
        np.testing.assert_allclose(trace.error_y.arrayminus, 0.02)


def test_both_models_and_the_commonest_class_are_lines_across(stitched):
    figure = study_figures.stitching_curves(stitched, "accuracy")
    named = {note.text: note.y for note in figure.layout.annotations}
    assert named == {"source itself": 0.71, "target itself": 0.83, "commonest class": 0.51}


@pytest.mark.parametrize("close", [0.70, 0.72])
def test_names_of_close_lines_do_not_cover_each_other(stitched, close):
    stitched["stitching"]["own"]["source"]["accuracy"]["mean"] = 0.71
    stitched["stitching"]["own"]["target"]["accuracy"]["mean"] = close
    figure = study_figures.stitching_curves(stitched, "accuracy")
    sides = {note.text: note.yanchor for note in figure.layout.annotations}
    lower, upper = ("target", "source") if close < 0.71 else ("source", "target")
    assert (sides[f"{lower} itself"], sides[f"{upper} itself"]) == ("top", "bottom")


def test_the_table_of_stitching_holds_every_row(stitched):
    table = terminal.stitching_table(stitched)
    assert table.row_count == 1 + 2 + 9
    assert "51.0%" in list(table.columns[2].cells)
    assert "70.0% (68.0% to 71.0%)" in list(table.columns[2].cells)


@pytest.mark.parametrize(("name", "n_cells"), [("ridge", 72), ("linear CKA", 72)])
def test_the_map_of_heads_holds_every_cell(attended, name, n_cells):
    trace = study_figures.head_heat_map(attended, name).data[0]
    assert np.isfinite(trace.z).sum() == n_cells
    assert trace.x[4] == "seed-0 layer 2 head 1"
    record = attended["heads"]["scores"][7]
    source, target = (
        f"{record[side]} layer {record[side + '_layer']} head {record[side + '_head']}"
        for side in ("source", "target")
    )
    value = trace.z[list(trace.y).index(source), list(trace.x).index(target)]
    assert value == pytest.approx(record["r2"] if name == "ridge" else 0.7)


def test_names_of_methods_are_escaped(stitched, attended):
    hostile = json.loads(json.dumps(stitched).replace("no map", "<b>no"))
    assert "<b>" not in study_figures.stitching_curves(hostile, "kept").to_json()
    hostile = json.loads(json.dumps(attended).replace("seed-1", "<b>1"))
    assert "<b>1" not in study_figures.head_heat_map(hostile, "ridge").to_json()


def test_the_page_shows_stitching(stitched, tmp_path):
    page = write_report(stitched, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What stitching keeps" in page
    assert "871 texts of dev.tsv" in page
    assert page.count('scope="row">INN (two-way)') == 3


def test_the_page_shows_heads_beside_what_length_alone_explains(attended, tmp_path):
    page = write_report(attended, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Attention of every head" in page
    assert "ridge 0.300." in page
