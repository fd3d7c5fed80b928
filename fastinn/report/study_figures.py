"""Figures of stitching and of attention, heads apart."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from fastinn.report.drawing import (
    NEUTRAL,
    error_bars,
    grown_for_legend,
    label,
    line_style,
    new_figure,
)
from fastinn.report.figures import pair_heat_map
from fastinn.report.tables import Results

SCORES = {
    "accuracy": "accuracy (share of texts)",
    "agreement": "agreement with the target (share of texts)",
    "kept": "accuracy over the target's own (no unit)",
}
"""Scores of stitching and the titles of their axes."""

# Room for the names of lines across, in pixels.
_NAMES_MARGIN = 130


def stitching_curves(results: Results, score: str) -> go.Figure:
    """Draw one score of every method against the layer at which two models are stitched.

    Args:
        results: Results with ``"stitching"``.
        score: One of :data:`SCORES`.

    Returns:
        A line a method with its bootstrap intervals, and lines across for both models by
        themselves and for whoever always names the commonest class.
    """
    found = results["stitching"]
    note = f"n = {found['data']['texts']:,} texts; bars are 95 % bootstrap intervals over them"
    figure = new_figure(f"Held-out {score} by the layer of the stitch", note)
    methods = list(dict.fromkeys(record["method"] for record in found["scores"]))
    for place, method in enumerate(methods):
        records = [record for record in found["scores"] if record["method"] == method]
        _add_method(figure, method, records, score, line_style(place))
    _add_levels(
        figure, {f"{role} itself": own[score]["mean"] for role, own in found["own"].items()}
    )
    if score in found["baseline"]:
        _add_levels(figure, {"commonest class": found["baseline"][score]})
    figure.update_xaxes(title="layer (0: embeddings)", dtick=1)
    figure.update_yaxes(title=SCORES[score])
    return grown_for_legend(figure)


def head_heat_map(results: Results, name: str) -> go.Figure:
    """Every head of every model with every head of the others, one block a pair of models.

    Args:
        results: Results with ``"heads"``.
        name: A method of its ``"scores"`` or a measure of its ``"similarities"``.

    Returns:
        A heat map as :func:`pair_heat_map`; a similarity is the same in both directions.
    """
    records = [_as_view(r) for r in results["heads"]["scores"] if r["method"] == name]
    for record in results["heads"]["similarities"]:
        if record["measure"] == name:
            records += _both_ways(record)
    figure = pair_heat_map({"scores": records}, name)
    if not any(record["fitted"] == "none" for record in records):
        return figure.update_layout(title_text=f"Held-out R² of {label(name)}, head to head")
    figure.update_traces(hovertemplate="%{y}<br>and %{x}<br>%{z:.3f}<extra></extra>")
    figure.data[0].colorbar.title.text = "similarity (no unit)"
    return figure.update_layout(title_text=f"Held-out {label(name)} of heads")


def _as_view(record: Mapping[str, Any]) -> dict[str, Any]:
    """Let layer and head together stand where a layer does."""
    views = {
        f"{side}_layer": (record[f"{side}_layer"], record[f"{side}_head"])
        for side in ("source", "target")
    }
    return {**record, **views}


def _both_ways(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    a, b = (
        (record[side], (record[f"layer_{side}"], record[f"head_{side}"])) for side in ("a", "b")
    )
    return [
        {
            "method": record["measure"],
            "source": source[0],
            "source_layer": source[1],
            "target": target[0],
            "target_layer": target[1],
            "r2": record["value"],
            "fitted": "none",
        }
        for source, target in ((a, b), (b, a))
    ]


def _add_method(
    figure: go.Figure, method: str, records: list[dict[str, Any]], score: str, style: dict[str, Any]
) -> None:
    spans = [record[score] for record in records]
    figure.add_scatter(
        x=[record["layer"] for record in records],
        y=[span["mean"] for span in spans],
        error_y=error_bars(spans),
        mode="lines+markers",
        name=label(method),
        line=style,
        hovertemplate=f"{label(method)}<br>layer %{{x}}: %{{y:.3f}}<extra></extra>",
    )


def _add_levels(figure: go.Figure, values: Mapping[str, float]) -> None:
    """Draw lines across, named beside the plot: the lowest below, for two may be close."""
    lowest = min(values, key=lambda name: values[name])
    for name, value in values.items():
        side = {"x": 1, "xanchor": "left", "yanchor": "top" if name == lowest else "bottom"}
        figure.add_hline(
            y=value,
            line={"color": NEUTRAL, "dash": "dash"},
            annotation={"text": label(name), **side},
        )
    figure.update_layout(margin_r=_NAMES_MARGIN)
