"""What the readers of single files have in common."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from fastinn.embed.corpus.document import Cursor
from fastinn.embed.corpus.reading import Fault


class Row(NamedTuple):
    """A record of a file.

    Attributes:
        content: Its text, not checked yet, or why there is none.
        line: Line or row in which it begins, counted from 1.
        row: Lines or rows up to its end.
        byte: Bytes up to its end; 0 where ``row`` is enough to find it.
    """

    content: str | Fault
    line: int
    row: int
    byte: int


class Reader(Protocol):
    """Reads files of one kind."""

    def __call__(self, path: str, column: str, longest: int, start: Cursor) -> Iterator[Row]:
        """Yield the records behind ``start``.

        Args:
            path: File to read.
            column: Name of the field or column that holds the text, where there are several.
            longest: Bytes of the longest line to hold.
            start: Place in this file.

        Raises:
            ValueError: If the file is not what its ending says.
            OSError: If it cannot be read.
        """
