"""Tables in text files: csv with quoted fields of several lines, tsv where quotes are text."""

import csv
from collections.abc import Iterator
from contextlib import closing

from fastinn.embed.corpus.document import Cursor
from fastinn.embed.corpus.lines import read_lines
from fastinn.embed.corpus.paths import ending
from fastinn.embed.corpus.quoting import Quoting
from fastinn.embed.corpus.reading import TOO_LONG, Fault
from fastinn.embed.corpus.rows import Row

_UNCLOSED = Fault("without a closing quote", "opens a quote that is never closed")
_NO_ROW = "no row of the table"


def read_table(path: str, column: str, longest: int, start: Cursor) -> Iterator[Row]:
    """Yield the field ``column`` of every record behind the header.

    A record with more or fewer fields than the header is no record: what is missing, or where a
    text was cut, cannot be known.
    """
    lift_field_limit()  # `_Pulled` bounds records itself
    delimiter = "\t" if ending(path) == ".tsv" else ","
    with closing(_Pulled(path, longest)) as header:
        names = next(_contents(header, delimiter), None)
    if names is None:
        return
    if not isinstance(names, list) or column not in names:
        listed = ", ".join(names) if isinstance(names, list) and names else "nothing"
        raise ValueError(f"{path} has no column {column!r}, its first line names {listed}")
    row, byte = (start.row, start.byte) if start.byte else (header.row, header.byte)
    with closing(_Pulled(path, longest, row, byte)) as pulled:
        for fields in _contents(pulled, delimiter):
            content = _field(fields, names, column)
            yield Row(content, pulled.begin, pulled.row, pulled.byte)


def lift_field_limit() -> None:
    """Let fields of csv be of any length; the limit is one of the whole process."""
    csv.field_size_limit(2**31 - 1)


class _Pulled:
    """Hands lines to the csv reader and knows where the record that they make up ends.

    Attributes:
        begin: Line in which the record begins, 0 before it has.
        row: Lines up to its end.
        byte: Bytes up to its end.
        fault: What is wrong with it.
    """

    def __init__(self, path: str, longest: int, row: int = 0, byte: int = 0) -> None:
        self._longest = longest
        self._quoting = Quoting(is_open=False)
        self._lines = read_lines(path, longest, row, byte, skim=self._skim)
        self.begin_record()

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def begin_record(self) -> None:
        """Forget the record before."""
        self.begin = self._size = 0
        self.fault: Fault | None = None

    def __iter__(self) -> "_Pulled":
        return self

    def __next__(self) -> str:
        goes_on = self.begin > 0  # what only a quoted field does
        self._quoting = Quoting(goes_on)
        line = next(self._lines, None)
        if line is None:
            self.fault = _UNCLOSED if self.begin else None
            raise StopIteration
        self.begin = self.begin or line.number
        self.row, self.byte = line.number, line.end
        self._size += self._longest + 1 if line.text is None else len(line.text)
        if self._size <= self._longest:
            return f"{line.text}\n"
        self.fault = TOO_LONG
        if line.text is not None:
            self._skim(line.text.encode(errors="surrogateescape"))
        # The reader needs no more of a record that is left out than whether it goes on.
        return "" if self._quoting.is_open == goes_on else '"'

    def _skim(self, piece: bytes) -> None:
        self._quoting.read(piece)


def _contents(pulled: _Pulled, delimiter: str) -> Iterator[list[str] | Fault]:
    """Yield the fields of every record, or what is wrong with it."""
    if delimiter == "\t":
        table = csv.reader(pulled, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        table = csv.reader(pulled, delimiter=delimiter)
    while True:
        pulled.begin_record()
        try:
            fields: list[str] | Fault = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            fields = Fault(_NO_ROW, f"is {_NO_ROW}: {error}")
        yield pulled.fault or fields


def _field(fields: list[str] | Fault, names: list[str], column: str) -> str | Fault:
    if isinstance(fields, Fault):
        return fields
    if not fields:
        return ""
    if len(fields) != len(names):
        return Fault(_NO_ROW, f"has {len(fields)} fields, the header names {len(names)}")
    return fields[names.index(column)]
