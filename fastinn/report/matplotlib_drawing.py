"""Draw a plotly figure by matplotlib, which needs no browser: the traces that figures here use."""

import html
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

_PIXELS_AN_INCH = 100
_WIDTH = 9.0
_DASHES = {"dash": "--", "dot": ":", None: "-", "solid": "-"}
_LINE, _MARKER = 1.5, 5.0


def drawn(figure: go.Figure) -> Figure:
    """Return a plotly figure of scatter, heat map and box traces as a matplotlib figure.

    Raises:
        ValueError: If it holds a trace of another kind.
    """
    strange = [trace.type for trace in figure.data if trace.type not in _TRACES]
    if strange:
        raise ValueError(f"{strange[0]!r} traces are not drawn, expected {', '.join(_TRACES)}")
    height = (figure.layout.height or 420) / _PIXELS_AN_INCH
    found = Figure(figsize=(_WIDTH, height + 0.6), layout="constrained")
    axes = found.add_subplot()
    positions = _Positions(figure)
    for place, trace in enumerate(figure.data):
        _TRACES[trace.type](axes, figure, place, positions)
    _add_lines(axes, figure)
    _finish(axes, figure, positions)
    return found


class _Positions:
    """Where categories lie on both axes: at 0, 1 and so on, as plotly has it."""

    def __init__(self, figure: go.Figure) -> None:
        self.names = {side: self._categories(figure, side) for side in ("x", "y")}

    @staticmethod
    def _categories(figure: go.Figure, side: str) -> list[Any]:
        values = [v for t in figure.data if t[side] is not None for v in t[side]]
        is_category = figure.layout[f"{side}axis"].type == "category"
        if is_category or any(isinstance(value, str) for value in values):
            return list(dict.fromkeys(values))
        return []

    def of(self, side: str, values: Sequence[Any]) -> np.ndarray:
        """Return the positions of values, which are themselves where there are no categories."""
        names = self.names[side]
        if names:
            return np.array([names.index(value) for value in values], dtype=float)
        return np.array([np.nan if value is None else value for value in values], dtype=float)


def _scatter(axes: Axes, figure: go.Figure, place: int, positions: _Positions) -> None:
    trace = figure.data[place]
    y = positions.of("y", trace.y)
    counted = np.arange(len(y)) + float(trace.x0 or 0)
    x = counted if trace.x is None else positions.of("x", trace.x)
    if trace.mode == "text":
        _print(axes, trace, x, y)
        return
    if trace.fill == "tonexty":
        below = positions.of("y", figure.data[place - 1].y)
        n = min(len(below), len(y))
        axes.fill_between(
            x[:n], below[:n], y[:n], color=_colour(trace.fillcolor), lw=1, label=_named(trace)
        )
        return
    _plot(axes, trace, x, y)


def _plot(axes: Axes, trace: go.Scatter, x: np.ndarray, y: np.ndarray) -> None:
    mode = trace.mode or "lines"
    diamond = trace.marker.symbol == "diamond"
    axes.errorbar(
        x,
        y,
        xerr=_reach(trace.error_x),
        yerr=_reach(trace.error_y),
        color=_colour(trace.line.color or trace.marker.color),
        alpha=trace.opacity,
        linestyle=_DASHES.get(trace.line.dash, "-") if "lines" in mode else "none",
        linewidth=trace.line.width or _LINE,
        marker=("D" if diamond else "o") if "markers" in mode else None,
        markersize=_MARKER,
        elinewidth=1,
        capsize=2,
        label=_named(trace),
    )


def _reach(bars: Any) -> np.ndarray | None:
    """Return how far error bars reach down and up, shape ``(2, n)``; ``None`` for no bars."""
    if bars.array is None:
        return None
    ends = [[np.nan if v is None else v for v in side] for side in (bars.arrayminus, bars.array)]
    return np.array(ends, dtype=float)


def _print(axes: Axes, trace: go.Scatter, x: np.ndarray, y: np.ndarray) -> None:
    for place, text in enumerate(trace.text):
        drawn_text = axes.text(x[place], y[place], plain(text), ha="center", va="center")
        drawn_text.set(fontsize=8, color=trace.textfont.color[place])


def _heat_map(axes: Axes, figure: go.Figure, place: int, positions: _Positions) -> None:
    trace = figure.data[place]
    image = axes.imshow(
        np.ma.masked_invalid(np.asarray(trace.z, dtype=float)),
        cmap="cividis",
        vmin=trace.zmin,
        vmax=trace.zmax,
        aspect="auto",
        interpolation="nearest",
    )
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(plain(trace.colorbar.title.text or ""))
    bar.outline.set_visible(False)


def _box(axes: Axes, figure: go.Figure, place: int, positions: _Positions) -> None:
    """Draw horizontal boxes, those of one trace beside those of the others, and their points."""
    trace = figure.data[place]
    n = sum(other.type == "box" for other in figure.data)
    width = 0.8 / n
    rows, values = positions.of("y", trace.y), positions.of("x", trace.x)
    colour = _colour(trace.marker.color)
    for row in np.unique(rows):
        here = row + (place - (n - 1) / 2) * width
        held = values[(rows == row) & np.isfinite(values)]
        style = {"color": colour, "linewidth": 1}
        axes.boxplot(
            held,
            positions=[here],
            widths=0.8 * width,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            boxprops=style,
            whiskerprops=style,
            capprops=style,
            medianprops=style,
        )
        axes.plot(held, np.full(len(held), here), "o", color=colour, markersize=3, alpha=0.6)
    axes.plot([], [], "s", color=colour, label=_named(trace))


_TRACES: dict[str, Callable[[Axes, go.Figure, int, _Positions], None]] = {
    "scatter": _scatter,
    "heatmap": _heat_map,
    "box": _box,
}


def _add_lines(axes: Axes, figure: go.Figure) -> None:
    """Draw the lines across a figure, and the notes on them."""
    for line in figure.layout.shapes:
        style = {"color": _colour(line.line.color), "linewidth": line.line.width or 1}
        style["linestyle"] = _DASHES.get(line.line.dash, "-")
        if line.x0 == line.x1:
            axes.axvline(line.x0, **style)
        else:
            axes.axhline(line.y0, **style)
    for note in figure.layout.annotations:
        style = {"ha": note.xanchor, "va": note.yanchor, "fontsize": 8}
        axes.text(1, note.y, plain(note.text), transform=axes.get_yaxis_transform(), **style)


def _finish(axes: Axes, figure: go.Figure, positions: _Positions) -> None:
    layout = figure.layout
    axes.set_xlabel(plain(layout.xaxis.title.text or ""))
    axes.set_ylabel(plain(layout.yaxis.title.text or ""))
    title, note = plain(layout.title.text or ""), plain(layout.title.subtitle.text or "")
    axes.figure.suptitle(title, x=0.02, ha="left", fontsize=12)
    if note:
        axes.set_title(note, loc="left", fontsize=8, color="dimgray")
    for side, axis in (("x", layout.xaxis), ("y", layout.yaxis)):
        _finish_axis(axes, side, axis, positions.names[side])
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, names, frameon=False, fontsize=8, ncols=2)


def _finish_axis(axes: Axes, side: str, axis: Any, names: Sequence[Any]) -> None:
    if axis.tickvals is not None:
        axes.set(**{f"{side}ticks": axis.tickvals})
        axes.set(**{f"{side}ticklabels": [plain(text) for text in axis.ticktext]})
    elif names:
        axes.set(**{f"{side}ticks": range(len(names))})
        axes.set(**{f"{side}ticklabels": [plain(str(name)) for name in names]})
    elif axis.dtick is not None:
        low, high = sorted(getattr(axes, f"get_{side}lim")())
        axes.set(**{f"{side}ticks": np.arange(np.ceil(low), np.floor(high) + 1, axis.dtick)})
    if axis.showgrid is not False:
        lines = axes.xaxis if side == "x" else axes.yaxis
        lines.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    low, high = sorted(getattr(axes, f"get_{side}lim")())
    if axis.range is not None:
        low, high = axis.range
    if axis.autorangeoptions.clipmin is not None:
        low, high = max(low, axis.autorangeoptions.clipmin), min(high, 1.05)
    ends = (high, low) if axis.autorange == "reversed" else (low, high)
    getattr(axes, f"set_{side}lim")(*ends)


def plain(text: str) -> str:
    """Return plotly's text without its tags; a break is a new line."""
    untagged = re.sub(r"<[^>]*>", "", text.replace("<br>", "\n"))
    # A dollar sign would begin a formula.
    return html.unescape(untagged).replace("$", r"\$")


def _named(trace: Any) -> str:
    """Return what the legend calls a trace; names with an underscore in front are left out."""
    return "_hidden" if trace.showlegend is False else plain(trace.name or "_hidden")


def _colour(colour: str | None) -> Any:
    """Return a colour as matplotlib has it; ``None`` is a quiet grey."""
    found = re.fullmatch(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)", colour or "")
    if found:
        red, green, blue, alpha = found.groups()
        return (int(red) / 255, int(green) / 255, int(blue) / 255, float(alpha))
    return to_rgba(colour or "0.5")
