"""Lines of a file, with the place behind each, in bounded memory."""

from collections.abc import Callable, Generator
from typing import BinaryIO, NamedTuple

from fastinn.embed.corpus.paths import changed, opened

_PIECE = 1 << 20
"""Bytes to read at once of a line that is not kept."""


class Line(NamedTuple):
    """A line of text.

    Attributes:
        text: What it says, without its end; bytes that are not UTF-8 as lone surrogates. ``None``
            for a line that is too long to be held.
        number: Counted from 1.
        end: Bytes of the file up to its end.
    """

    text: str | None
    number: int
    end: int


def read_lines(
    path: str,
    longest: int,
    row: int = 0,
    byte: int = 0,
    *,
    skim: Callable[[bytes], None] = lambda _: None,
) -> Generator[Line, None, None]:
    """Yield the lines behind ``row`` lines of ``byte`` bytes in all.

    Args:
        path: File to read.
        longest: Bytes of the longest line to hold.
        row: Lines that are behind.
        byte: Bytes that are behind.
        skim: Is handed every line that is not held, in pieces, before that line is yielded.

    Raises:
        ValueError: If the file is UTF-16, or no line of it ends at ``byte``.
        OSError: If it cannot be read.
    """
    with opened(path) as file:
        if not _stands_behind_a_line(file, byte):
            raise changed(path, f"no line ends at byte {byte}")
        while data := file.readline(longest + 1):
            if byte == 0 and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise ValueError(f"{path} is UTF-16; convert it to UTF-8")
            encoding = "utf-8" if byte else "utf-8-sig"
            row, byte = row + 1, byte + len(data)
            if len(data) > longest and not data.endswith(b"\n"):
                skim(data)
                byte += _skip_line(file, skim)
                yield Line(None, row, byte)
            else:
                yield Line(data.decode(encoding, "surrogateescape").rstrip("\r\n"), row, byte)


def _stands_behind_a_line(file: BinaryIO, byte: int) -> bool:
    """Go to ``byte``; tell whether it is the end of a line, the last of which may lack its end."""
    file.seek(max(byte - 1, 0))
    if byte == 0 or (before := file.read(1)) == b"\n":
        return True
    return bool(before) and not file.read(1)


def _skip_line(file: BinaryIO, skim: Callable[[bytes], None]) -> int:
    """Read on to the end of the line; return the number of bytes."""
    skipped = 0
    while data := file.readline(_PIECE):
        skim(data)
        skipped += len(data)
        if data.endswith(b"\n"):
            break
    return skipped
