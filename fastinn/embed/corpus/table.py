"""Tables in text files: csv with quoted fields of several lines, tsv where quotes are text."""

import csv
import re
from collections.abc import Iterator
from contextlib import closing

from fastinn.embed.corpus.document import Cursor
from fastinn.embed.corpus.lines import Line, read_lines
from fastinn.embed.corpus.paths import ending
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
    with closing(read_lines(path, longest)) as lines:
        header = _Pulled(lines, longest)
        names = next(_contents(header, delimiter), None)
    if names is None:
        return
    if not isinstance(names, list) or column not in names:
        listed = ", ".join(names) if isinstance(names, list) and names else "nothing"
        raise ValueError(f"{path} has no column {column!r}, its first line names {listed}")
    row, byte = (start.row, start.byte) if start.byte else (header.row, header.byte)
    with closing(read_lines(path, longest, row, byte)) as lines:
        pulled = _Pulled(lines, longest)
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

    def __init__(self, lines: Iterator[Line], longest: int) -> None:
        self._lines = lines
        self._longest = longest
        self.begin_record()

    def begin_record(self) -> None:
        """Forget the record before."""
        self.begin = self._size = 0
        self.fault: Fault | None = None

    def __iter__(self) -> "_Pulled":
        return self

    def __next__(self) -> str:
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
        # The reader needs no more of a record that is left out than what may end it.
        return re.sub(r'[^",\t]', "", line.text or "")


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
