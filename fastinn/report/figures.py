"""One function a figure: from the results of a comparison to a plotly figure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fastinn.report.drawing import (
    BACKWARD,
    FORWARD,
    MARK,
    NEUTRAL,
    R2_RANGE,
    how_many,
    label,
    new_figure,
    off_axis,
    opacity,
    place,
    short,
)
from fastinn.report.headline import headline_place, last_layers
from fastinn.report.tables import Results, Summary, decimal, fits, number, summarise

# Above the map: beside it, the bar would take a quarter of a narrow window.
_COLOUR_BAR = {
    "orientation": "h",
    "y": 1.02,
    "yanchor": "bottom",
    "thickness": 10,
    "outlinewidth": 0,
    "title": {"side": "top"},
}
_DARK_TEXT_FROM = 0.47
_MAX_PRINTED_LAYERS = 8
_MAX_INTERVAL_LAYERS = 6
_MAX_POINTS_PER_BOX = 40

Cell = tuple[int, int]


def layer_heat_map(results: Results, method: str) -> go.Figure:
    """Directed layer x layer R2 of one method, mean over the directed pairs.

    Args:
        results: Results of a comparison.
        method: A method named in ``results["scores"]``.

    Returns:
        A heat map, source layers as rows and target layers as columns, colours from 0 to 1.
    """
    values: dict[Cell, list[float]] = {}
    for (_, _, *cell), r2 in _directed_scores(results, method).items():
        values.setdefault((cell[0], cell[1]), []).append(r2)
    means = {
        (record["source_layer"], record["target_layer"]): record
        for record in results.get("means", [])
        if (record["method"], record["direction"]) == (method, "both")
    }
    cells = {cell: summarise(group, means.get(cell)) for cell, group in values.items()}
    notes = {cell: f"R² {summary}" for cell, summary in cells.items()}
    figure = _heat_map(
        _layer_trace(cells, notes, "source layer %{y} → target layer %{x}"),
        f"Held-out R² of {label(method)}, mean over directed pairs",
        ("target layer", "source layer", "held-out R² (no unit)"),
        how_many(means.values()),
    )
    return _print_values(figure, cells)


def similarity_heat_map(results: Results, measure: str) -> go.Figure:
    """Layer x layer similarity by one symmetric measure, mean over the pairs.

    Args:
        results: Results of a comparison.
        measure: A measure named in ``results["similarities"]``.

    Returns:
        A heat map with colours from 0 to 1; the null value, from shifted pairing, is on hover.
    """
    values: dict[Cell, list[Any]] = {}
    for record in results["similarities"]:
        if record["measure"] == measure:
            cell = record["layer_a"], record["layer_b"]
            values.setdefault(cell, []).append((record["value"], record.get("null")))
    means = {
        (record["layer_a"], record["layer_b"]): record
        for record in results.get("similarity_means", [])
        if record["measure"] == measure
    }
    cells = {
        cell: summarise((value for value, _ in group), means.get(cell))
        for cell, group in values.items()
    }
    nulls = {cell: summarise(null for _, null in group) for cell, group in values.items()}
    notes = {
        cell: f"similarity {cells[cell]}<br>null {decimal(nulls[cell].mean)}" for cell in cells
    }
    figure = _heat_map(
        _layer_trace(cells, notes, "layers %{y} and %{x}"),
        f"Held-out {label(measure)}, mean over pairs",
        ("layer of the second model", "layer of the first model", "similarity (no unit)"),
        how_many(means.values()),
    )
    return _print_values(figure, cells)


def pair_heat_map(results: Results, method: str) -> go.Figure:
    """R2 of one method on every directed pair and layer cell, one block a pair.

    Args:
        results: Results of a comparison.
        method: A method named in ``results["scores"]``.

    Returns:
        A heat map: block rows are sources, block columns are targets, layers run within a block.
    """
    scores = _directed_scores(results, method)
    views = _views(results, scores)
    position = {view: index for index, view in enumerate(views)}
    z = np.full((len(views), len(views)), np.nan, dtype=np.float32)
    for (source, target, source_layer, target_layer), r2 in scores.items():
        z[position[source, source_layer], position[target, target_layer]] = r2
    labels = [f"{label(name)} {place(layer)}" for name, layer in views]
    trace = _colour_trace(z, labels, labels)
    trace.hovertemplate = "%{y}<br>→ %{x}<br>R² %{z:.3f}<extra></extra>"
    figure = _heat_map(
        trace,
        f"Held-out R² of {label(method)}, every directed pair",
        (
            "target model (layers run right)",
            "source model (layers run down)",
            "held-out R² (no unit)",
        ),
        f"n = {len({key[:2] for key in scores})} directed pairs, one value a cell",
    )
    _mark_blocks(figure, [name for name, _ in views])
    return figure.update_layout(height=640)


def score_boxes(results: Results) -> go.Figure:
    """Box plots over pairs of the held-out R2 at the headline's layers, one row a method.

    Args:
        results: Results of a comparison.

    Returns:
        Horizontal boxes, two a method: source to target, and back.
    """
    found = fits(results)
    n_pairs = len({(fit.source, fit.target) for fit in found})
    values = [number(r["r2"]) for fit in found for r in (fit.forward, fit.backward) if r]
    note = f"n = {n_pairs} pairs, a point each and a direction{off_axis(values)}"
    figure = new_figure(f"Held-out R² at {headline_place(results)}, over pairs", note)
    for name, colour, side in (
        ("source → target", FORWARD, "forward"),
        ("target → source", BACKWARD, "backward"),
    ):
        scored = [(fit, record) for fit in found if (record := getattr(fit, side))]
        figure.add_box(
            x=[number(record["r2"]) for _, record in scored],
            y=[label(fit.method) for fit, _ in scored],
            text=[label(f"{record['source']} → {record['target']}") for _, record in scored],
            name=name,
            orientation="h",
            boxpoints="all" if n_pairs <= _MAX_POINTS_PER_BOX else "outliers",
            pointpos=0,
            marker={"color": colour, "size": 5},
            hovertemplate="%{text}<br>R² %{x:.3f}<extra></extra>",
            hoveron="points",
        )
    figure.update_layout(boxmode="group", height=140 + 56 * len({fit.method for fit in found}))
    figure.update_xaxes(
        title="held-out R² (no unit)", rangemode="tozero", autorangeoptions=R2_RANGE
    )
    return figure.update_yaxes(title="method", autorange="reversed", showgrid=False)


def spectrum(results: Results, layer: int) -> go.Figure:
    """Canonical correlations of every pair at one layer beside their null band.

    Args:
        results: Results of a comparison.
        layer: A layer named in ``results["spectra"]``.

    Returns:
        One falling line a pair over the band that shifted pairing gives.
    """
    records = [record for record in results["spectra"] if record["layer"] == layer]
    note = f"n = {len(records)} pairs, a line each, on training rows"
    figure = new_figure(f"Canonical correlations at layer {layer}", note)
    for band in results.get("null_bands", []):
        if band["layer"] == layer:
            _add_band(figure, band)
    for index, record in enumerate(records):
        figure.add_scatter(
            y=[number(value) for value in record["correlations"]],
            x0=1,
            name=f"pairs of models ({len(records)})",
            legendgroup="pairs",
            showlegend=index == 0,
            line={"color": FORWARD, "width": 1.5},
            opacity=opacity(len(records)),
            text=[label(f"{record['a']} and {record['b']}")] * len(record["correlations"]),
            hovertemplate="%{text}<br>component %{x}: %{y:.3f}<extra></extra>",
        )
    figure.update_xaxes(title="canonical component (largest first)")
    return figure.update_yaxes(title="correlation (no unit)", range=[-0.02, 1.02])


def training_curves(results: Results, method: str) -> go.Figure:
    """Validation R2 of one method against training steps, both directions of every pair.

    Args:
        results: Results of a comparison.
        method: A method named in ``results["training"]``.

    Returns:
        Solid lines forward, dashed lines through the inverse, diamonds at the kept checkpoints.
    """
    records = [record for record in results["training"] if record["method"] == method]
    note = f"n = {len(records)} maps, a line and direction each"
    figure = new_figure(f"Validation R² of {label(method)} while training", note)
    for index, record in enumerate(records):
        for side, name, line in (
            ("forward_r2", "forward", {"color": FORWARD}),
            ("inverse_r2", "inverse", {"color": BACKWARD, "dash": "dash"}),
        ):
            if record.get(side):
                _add_curve(figure, record, side, name, line, opacity(len(records)), index == 0)
    _add_checkpoints(figure, records)
    figure.update_xaxes(title="training steps", rangemode="tozero")
    return figure.update_yaxes(title="validation R² (no unit)", autorangeoptions=R2_RANGE)


def grid_methods(results: Results) -> list[str]:
    """Return the methods that were scored on more than one layer cell."""
    cells: dict[str, set[Cell]] = {}
    for record in results.get("scores", []):
        cell = record["source_layer"], record["target_layer"]
        cells.setdefault(record["method"], set()).add(cell)
    return [method for method, seen in cells.items() if len(seen) > 1]


def _directed_scores(results: Results, method: str) -> dict[tuple[str, str, int, int], float]:
    """Return R2 by source, target and their layers; a map fitted that way beats an inverse."""
    records = [record for record in results["scores"] if record["method"] == method]
    records.sort(key=lambda record: record["fitted"] == "direct")
    return {
        (r["source"], r["target"], r["source_layer"], r["target_layer"]): number(r["r2"])
        for r in records
    }


def _views(results: Results, scores: Iterable[tuple[str, str, int, int]]) -> list[tuple[str, int]]:
    """Return every model and layer in the keys of directed scores, models as they appear."""
    order = list(last_layers(results["scores"]))
    seen = {view for s, t, *layers in scores for view in zip((s, t), layers, strict=True)}
    return sorted(seen, key=lambda view: (order.index(view[0]), view[1]))


def _colour_trace(z: np.ndarray, columns: Sequence[Any], rows: Sequence[Any]) -> go.Heatmap:
    """Return a heat map whose colours always span 0 to 1; values outside keep their number."""
    return go.Heatmap(
        z=z,
        x=columns,
        y=rows,
        zmin=0,
        zmax=1,
        colorscale="Cividis",
        xgap=1 if len(columns) <= _MAX_PRINTED_LAYERS else 0,
        ygap=1 if len(rows) <= _MAX_PRINTED_LAYERS else 0,
        hoverongaps=False,
        colorbar=_COLOUR_BAR,
    )


def _layer_trace(
    cells: Mapping[Cell, Summary], notes: Mapping[Cell, str], place: str
) -> go.Heatmap:
    """Return a layer x layer heat map of means; on hover, the place and the cell's note."""
    rows, columns = (sorted({cell[side] for cell in cells}) for side in (0, 1))
    z = np.full((len(rows), len(columns)), np.nan, dtype=np.float32)
    hover = [["" for _ in columns] for _ in rows]
    for (row, column), summary in cells.items():
        z[rows.index(row), columns.index(column)] = summary.mean
        hover[rows.index(row)][columns.index(column)] = notes[row, column]
    trace = _colour_trace(z, columns, rows)
    trace.customdata = hover
    trace.hovertemplate = f"{place}<br>%{{customdata}}<extra></extra>"
    return trace


def _print_values(figure: go.Figure, cells: Mapping[Cell, Summary]) -> go.Figure:
    """Print the means in their cells, unless there are too many to read."""
    if len({layer for cell in cells for layer in cell}) > _MAX_PRINTED_LAYERS:
        return figure
    means = [summary.mean for summary in cells.values()]
    wide = len({column for _, column in cells}) <= _MAX_INTERVAL_LAYERS
    return figure.add_scatter(
        x=[column for _, column in cells],
        y=[row for row, _ in cells],
        text=[_printed(summary, wide) for summary in cells.values()],
        mode="text",
        # Plotly's own choice of colour falls to a contrast of 3 in the middle of the scale.
        textfont={
            "size": 11,
            "color": ["black" if mean > _DARK_TEXT_FROM else "white" for mean in means],
        },
        hoverinfo="skip",
        showlegend=False,
    )


def _printed(summary: Summary, wide: bool) -> str:
    """Print a mean, and below it its interval if the cell is wide enough."""
    mean = decimal(summary.mean, 2)
    if not wide or summary.interval is None:
        return mean
    low, high = (decimal(end, 2) for end in summary.interval)
    return f"{mean}<br>{low} to {high}"


def _heat_map(
    trace: go.Heatmap, title: str, axes: tuple[str, str, str], note: str = ""
) -> go.Figure:
    """Return the figure of a heat map; ``axes`` are the titles of x, y and the colours."""
    x_title, y_title, trace.colorbar.title.text = axes
    figure = new_figure(title, note).add_trace(trace)
    # Clear of the labels: plotly lets a short title slip in between two of them.
    figure.update_xaxes(type="category", title=x_title, title_standoff=30, showgrid=False)
    return figure.update_yaxes(type="category", title=y_title, showgrid=False, autorange="reversed")


def _mark_blocks(figure: go.Figure, owners: Sequence[str]) -> None:
    """Name each run of equal ``owners`` on both axes and draw lines between the runs."""
    names = list(dict.fromkeys(owners))
    starts = [owners.index(name) for name in names]
    ends = [*starts[1:], len(owners)]
    ticks = {
        "tickmode": "array",
        "tickvals": [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)],
        "ticktext": [short(name) for name in names],
        "ticks": "",
    }
    figure.update_xaxes(ticks).update_yaxes(ticks)
    for start in starts[1:]:
        figure.add_vline(x=start - 0.5, line={"color": "white", "width": 2})
        figure.add_hline(y=start - 0.5, line={"color": "white", "width": 2})


def _add_band(figure: go.Figure, band: Mapping[str, Sequence[float | None]]) -> None:
    # Of one pair the band is a line, which only its edge shows.
    edge = {"x0": 1, "mode": "lines", "line": {"width": 1, "color": NEUTRAL}, "hoverinfo": "skip"}
    figure.add_scatter(y=[number(value) for value in band["low"]], showlegend=False, **edge)
    figure.add_scatter(
        y=[number(value) for value in band["high"]],
        name="null band (pairing shifted), range over the pairs",
        fill="tonexty",
        fillcolor=NEUTRAL,
        **edge,
    )


def _add_curve(
    figure: go.Figure,
    record: Mapping[str, Any],
    side: str,
    name: str,
    line: dict[str, Any],
    opacity: float,
    in_legend: bool,
) -> None:
    figure.add_scatter(
        x=record["steps"],
        y=[number(value) for value in record[side]],
        mode="lines",
        line={"width": 1.5, **line},
        name=name,
        legendgroup=name,
        showlegend=in_legend,
        opacity=opacity,
        text=[label(f"{record['a']} → {record['b']}, {_layers_of(record)}")] * len(record["steps"]),
        hovertemplate=f"%{{text}}<br>{name} R² %{{y:.3f}} at step %{{x}}<extra></extra>",
    )


def _layers_of(record: Mapping[str, Any]) -> str:
    layer, target = record["layer"], record.get("target_layer", record["layer"])
    return f"layer {layer}" if layer == target else f"layer {layer} to {target}"


def _add_checkpoints(figure: go.Figure, records: Iterable[Mapping[str, Any]]) -> None:
    """Mark the best step on every curve that has it."""
    points = [
        (record["best_step"], number(record[side][record["steps"].index(record["best_step"])]))
        for record in records
        if record.get("best_step") in record["steps"]
        for side in ("forward_r2", "inverse_r2")
        if record.get(side)
    ]
    figure.add_scatter(
        x=[step for step, _ in points],
        y=[value for _, value in points],
        mode="markers",
        name="checkpoint kept",
        marker={"symbol": "diamond", "size": 9, "color": MARK},
        hovertemplate="checkpoint kept at step %{x}<br>R² %{y:.3f}<extra></extra>",
    )
