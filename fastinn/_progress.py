"""How far work has come: a bar on a terminal, and a line a minute in the log of a job."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from fastinn import distributed

T = TypeVar("T")

_SECONDS_A_LINE = 60.0


def progress(
    iterable: Iterable[T] | None = None, label: str = "", *, shown: bool = True, **options: Any
) -> "tqdm[T]":
    """Show on rank 0's stderr how far ``iterable``, or what ``update`` counts, has come.

    Nothing is said of what takes less than a minute, unless stderr is a terminal. Call
    ``set_postfix`` with ``refresh=False``: it would add a line of its own to a log.

    Args:
        iterable: What to go through; ``None``: ``update`` counts.
        label: What the line begins with.
        shown: Whether to say anything at all.
        **options: Further arguments of :class:`tqdm.tqdm`.
    """
    if not (shown and distributed.is_main()):
        return tqdm(iterable, label, disable=True, **options)
    if sys.stderr.isatty():
        return tqdm(iterable, label, **options)
    rare = dict.fromkeys(("delay", "mininterval", "maxinterval"), _SECONDS_A_LINE)
    # At position 0 whatever it lies within: no cursor moves from one bar to the other.
    as_lines = {**rare, "leave": False, "position": 0, "file": _Lines()}
    return tqdm(iterable, label, **{**options, **as_lines})


class _Lines:
    """What tqdm writes over its last line, as lines of their own on stderr."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()
