"""The figures of some results as files."""

import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import plotly.graph_objects as go

from fastinn import _checks
from fastinn._saved import write_whole
from fastinn.report.panels import sections
from fastinn.report.tables import Results

Format = Literal["svg", "png"]
FORMATS: tuple[Format, ...] = ("svg", "png")

_DOTS_AN_INCH = 150


def write_plots(results: Results, folder: Path, formats: Sequence[Format] = FORMATS) -> list[Path]:
    """Write every figure that the report of ``results`` shows.

    Equal results give equal files, byte for byte, by the same version of matplotlib.

    Args:
        results: Results of a command, as read from its ``results.json``.
        folder: Where they go, made if it is not there; a file of that name is replaced.
        formats: Kinds of file.

    Returns:
        The files, named after what they show.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If a format is unknown or the results hold nothing to draw.
        OSError: If a file cannot be written.
    """
    for format_ in formats:
        _checks.one_of(format_, FORMATS, "format")
    figures = dict(_figures(results))
    if not figures:
        raise ValueError("the results hold nothing to draw; give those of another command")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        for format_ in formats:
            path = folder / f"{name}.{format_}"
            write_whole(path, _bytes(figure, format_))
            written.append(path)
    return written


def _figures(results: Results) -> Iterator[tuple[str, go.Figure]]:
    """Yield every figure with the name of its file; of equal names the later has a number."""
    taken: dict[str, int] = {}
    for panels in sections(results).values():
        for panel in panels:
            for choice, figure in panel.figures.items():
                name = f"{panel.name}-{_slug(choice)}" if panel.choice else panel.name
                taken[name] = taken.get(name, 0) + 1
                yield name if taken[name] == 1 else f"{name}-{taken[name]}", figure


def _slug(text: str) -> str:
    """Return letters and digits of a name joined by hyphens: it may hold anything else."""
    ascii_ = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_).strip("-")[:60] or "figure"


def _bytes(figure: go.Figure, format_: Format) -> bytes:
    try:
        import matplotlib

        from fastinn.report.matplotlib_drawing import drawn
    except ImportError:
        raise ImportError(
            "plots as files need matplotlib; install it by: pip install 'fastinn[plots]'"
        ) from None
    held = io.BytesIO()
    # Neither the date nor random names of paths: equal results give equal files.
    metadata = {"Date": None} if format_ == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "fastinn", "svg.fonttype": "none"}):
        drawn(figure).savefig(held, format=format_, dpi=_DOTS_AN_INCH, metadata=metadata)
    return held.getvalue()
