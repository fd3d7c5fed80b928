"""What all figures share: colours, names, error bars and the empty figure they begin with."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from fastinn.report.tables import number

# Okabe and Ito 2008: told apart with every common colour blindness, and readable on light and
# dark; without the yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
FORWARD, BACKWARD, MARK = COLOURS[:3]
_DASHES = ("solid", "dot")
NEUTRAL = "rgba(128,128,128,0.35)"
# Exploded inverses reach R2 of -1e4 and would flatten everything else.
R2_RANGE = {"clipmin": -0.5, "clipmax": 1.0}

# Lines of a legend that the height of a figure allows for, and pixels for each of the others.
_LEGEND_LINES, _LEGEND_LINE_HEIGHT = 4, 20
_LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def new_figure(title: str, note: str = "") -> go.Figure:
    """Return an empty figure.

    Args:
        title: What it shows.
        note: Of how many it is, and what its bars are; empty for none.
    """
    clear = "rgba(0,0,0,0)"
    figure = go.Figure(
        layout={
            "template": "none",
            "title": {"text": title, "x": 0.02, "font": {"size": 16}, "subtitle": {"text": note}},
            "height": 420,
            "margin": {"l": 12, "r": 12, "t": 108 if note else 88, "b": 12},
            "paper_bgcolor": clear,
            "plot_bgcolor": clear,
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "legend": _LEGEND,
            "modebar": {"bgcolor": clear, "color": "rgba(128,128,128,0.8)"},
            "hovermode": "closest",
        }
    )
    axis = {"automargin": True, "gridcolor": NEUTRAL, "zerolinecolor": NEUTRAL}
    return figure.update_xaxes(axis).update_yaxes(axis)


def grown_for_legend(figure: go.Figure) -> go.Figure:
    """Make a figure of many lines higher: in a narrow panel each has a line of the legend.

    Plotly would take that room from the plot.
    """
    n_lines = sum(trace.showlegend is not False for trace in figure.data)
    more = max(0, n_lines - _LEGEND_LINES) * _LEGEND_LINE_HEIGHT
    return figure.update_layout(height=figure.layout.height + more)


def label(name: Any) -> str:
    """Escape a name: plotly reads tags in every text it draws."""
    return html.escape(str(name))


def short(name: str, length: int = 16) -> str:
    """Cut a long name at its front, where hub ids are all alike."""
    return label(name if len(name) <= length else f"…{name[1 - length :]}")


def place(layer: Any) -> str:
    """Put a layer, or a layer and a head of it, in words."""
    return f"layer {layer[0]} head {layer[1]}" if isinstance(layer, tuple) else f"layer {layer}"


def opacity(n_lines: int) -> float:
    """Let a bundle of many lines show where it is dense."""
    return min(1.0, max(0.25, 12 / max(1, n_lines)))


def error_bars(spans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the bars of records with ``mean``, ``low`` and ``high``; none where these lack."""
    return {
        "array": [_reach(span, "high") for span in spans],
        "arrayminus": [_reach(span, "low") for span in spans],
        "thickness": 1,
        "width": 3,
    }


def _reach(span: Mapping[str, Any], end: str) -> float | None:
    distance = abs(number(span.get(end)) - number(span["mean"]))
    return distance if distance == distance else None


def off_axis(values: Iterable[float]) -> str:
    """Say how many scores lie to the left of what is drawn of R2, where any do."""
    n = sum(value < R2_RANGE["clipmin"] for value in values)
    return f"; {n} values below {R2_RANGE['clipmin']}, off the axis" if n else ""


def line_style(place: int) -> dict[str, Any]:
    """Return the line of one method among several; where colours recur, dots tell them apart."""
    dash = _DASHES[place // len(COLOURS) % len(_DASHES)]
    return {"color": COLOURS[place % len(COLOURS)], "width": 1.5, "dash": dash}


def how_many(means: Iterable[Mapping[str, Any]]) -> str:
    """Say of how many pairs, models and documents means are, and what their intervals are over."""
    means = list(means)
    if not means:
        return ""
    most = {
        name: max(record.get(name, 0) for record in means)
        for name in ("n_pairs", "n_seeds", "n_documents")
    }
    # More than there are pairs of models: both directions of each were counted.
    directed = "directed " if most["n_pairs"] > math.comb(most["n_seeds"], 2) else ""
    over = sorted({record["over"] for record in means} - {""}, key=len)
    parts = [
        f"n = {most['n_pairs']} {directed}pairs of {most['n_seeds']} models",
        f"{most['n_documents']:,} test documents" if most["n_documents"] else "",
        f"95 % bootstrap intervals over {' or '.join(over)}" if over else "",
    ]
    return ", ".join(part for part in parts if part)
