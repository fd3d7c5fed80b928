"""Tables and figures of means over pairs, with their intervals."""

import numpy as np
import pytest
import torch
from rich.console import Console

from fastinn.report import figures, interval_figures, panels, terminal, write_report
from fastinn.report.costs import cost_rows
from fastinn.report.drawing import how_many, line_style
from fastinn.report.tables import brackets, fits, method_rows
from fastinn.study.stitching import _intervals

HUB = "hub INN (two-way, consensus)"
OVER = "documents and seeds"


def span(mean, **more):
    return {"mean": mean, "low": mean - 0.03, "high": mean + 0.02, **more}


def mean_record(method, layer, direction, mean):
    cell = {"method": method, "source_layer": layer, "target_layer": layer}
    sizes = {"n_pairs": 6, "n_seeds": 4, "n_documents": 180, "over": OVER}
    return span(mean, **cell, direction=direction, **sizes)


@pytest.fixture
def summarised(results):
    """The results of the other tests with what was found over pairs."""
    levels = {"INN (two-way)": 0.75, "MLP (free)": 0.8}
    results["means"] = [
        mean_record(method, layer, direction, level - 0.1 * (4 - layer))
        for method, level in levels.items()
        for layer in (3, 4)
        for direction in ("forward", "backward", "both")
    ]
    gaps = (("INN (two-way)", "MLP (free)", -0.05), (HUB, "INN (two-way)", -0.02))
    results["differences"] = [
        mean_record(one, 4, direction, gap) | {"minus": other}
        for one, other, gap in gaps
        for direction in ("forward", "backward", "both")
    ]
    results["strata"] = [
        mean_record(method, 4, "both", level - 0.3 * place)
        | {"by": by, "stratum": name, "rows": 10 + place, "error_share": 0.5}
        for by in ("frequency", "position")
        for method, level in levels.items()
        for place, name in enumerate(("1 to 9", "10 to 99"))
    ]
    place = {"method": HUB, "layer": 4, "target_layer": 4}
    results["costs"] = [place | {"maps": 4, "seconds": 61.0}]
    cycle = {"method": HUB, "layer": 4, "seeds": ["a", "b", "c"], "cycle_error": 2e-6}
    results["cycles"] = [cycle | {"low": 1e-6, "high": 3e-6}]
    return results


def test_the_table_gives_the_interval_of_each_mean(summarised):
    summarised["scores"] = [r for r in summarised["scores"] if r["method"] == "MLP (free)"]
    (row,) = method_rows(fits(summarised), summarised)
    assert row.forward.interval == pytest.approx((0.77, 0.82))
    assert str(row.backward).endswith("(0.770 to 0.820)")
    assert brackets([row]) == f"95 % interval over {OVER}"


def test_an_interval_of_other_pairs_is_not_taken(summarised):
    for record in summarised["means"]:
        record["n_pairs"] = 5
    rows = method_rows(fits(summarised), summarised)
    assert {row.forward.interval for row in rows} == {None}
    assert brackets(rows) == "smallest to largest"


def test_terminal_tables_fit_a_hundred_columns(summarised):
    console = Console(width=100)
    for table in (
        terminal.score_table,
        terminal.cell_table,
        terminal.difference_table,
        terminal.strata_table,
    ):
        with console.capture() as shown:
            console.print(table(summarised))
        lines = shown.get().splitlines()
        assert max(map(len, lines)) <= 100
    assert "0.45 (0.42 to 0.47)" in shown.get()
    strata = terminal.strata_table(summarised)
    assert list(strata.columns[0].cells)[:3] == ["frequency", "  1 to 9", "  10 to 99"]
    assert [column.header for column in strata.columns[2:]] == ["INN (two-way)", "MLP (free)"]
    gaps = terminal.difference_table(summarised)
    assert list(gaps.columns[2].cells) == ["-0.050 (-0.080 to -0.030)", "-0.020 (-0.050 to 0.000)"]


def test_what_a_hub_costs(summarised):
    (row,) = cost_rows(summarised)
    assert (row["maps"], row["seconds"], row["layers"]) == (4, 61.0, "4")
    assert row["cycle"]["cycle_error"] == 2e-6
    assert row["lost"] == pytest.approx({"mean": 0.02, "low": 0.0, "high": 0.05})


def test_points_carry_their_bars(summarised):
    forward, backward = interval_figures.method_means(summarised).data
    np.testing.assert_allclose(forward.x, [0.75, 0.8])
    np.testing.assert_allclose(forward.error_x.arrayminus, 0.03)
    np.testing.assert_allclose(backward.error_x.array, 0.02)
    assert all(a < b for a, b in zip(forward.y, backward.y, strict=True))


def test_curves_run_over_layers_beside_the_baseline(summarised):
    line = mean_record("ridge", 0, "both", 0.2)
    summarised["baseline_means"] = [
        line | {"source": "window length", "target_layer": layer} for layer in (3, 4)
    ]
    traces = interval_figures.layer_curves(summarised).data
    assert [trace.name for trace in traces] == [
        "INN (two-way)",
        "MLP (free)",
        "window length, ridge",
    ]
    assert all(list(trace.x) == [3, 4] for trace in traces)
    assert traces[2].line.dash == "dash"


@pytest.mark.parametrize("by", interval_figures.STRATA)
def test_strata_are_points_in_their_order(summarised, by):
    inn, mlp = interval_figures.stratum_points(summarised, by, (4, 4)).data
    assert list(inn.x) == ["1 to 9", "10 to 99"]
    np.testing.assert_allclose(mlp.y, [0.8, 0.5])
    np.testing.assert_allclose(mlp.error_y.array, 0.02)


def test_a_cell_prints_its_interval(summarised):
    cells = {"source_layer": 4, "target_layer": 4, "direction": "both", "n_pairs": 12}
    summarised["means"] = [mean_record("ridge", 4, "both", 0.5) | cells]
    heat_map, text = figures.layer_heat_map(summarised, "ridge").data
    assert sum("<br>0.47 to 0.52" in cell for cell in text.text) == 1
    assert "(0.470 to 0.520)" in heat_map.customdata[4][4]


def test_every_note_says_of_how_many(summarised):
    assert how_many(summarised["means"]) == (
        "n = 6 pairs of 4 models, 180 test documents, "
        "95 % bootstrap intervals over documents and seeds"
    )
    assert how_many([]) == ""


def test_the_page_holds_the_tables(summarised, tmp_path):
    page = write_report(summarised, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "INN (two-way) minus MLP (free)" in page
    assert "<td>2.0e-06<small>1.0e-06 to 3.0e-06</small></td>" in page
    assert "0.020<small>0.000 to 0.050</small>" in page
    assert "Tokens told apart by frequency and position" in page
    assert "95 % interval over documents and seeds in brackets" in page


@pytest.mark.parametrize(("n_pairs", "said"), [(6, "n = 6 pairs"), (12, "n = 12 directed pairs")])
def test_both_directions_of_a_pair_are_not_two_pairs(n_pairs, said):
    record = {"n_pairs": n_pairs, "n_seeds": 4, "over": ""}
    assert how_many([record]) == f"{said} of 4 models"


def test_lines_run_over_layers_whatever_the_order_of_training(summarised):
    records = [mean_record("INN (two-way)", layer, "both", 0.1 * layer) for layer in (4, 0, 2)]
    (line,) = interval_figures.layer_curves({"means": records}).data
    assert list(line.x) == [0, 2, 4]


def test_more_methods_than_colours_are_told_apart():
    styles = [tuple(line_style(place).items()) for place in range(10)]
    assert len(set(styles)) == 10


def test_a_map_that_was_trained_one_way_is_drawn_that_way(summarised):
    """The R2 of its inverse, of -7 or so, would carry the mean of both off the axis."""
    levels = {"forward": 0.5, "backward": -7.0, "both": -3.25}
    one_way = [
        mean_record("BERT-INN (forward)", layer, direction, level)
        for layer in (3, 4)
        for direction, level in levels.items()
    ]
    summarised["means"] += one_way
    *_, drawn = interval_figures.layer_curves(summarised).data
    np.testing.assert_allclose(drawn.y, [0.5, 0.5])


def test_curves_and_strata_say_what_lies_off_the_axis(summarised):
    summarised["means"].append(mean_record("Procrustes", 4, "both", -0.8))
    summarised["strata"][0]["mean"] = -0.9
    note = "; 1 values below -0.5, off the axis"
    curves = interval_figures.layer_curves(summarised)
    strata = interval_figures.stratum_points(summarised, "frequency", (4, 4))
    assert all(note in figure.layout.title.subtitle.text for figure in (curves, strata))


def test_the_mean_of_one_pair_of_layers_is_not_that_of_several(summarised):
    """Models of different depths have last layers of their own."""
    for record in summarised["scores"]:
        for side in ("source", "target"):
            if record[side] == "seed-0" and record[f"{side}_layer"] == 4:
                record[f"{side}_layer"] = 5
    rows = method_rows(fits(summarised), summarised)
    assert {row.forward.interval for row in rows} == {None}
    assert interval_figures.headline_means(summarised) == []


def test_a_null_that_meets_its_own_document_says_so(summarised):
    def reading():
        return panels.sections(summarised)["Pair by pair"][-1].reading

    assert "of one document" not in reading()
    summarised["corpus"]["null_same_document"] = {"train": 0.25, "test": 0.0}
    said = "25% of the wrong pairs are of one document, so chance alone would be lower."
    assert reading().endswith(said)


def test_strata_in_a_terminal_are_those_of_the_networks(summarised):
    closed = mean_record("least squares", 5, "both", 0.1)
    summarised["strata"].append(
        closed | {"by": "frequency", "stratum": "1 to 9", "rows": 3, "error_share": 0.5}
    )
    assert "layers 4 -> 4" in terminal.strata_table(summarised).title


def test_one_scored_text_has_no_interval():
    one = torch.tensor([1])
    scored = _intervals({"INN": one}, truth=one, target=one)["INN"]
    assert scored == {name: {"mean": 1.0} for name in ("accuracy", "agreement", "kept")}
    assert terminal._span(scored["kept"]) == "100.0%"
