"""What commands print."""

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console()


def show(content: Any, as_json: bool, table: Callable[[Any], Table]) -> None:
    """Print ``content`` as JSON or as a table."""
    if as_json:
        print(json.dumps(content))
    else:
        console.print(table(content))


def say(as_json: bool, text: str) -> None:
    """Print a line, unless only JSON is wanted."""
    if not as_json:
        console.print(text, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print a line on stderr."""
    Console(stderr=True).print(f"fastinn: {text}", markup=False, highlight=False, soft_wrap=True)
