"""One self-contained HTML page from the results of a comparison."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from fastinn._saved import write_whole
from fastinn.report import figures, study_figures
from fastinn.report.tables import Results, decimal, fits, method_rows, sentences, summarise


@dataclass(frozen=True)
class Panel:
    """One place on the page for a figure, or for several that a menu chooses from."""

    title: str
    reading: str
    figures: dict[str, go.Figure]
    choice: str = ""
    folded: bool = False
    shown: str = ""
    """Which of several figures is shown at first, if it is there; else the first."""

    @property
    def height(self) -> int:
        """Height of the tallest figure in pixels, kept free before it is drawn."""
        return max(figure.layout.height for figure in self.figures.values())

    @cached_property
    def plots(self) -> dict[str, Markup]:
        """JSON of each figure by its name in the menu, safe inside a script element."""
        return {name: _json(figure) for name, figure in self.figures.items()}


def write_report(results: Results, path: str | os.PathLike[str]) -> Path:
    """Write the results of a comparison as one HTML page that works offline.

    Parts that ``results`` does not hold are left out.

    Args:
        results: Results of a comparison, as read from its ``results.json``.
        path: File to write. A file that is there is replaced in one step, or left as it was.

    Returns:
        The path written.

    Raises:
        OSError: If the file cannot be written, for instance on a full disk.
    """
    path = Path(path)
    write_whole(path, _render(results).encode(errors="replace"))
    return path


def _render(results: Results) -> str:
    environment = Environment(
        loader=PackageLoader("fastinn", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["decimal"] = decimal
    environment.filters["mean"] = lambda values: summarise(values).mean
    found = fits(results)
    rows = method_rows(found)
    return environment.get_template("template.html").render(
        title=results.get("title", "fastinn report"),
        summary=sentences(rows),
        what_was_run=_what_was_run(results),
        rows=rows,
        fits=found,
        sections=_sections(results),
        results=results,
        settings=dict(_flatten(results.get("settings", {}))),
        plotlyjs=Markup(get_plotlyjs()),
    )


def _sections(results: Results) -> dict[str, list[Panel]]:
    """Return the panels of every section that has any."""
    sections = {
        "Layer by layer": [
            *_layer_panels(results),
            *_similarity_panels(results),
            *_block_panels(results),
        ],
        "Head by head": _head_panels(results),
        "Stitching": _stitching_panels(results),
        "Pair by pair": _pair_panels(results),
        "Training": _training_panels(results),
    }
    return {heading: panels for heading, panels in sections.items() if panels}


def _layer_panels(results: Results) -> Iterator[Panel]:
    methods = figures.grid_methods(results)
    if not methods:
        return
    yield Panel(
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
        "Held-out R² of every directed pair",
        "Each block is one source (row) and target (column), its layers counted from the top left "
        "corner; blank cells were not run. Drag to zoom.",
        {method: figures.pair_heat_map(results, method) for method in methods},
        "Method",
        folded=True,
        shown="least squares",
    )


def _similarity_panels(results: Results) -> Iterator[Panel]:
    measures = _named(results, "similarities", "measure")
    if measures:
        yield Panel(
            "Similarity of layers, no map fitted",
            "Brighter layers share more; compare each value with its null, which the same "
            "measure gives for wrongly paired tokens (point at a cell).",
            {measure: figures.similarity_heat_map(results, measure) for measure in measures},
            "Measure",
        )


def _head_panels(results: Results) -> list[Panel]:
    heads = results.get("heads", {})
    names = [*_named(heads, "scores", "method"), *_named(heads, "similarities", "measure")]
    if not names:
        return []
    maps = Panel(
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
            "Spread over pairs at the last layer",
            "Each point is one pair; a box far to the right in both colours is a method that "
            "works both ways. Values below -0.5 lie off the axis.",
            {"R²": figures.score_boxes(results)},
        )
        panels.append(boxes)
    layers = _named(results, "spectra", "layer")
    if layers:
        spectra = Panel(
            "Canonical-correlation spectrum",
            "Where a line runs above the grey band, two models share more directions than "
            "chance gives at this sample size.",
            {str(layer): figures.spectrum(results, layer) for layer in layers},
            "Layer",
        )
        panels.append(spectra)
    return panels


def _training_panels(results: Results) -> list[Panel]:
    methods = _named(results, "training", "method")
    if not methods:
        return []
    curves = {method: figures.training_curves(results, method) for method in methods}
    reading = (
        "Lines that are still rising at the diamond had not finished learning; "
        "step 0 is the closed-form start. Values below -0.5 lie off the axis."
    )
    return [Panel("Validation R² while training", reading, curves, "Method")]


def _named(results: Results, part: str, key: str) -> list[Any]:
    """Return the distinct values of ``key`` in one part of the results, in order."""
    return list(dict.fromkeys(record[key] for record in results.get(part, [])))


def _what_was_run(results: Results) -> str:
    """Say in one line what the page reports on."""
    models, corpus = results.get("models", []), results.get("corpus", {})
    tokens = corpus.get("tokens", {})
    parts = [
        f"{len(models)} models" if models else "",
        f"corpus {corpus['name']}" if "name" in corpus else "",
        ", ".join(f"{count:,} {split} tokens" for split, count in tokens.items()),
        f"{results['seconds']:.0f} seconds" if "seconds" in results else "",
        str(results.get("created", "")),
    ]
    return " · ".join(part for part in parts if part)


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings as dotted names and plain values."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _json(figure: go.Figure) -> Markup:
    """Return a figure as JSON without its title, which the page sets as a heading."""
    bare = go.Figure(figure).update_layout(title=None, margin_t=40)
    # "<" would let a model's name end the script element; in JSON it only occurs within strings.
    return Markup(bare.to_json().replace("<", "\\u003c"))
