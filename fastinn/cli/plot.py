"""``fastinn plot``."""

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from fastinn import _checks
from fastinn.cli._options import AsJson
from fastinn.cli._terminal import say
from fastinn.report.plot_files import FORMATS, Format, write_plots
from fastinn.report.tables import Results


def plot(
    results: Annotated[Path, typer.Argument(help="Folder of a run, or its results.json.")],
    formats: Annotated[
        str, typer.Option("--format", help="Kinds of file, separated by commas.")
    ] = ",".join(FORMATS),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; default: 'plots' beside results.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw every figure of a finished run into files, from its results alone.

    Example: fastinn plot fastinn-demo --format svg,png --out plots
    """
    path = results / "results.json" if results.is_dir() else results
    kinds = formats.split(",")
    for kind in kinds:
        _checks.one_of(kind, FORMATS, "--format")
    found, folder = _read(path), out or path.parent / "plots"
    try:
        written = write_plots(found, folder, cast(list[Format], kinds))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not as a command wrote it ({type(error).__name__}: {error}); give the "
            "results.json of a run"
        ) from error
    if as_json:
        print(json.dumps([str(file) for file in written]))
    say(as_json, f"{len(written)} files in {written[0].parent}")


def _read(path: Path) -> Results:
    """Return what a run saved."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; give the folder of a finished run") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; give the results.json of a run") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no results; give the results.json of a run")
    return found
