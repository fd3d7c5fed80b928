"""Which layers the headline is of, and what is said of the others."""

import pytest

from fastinn.report import terminal, write_report
from fastinn.report.headline import headline_place, is_network
from fastinn.report.tables import cell_rows, fits, method_rows, sentences


def trained_at(results, *cells):
    """Return the results with networks at these pairs of layers in place of the last."""
    networks = [score for score in results["scores"] if is_network(score["method"])]
    others = [score for score in results["scores"] if not is_network(score["method"])]
    moved = [score | {"source_layer": i, "target_layer": j} for i, j in cells for score in networks]
    means = [
        {
            "method": method,
            "source_layer": i,
            "target_layer": j,
            "direction": way,
            "mean": 0.7,
            "n_pairs": 6,
            "n_seeds": 4,
            "over": "seeds",
        }
        for method in ("INN (two-way)", "ridge")
        for i, j in [*cells, (4, 4), (0, 0)]
        for way in ("forward", "backward", "both")
        if (i, j) in cells or not is_network(method)
    ]
    return results | {"scores": others + moved, "means": means}


@pytest.mark.parametrize(
    ("cells", "place", "layers"),
    [
        ([(4, 4)], "the last layer", {4}),
        ([(1, 1)], "layer 1", {1}),
        ([(1, 1), (3, 3)], "layer 3", {3}),
        ([(1, 1), (4, 4)], "the last layer", {4}),
        ([(1, 3)], "the last layer", {4}),
        ([], "the last layer", {4}),
    ],
)
def test_the_headline_is_of_the_last_layer_that_has_all_methods(results, cells, place, layers):
    found = trained_at(results, *cells)
    assert headline_place(found) == place
    assert {fit.forward["source_layer"] for fit in fits(found)} == layers
    assert {fit.forward["target_layer"] for fit in fits(found)} == layers


def test_the_last_layer_that_was_read_is_not_the_last_of_the_model(results):
    deeper = [model | {"n_layers": 6} for model in results["models"]]
    assert headline_place(results | {"models": deeper}) == "layer 4"


def test_what_was_trained_is_in_the_summary_wherever_it_was(results, tmp_path):
    found = trained_at(results, (1, 1))
    text = " ".join(sentences(method_rows(fits(found))))
    assert "INN (two-way), an invertible network, reaches" in text
    page = write_report(found, tmp_path / "report.html").read_text()
    assert "How much of layer 1 of one model can be computed" in page
    assert "at the last layer" not in page


@pytest.mark.parametrize("cells", [[(4, 4)], [(2, 2)], []])
def test_one_layer_needs_no_table_of_layers(results, cells):
    found = trained_at(results, *cells)
    assert cell_rows(found) == []
    assert terminal.cell_table(found).row_count == 0


@pytest.mark.parametrize("cells", [[(1, 1), (4, 4)], [(1, 3)], [(1, 1), (3, 1)]])
def test_every_layer_that_was_trained_has_its_rows(results, tmp_path, cells):
    found = trained_at(results, *cells)
    rows = cell_rows(found)
    shown = [(row["source_layer"], row["target_layer"], row["method"]) for row in rows]
    assert shown == [(i, j, name) for i, j in cells for name in ("INN (two-way)", "ridge")]
    assert all(row["forward"]["mean"] == row["backward"]["mean"] == 0.7 for row in rows)
    assert terminal.cell_table(found).row_count == len(rows)
    assert "Layer by layer</summary>" in write_report(found, tmp_path / "report.html").read_text()
