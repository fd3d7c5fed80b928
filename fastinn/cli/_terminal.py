"""What commands print; of several ranks, rank 0 does."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from fastinn import distributed
from fastinn.cli._reading import reading_of_all_ranks
from fastinn.embed import Corpus

# What reads a pipe or a file folds no lines, and rich would at 80.
_WIDTH_ELSEWHERE = 120


def _console() -> Console:
    found = Console()
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = _WIDTH_ELSEWHERE
    return found


console = _console()


def show(content: Any, as_json: bool, table: Callable[[Any], Table]) -> None:
    """Print ``content`` as JSON or as a table."""
    if not distributed.is_main():
        return
    if as_json:
        print(json.dumps(content))
    else:
        console.print(table(content))


def show_further(content: Any, as_json: bool, tables: Iterable[Callable[[Any], Table]]) -> None:
    """Print those of ``tables`` that have rows, unless only JSON is wanted."""
    if as_json or not distributed.is_main():
        return
    for table in tables:
        made = table(content)
        if made.row_count:
            console.print(made)


def say(as_json: bool, text: str) -> None:
    """Print a line, unless only JSON is wanted."""
    if not as_json and distributed.is_main():
        console.print(text, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print a line on stderr."""
    Console(stderr=True).print(f"fastinn: {text}", markup=False, highlight=False, soft_wrap=True)


def report_left_out(corpus: Corpus | None) -> None:
    """Say how much of a text all ranks left out, and why, if anything was."""
    if corpus is None:
        return
    reading = reading_of_all_ranks(corpus)
    if reading.left_out and distributed.is_main():
        complain(str(reading))
