"""Figures of means over pairs with their intervals: by method, by layer and by stratum."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from fastinn.report.drawing import (
    BACKWARD,
    FORWARD,
    R2_RANGE,
    error_bars,
    grown_for_legend,
    how_many,
    label,
    line_style,
    new_figure,
    off_axis,
)
from fastinn.report.headline import cell_of, headline_place
from fastinn.report.tables import Results, fits, number
from fastinn.study.records import is_one_way

Record = Mapping[str, Any]

STRATA = {
    "frequency": "times the token was trained on",
    "position": "position of the token in its document",
}
"""Properties that strata are of, and the titles of their axes."""

_APART = 0.14


def method_means(results: Results) -> go.Figure:
    """Mean R2 of each method at the headline's layers with its interval, a point a direction.

    Args:
        results: Results of a comparison with ``"means"``.

    Returns:
        A row a method; both directions lie one above the other.
    """
    means = headline_means(results)
    methods = list(dict.fromkeys(record["method"] for record in means))
    shown = [record for record in means if record["direction"] != "both"]
    note = how_many(shown) + off_axis(number(record["mean"]) for record in shown)
    figure = new_figure(f"Held-out R² at {headline_place(results)}, mean over pairs", note)
    for name, direction, colour, shift in (
        ("source → target", "forward", FORWARD, -_APART),
        ("target → source", "backward", BACKWARD, _APART),
    ):
        records = [record for record in means if record["direction"] == direction]
        figure.add_scatter(
            x=[number(record["mean"]) for record in records],
            y=[methods.index(record["method"]) + shift for record in records],
            error_x=error_bars(records),
            mode="markers",
            name=name,
            marker={"color": colour, "size": 8},
            text=[label(f"{r['method']}: {_interval(r)}") for r in records],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_layout(height=160 + 40 * len(methods))
    figure.update_xaxes(title="held-out R² (no unit)", autorangeoptions=R2_RANGE)
    ticks = {"tickvals": [*range(len(methods))], "ticktext": [label(m) for m in methods]}
    return figure.update_yaxes(
        title="method", autorange="reversed", showgrid=False, zeroline=False, **ticks
    )


def headline_means(results: Results) -> list[Record]:
    """Return the means at the pair of layers that the table of methods is of.

    There are none where that table is of several, as it is of models of different depths.
    """
    cells = {cell_of(fit.forward) for fit in fits(results)}
    if len(cells) > 1:
        return []
    return [record for record in results.get("means", []) if cell_of(record) in cells]


def layer_curves(results: Results) -> go.Figure:
    """Mean R2 of each method from a layer to the same layer, with its interval.

    Args:
        results: Results of a comparison with ``"means"``; what a ``"baseline"`` explains of a
            target layer is drawn beside it.

    Returns:
        A line a method, dashed for a baseline.
    """
    means = same_layer_means(results)
    note = how_many(means) + off_axis(number(record["mean"]) for record in means)
    figure = new_figure("Held-out R² from a layer to the same layer", note)
    lines = _by(means, "method")
    baseline = _by(results.get("baseline_means", []), "method")
    for place, (method, records) in enumerate(lines.items()):
        _add_line(figure, method, "source_layer", records, line_style(place))
    for method, records in baseline.items():
        style = line_style([*lines, method].index(method)) | {"dash": "dash"}
        _add_line(figure, f"{records[0]['source']}, {method}", "target_layer", records, style)
    figure.update_xaxes(title="layer", dtick=1)
    figure.update_yaxes(title="held-out R² (no unit)", autorangeoptions=R2_RANGE)
    return grown_for_legend(figure)


def same_layer_means(results: Results) -> list[Record]:
    """Return the means from a layer to the same layer, over those directions that were trained."""
    found = [
        record
        for record in results.get("means", [])
        if record["direction"] == ("forward" if is_one_way(record["method"]) else "both")
        and record["source_layer"] == record["target_layer"]
    ]
    # Networks were trained in the order in which their layers were named.
    return sorted(found, key=lambda record: record["source_layer"])


def stratum_points(results: Results, by: str, cell: tuple[Any, Any]) -> go.Figure:
    """R2 of the tokens of each stratum with its interval, a line a method.

    Args:
        results: Results of a comparison with ``"strata"``.
        by: One of :data:`STRATA`.
        cell: Source and target layer.

    Returns:
        Points from the rarest or first tokens to the commonest or last ones.
    """
    records = strata_records(results, by, cell)
    note = how_many(records) + off_axis(number(record["mean"]) for record in records)
    figure = new_figure(f"Held-out R² by {STRATA[by]}", note)
    for place, (method, of_method) in enumerate(_by(records, "method").items()):
        _add_line(figure, method, "stratum", of_method, line_style(place))
    figure.update_xaxes(title=f"{STRATA[by]} (count)", type="category")
    figure.update_yaxes(title="held-out R² (no unit)", autorangeoptions=R2_RANGE)
    return grown_for_legend(figure)


def strata_records(results: Results, by: str, cell: tuple[Any, Any]) -> list[Record]:
    """Return the records of the strata of one property at one pair of layers."""
    return [
        record
        for record in results.get("strata", [])
        if (record["by"], record["source_layer"], record["target_layer"]) == (by, *cell)
    ]


def _by(records: Iterable[Record], name: str) -> dict[Any, list[Record]]:
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(record[name], []).append(record)
    return found


def _add_line(
    figure: go.Figure,
    name: str,
    side: str,
    records: Sequence[Record],
    style: Mapping[str, Any],
) -> None:
    """Draw what records say of the places that their entry ``side`` names."""
    figure.add_scatter(
        x=[record[side] for record in records],
        y=[number(record["mean"]) for record in records],
        error_y=error_bars(records),
        mode="lines+markers",
        name=label(name),
        line=style,
        text=[label(f"{name}: {_interval(record)}") for record in records],
        hovertemplate="%{text}<extra></extra>",
    )


def _interval(record: Record) -> str:
    mean = f"{number(record['mean']):.3f}"
    return f"{mean} ({record['low']:.3f} to {record['high']:.3f})" if "low" in record else mean
