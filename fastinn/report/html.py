"""One self-contained HTML page from the results of a comparison."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from fastinn._saved import write_whole
from fastinn.report.costs import cost_rows
from fastinn.report.headline import headline_place
from fastinn.report.interval_figures import STRATA
from fastinn.report.panels import sections
from fastinn.report.tables import (
    Results,
    brackets,
    cell_rows,
    decimal,
    differences,
    fits,
    method_rows,
    sentences,
    strata_tables,
    summarise,
)


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
    environment.filters["json"] = _json
    environment.filters["mean"] = lambda values: summarise(values).mean
    found = fits(results)
    rows = method_rows(found, results)
    return environment.get_template("template.html").render(
        title=results.get("title", "fastinn report"),
        summary=sentences(rows),
        place=headline_place(results),
        brackets=brackets(rows),
        what_was_run=_what_was_run(results),
        rows=rows,
        fits=found,
        sections=sections(results),
        cells=cell_rows(results),
        differences=differences(results),
        costs=list(cost_rows(results)),
        strata=strata_tables(results),
        properties=STRATA,
        results=results,
        settings=dict(_flatten(results.get("settings", {}))),
        plotlyjs=Markup(get_plotlyjs()),
    )


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
    """Return a figure as JSON; the page sets its title as a heading, and its note below that."""
    note = figure.layout.title.subtitle.text or ""
    bare = go.Figure(figure).update_layout(title=None, margin_t=40, meta={"note": note})
    # Without a standoff plotly draws the title of an axis over its longer labels.
    bare.update_yaxes(title_standoff=12)
    # "<" would let a model's name end the script element; in JSON it only occurs within strings.
    return Markup(bare.to_json().replace("<", "\\u003c"))
