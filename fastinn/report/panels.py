"""Which figures there are of some results, in the order in which a reader wants them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from fastinn.report import figures, interval_figures, study_figures
from fastinn.report.headline import headline_place
from fastinn.report.tables import Results


@dataclass(frozen=True)
class Panel:
    """One figure, or several that a menu chooses from.

    Attributes:
        name: What files of its figures are called.
        title: Heading.
        reading: How to read it.
        figures: By their name in the menu.
        choice: What the menu chooses.
        folded: Whether it is hidden until it is asked for.
        shown: Which of several figures is shown at first, if it is there; else the first.
    """

    name: str
    title: str
    reading: str
    figures: dict[str, go.Figure]
    choice: str = ""
    folded: bool = False
    shown: str = ""

    @property
    def height(self) -> int:
        """Height of the tallest figure in pixels, kept free before it is drawn."""
        return max(figure.layout.height for figure in self.figures.values())


def sections(results: Results) -> dict[str, list[Panel]]:
    """Return the panels of every section that has any."""
    found = {
        "Method by method": [*_mean_panels(results), *_strata_panels(results)],
        "Layer by layer": [
            *_curve_panels(results),
            *_layer_panels(results),
            *_similarity_panels(results),
            *_block_panels(results),
        ],
        "Head by head": _head_panels(results),
        "Stitching": _stitching_panels(results),
        "Pair by pair": _pair_panels(results),
        "Training": _training_panels(results),
    }
    return {heading: panels for heading, panels in found.items() if panels}


def _mean_panels(results: Results) -> Iterator[Panel]:
    if interval_figures.headline_means(results):
        yield Panel(
            "means",
            f"Mean over pairs at {headline_place(results)}",
            "Bars are 95 % bootstrap intervals of the mean. Methods whose bars meet may still "
            "differ surely: see the table of differences, whose resamples are paired.",
            {"R²": interval_figures.method_means(results)},
        )


def _strata_panels(results: Results) -> Iterator[Panel]:
    for by in interval_figures.STRATA:
        cells = dict.fromkeys(
            (record["source_layer"], record["target_layer"])
            for record in results.get("strata", [])
            if record["by"] == by
        )
        if cells:
            yield Panel(
                f"strata-{by}",
                f"Tokens told apart by {by}",
                "One minus squared error over the squared deviation from the mean of all held-out "
                "tokens, so that the strata's errors add up to the whole. Lower points are tokens "
                "that the two models share less of.",
                {
                    f"layer {i} to {j}": interval_figures.stratum_points(results, by, (i, j))
                    for i, j in cells
                },
                "Layers",
            )


def _curve_panels(results: Results) -> Iterator[Panel]:
    layers = {record["source_layer"] for record in interval_figures.same_layer_means(results)}
    if len(layers) > 1:
        yield Panel(
            "layers",
            "From a layer to the same layer",
            "Mean over directed pairs; of a map that was trained one way, that way. Where rows "
            "were kept, at the layers of the networks, bars are over documents and seeds; "
            "elsewhere over seeds alone, if there are four.",
            {"R²": interval_figures.layer_curves(results)},
        )


def _layer_panels(results: Results) -> Iterator[Panel]:
    methods = figures.grid_methods(results)
    if not methods:
        return
    yield Panel(
        "layer-map",
        "Held-out R² from layer to layer",
        "Read along a row: how much of each target layer the source layer explains. "
        "1 is exact, 0 is no better than the mean; negative values take the colour of 0.",
        {method: figures.layer_heat_map(results, method) for method in methods},
        "Method",
        shown="least squares",
    )


def _block_panels(results: Results) -> Iterator[Panel]:
    methods = figures.grid_methods(results)
    if not methods:
        return
    yield Panel(
        "pair-map",
        "Held-out R² of every directed pair",
        "Each block is one source (row) and target (column), its layers counted from the top left "
        "corner; blank cells were not run. Drag to zoom.",
        {method: figures.pair_heat_map(results, method) for method in methods},
        "Method",
        folded=True,
        shown="least squares",
    )


def _similarity_panels(results: Results) -> Iterator[Panel]:
    measures = named(results, "similarities", "measure")
    if measures:
        yield Panel(
            "similarity-map",
            "Similarity of layers, no map fitted",
            "Brighter layers share more; compare each value with its null, which the same "
            "measure gives for wrongly paired tokens (point at a cell)."
            + _own_document(results, "test"),
            {measure: figures.similarity_heat_map(results, measure) for measure in measures},
            "Measure",
        )


def _head_panels(results: Results) -> list[Panel]:
    heads = results.get("heads", {})
    names = [*named(heads, "scores", "method"), *named(heads, "similarities", "measure")]
    if not names:
        return []
    maps = Panel(
        "head-map",
        "Attention of every head with every other",
        "Each block is one pair of models, its heads counted from the top left corner, layer by "
        "layer. Heads share the length of a window in any case: compare with the baseline.",
        {name: study_figures.head_heat_map(results, name) for name in names},
        "Method or measure",
        shown="linear CKA",
    )
    return [maps]


def _stitching_panels(results: Results) -> list[Panel]:
    if not results.get("stitching", {}).get("scores"):
        return []
    curves = Panel(
        "stitching",
        "One model up to a layer, another from there on",
        "Where a line reaches that of the target itself, nothing the target needs was lost. Bars "
        "are 95 % bootstrap intervals over texts.",
        {score: study_figures.stitching_curves(results, score) for score in study_figures.SCORES},
        "Score",
    )
    return [curves]


def _pair_panels(results: Results) -> list[Panel]:
    panels = []
    if results.get("scores"):
        boxes = Panel(
            "pairs",
            f"Spread over pairs at {headline_place(results)}",
            "Each point is one pair; a box far to the right in both colours is a method that "
            "works both ways. Values below -0.5 lie off the axis.",
            {"R²": figures.score_boxes(results)},
        )
        panels.append(boxes)
    layers = named(results, "spectra", "layer")
    if layers:
        spectra = Panel(
            "spectrum",
            "Canonical-correlation spectrum",
            "Where a line runs above the grey band, two models share more directions than "
            "chance gives at this sample size." + _own_document(results, "train"),
            {str(layer): figures.spectrum(results, layer) for layer in layers},
            "Layer",
        )
        panels.append(spectra)
    return panels


def _own_document(results: Results, split: str) -> str:
    """Say how many wrong pairs are still of one document, which makes the null cautious."""
    share = results.get("corpus", {}).get("null_same_document", {}).get(split, 0)
    if not share:
        return ""
    return f" {share:.0%} of the wrong pairs are of one document, so chance alone would be lower."


def _training_panels(results: Results) -> list[Panel]:
    methods = named(results, "training", "method")
    if not methods:
        return []
    curves = {method: figures.training_curves(results, method) for method in methods}
    reading = (
        "Lines that are still rising at the diamond had not finished learning; "
        "step 0 is the closed-form start. Values below -0.5 lie off the axis."
    )
    return [Panel("training", "Validation R² while training", reading, curves, "Method")]


def named(results: Results, part: str, key: str) -> list[Any]:
    """Return the distinct values of ``key`` in one part of the results, in order."""
    return list(dict.fromkeys(record[key] for record in results.get(part, [])))
