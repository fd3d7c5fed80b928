import itertools
import json
import math

import numpy as np
import pytest

from fastinn.report import figures

FIGURES = {
    "layers": lambda results: figures.layer_heat_map(results, "ridge"),
    "pairs": lambda results: figures.pair_heat_map(results, "ridge"),
    "similarity": lambda results: figures.similarity_heat_map(results, "linear CKA"),
    "boxes": figures.score_boxes,
    "spectrum": lambda results: figures.spectrum(results, 4),
    "training": lambda results: figures.training_curves(results, "INN"),
}
HEAT_MAPS = ["layers", "pairs", "similarity"]


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_title_and_is_json(results, name):
    figure = FIGURES[name](results)
    assert figure.layout.title.text
    assert figure.layout.xaxis.title.text
    json.loads(figure.to_json(), parse_constant=no_constant)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, None], ids=["nan", "inf", "null"])
def test_a_value_that_is_not_finite_leaves_json_valid(results, name, bad):
    for record in results["scores"] + results["similarities"]:
        record.update({key: bad for key in ("r2", "value") if key in record})
    results["spectra"][0]["correlations"][3] = bad
    results["training"][0]["forward_r2"][3] = bad
    json.loads(FIGURES[name](results).to_json(), parse_constant=no_constant)


@pytest.mark.parametrize("name", HEAT_MAPS)
def test_colours_of_a_heat_map_span_zero_to_one(results, name):
    trace = FIGURES[name](results).data[0]
    assert (trace.zmin, trace.zmax) == (0, 1)


def test_the_layer_map_is_the_mean_over_directed_pairs(results):
    z = np.asarray(figures.layer_heat_map(results, "ridge").data[0].z)
    for source_layer, target_layer in itertools.product(range(5), repeat=2):
        r2 = [
            record["r2"]
            for record in results["scores"]
            if record["method"] == "ridge"
            and (record["source_layer"], record["target_layer"]) == (source_layer, target_layer)
        ]
        assert len(r2) == 12
        assert z[source_layer, target_layer] == pytest.approx(np.mean(r2), rel=1e-6)


def test_the_pair_map_holds_every_cell_and_no_model_with_itself(results):
    trace = figures.pair_heat_map(results, "CCA map").data[0]
    row, column = list(trace.y), list(trace.x)
    for record in results["scores"]:
        if record["method"] == "CCA map" and record["fitted"] == "direct":
            source = row.index(f"{record['source']} layer {record['source_layer']}")
            target = column.index(f"{record['target']} layer {record['target_layer']}")
            assert trace.z[source, target] == pytest.approx(record["r2"], rel=1e-6)
    assert np.isnan(trace.z).sum() == 4 * 5 * 5


def test_a_negative_score_keeps_its_number(results):
    for record in results["scores"]:
        record["r2"] = -43000.0
    heat_map, text = figures.layer_heat_map(results, "ridge").data
    assert np.all(np.asarray(heat_map.z) == -43000)
    assert set(text.text) == {"-43,000"}


@pytest.mark.parametrize(("n_layers", "printed"), [(4, True), (12, False)])
def test_values_are_printed_where_they_can_be_read(make_results, n_layers, printed):
    figure = figures.layer_heat_map(make_results(n_seeds=2, n_layers=n_layers), "ridge")
    assert (len(figure.data) == 2) is printed


def test_the_null_of_a_similarity_is_on_hover(results):
    trace = figures.similarity_heat_map(results, "PWCCA").data[0]
    assert "null 0.050" in trace.customdata[0][0]
    assert "customdata" in trace.hovertemplate


def test_the_boxes_hold_every_score_of_the_last_layer(results):
    forward, backward = figures.score_boxes(results).data
    assert len(forward.x) == len(backward.x) == 2 * 12 + 4 * 6


def test_the_spectrum_counts_components_from_one_beside_the_band(results):
    low, high, first, *_ = figures.spectrum(results, 4).data
    assert (low.x0, high.x0, first.x0) == (1, 1, 1)
    assert high.fill == "tonexty"
    assert len(first.y) == len(high.y)


def test_a_checkpoint_is_marked_on_both_curves(results):
    *curves, marks = figures.training_curves(results, "INN").data
    assert len(curves) == len(marks.x) == 12
    assert set(marks.x) == {record["best_step"] for record in results["training"]}


def test_methods_of_a_single_cell_get_no_layer_map(results):
    assert figures.grid_methods(results) == ["Procrustes", "CCA map", "least squares", "ridge"]


@pytest.mark.parametrize("name", ["pairs", "boxes", "spectrum", "training"])
def test_tags_in_a_name_are_escaped(results, name):
    tagged = json.loads(json.dumps(results).replace("seed-1", "<b>seed-1</b>"))
    text = json.dumps(json.loads(FIGURES[name](tagged).to_json()))
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def test_the_null_band_of_one_pair_can_be_seen(make_results):
    results = make_results(n_seeds=2, n_layers=1)
    band = next(b for b in results["null_bands"] if b["layer"] == 1)
    band["high"] = band["low"]
    below, above, *_ = figures.spectrum(results, 1).data
    assert below.line.width == above.line.width == 1


def test_curves_of_a_cell_name_both_layers(make_results):
    results = make_results(n_seeds=2, n_layers=1)
    method = results["training"][0]["method"]
    results["training"][0]["target_layer"] = 0
    texts = {trace.text[0] for trace in figures.training_curves(results, method).data if trace.text}
    assert any(text.endswith("layer 1 to 0") for text in texts)
