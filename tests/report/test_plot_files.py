"""Figures as files: every one of the report, the same bytes from the same results."""

import numpy as np
import pytest
from PIL import Image

from fastinn.report import figures, matplotlib_drawing
from fastinn.report.matplotlib_drawing import drawn, plain
from fastinn.report.panels import sections
from fastinn.report.plot_files import write_plots


@pytest.fixture
def small(make_results):
    results = make_results(n_seeds=2, n_layers=1)
    return {name: results[name] for name in ("scores", "spectra", "null_bands", "training")}


def test_every_figure_of_the_report_is_a_file(small, tmp_path):
    written = write_plots(small, tmp_path / "plots", ["svg"])
    n = sum(len(panel.figures) for panels in sections(small).values() for panel in panels)
    assert len(written) == len(set(written)) == n
    assert sorted(tmp_path.glob("plots/*")) == sorted(written)
    assert all(path.read_text(encoding="utf-8").startswith("<?xml") for path in written)
    assert {"pairs.svg", "spectrum-1.svg", "layer-map-ridge.svg"} <= {p.name for p in written}


def test_equal_results_give_equal_files(small, tmp_path):
    only = {"spectra": small["spectra"], "null_bands": small["null_bands"]}
    one, other = (write_plots(only, tmp_path / name) for name in ("one", "other"))
    assert [path.suffix for path in one] == [".svg", ".png"]
    for first, second in zip(one, other, strict=True):
        assert first.read_bytes() == second.read_bytes()
    picture = np.asarray(Image.open(one[1]))
    assert picture.shape[1] == 1350
    assert picture.std() > 0


def test_a_heat_map_keeps_its_values_colours_and_titles(small):
    figure = figures.layer_heat_map(small, "ridge")
    axes, bar = drawn(figure).axes
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), figure.data[0].z)
    assert image.get_clim() == (0, 1)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("target layer", "source layer")
    assert bar.get_ylabel() == "held-out R² (no unit)"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # layer 0 on top
    assert [text.get_text() for text in axes.texts] == list(figure.data[1].text)


def test_lines_keep_their_points_and_bars(small):
    figure = figures.spectrum(small, 1)
    figure.add_scatter(
        x=[10, 20],
        y=[0.5, 0.6],
        error_y={"array": [0.1, None], "arrayminus": [0.2, None]},
        mode="markers",
        name="added",
    )
    (axes,) = drawn(figure).axes
    line = next(c for c in axes.containers if c.get_label() == "added")
    (bars,) = line.lines[2]
    np.testing.assert_allclose(bars.get_segments()[0], [(10, 0.3), (10, 0.6)])
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [
        "null band (pairing shifted), range over the pairs",
        "pairs of models (1)",
        "added",
    ]
    assert axes.get_ylim() == pytest.approx((-0.02, 1.02))


def test_boxes_stand_in_the_rows_of_their_methods(small):
    (axes,) = drawn(figures.score_boxes(small)).axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    linear = ["Procrustes", "CCA map", "least squares", "ridge"]
    assert names == [*linear, "MLP (free)", "INN (two-way)"]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in points) == sum(
        len(trace.x) for trace in figures.score_boxes(small).data
    )


def test_tags_and_signs_of_names_are_text():
    assert plain("a<br>b &lt;i&gt; $x$") == "a\nb <i> \\$x\\$"


def test_other_traces_are_refused(small):
    figure = figures.spectrum(small, 1).add_pie(values=[1])
    with pytest.raises(ValueError, match="'pie' traces are not drawn, expected scatter"):
        matplotlib_drawing.drawn(figure)


def test_results_without_figures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        write_plots({}, tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


def test_names_of_models_stay_in_the_folder(small, tmp_path):
    for record in small["scores"] + small["training"]:
        record["method"] = f"../../{record['method']}"
    written = write_plots(small, tmp_path / "plots", ["svg"])
    assert {path.parent for path in written} == {tmp_path / "plots"}
    assert all(path.exists() for path in written)
