"""Labelled texts: files with a text and its label in every row."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from fastinn.embed.corpus.table import lift_field_limit

Row: TypeAlias = tuple[int, str, str]
"""Line on which it ends, text, label."""


@dataclass(frozen=True)
class Labelled:
    """Texts and the label of each, in reading order.

    Attributes:
        name: What to call them in messages and records.
        texts: What is classified.
        labels: Name of the class of each text; whole numbers as they are written.
    """

    name: str
    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, places: Sequence[int]) -> "Labelled":
        """Return the rows at ``places``."""
        return Labelled(
            self.name, [self.texts[i] for i in places], [self.labels[i] for i in places]
        )

    def classes(self) -> list[str]:
        """Return the distinct labels: by value if all are whole numbers, else by name."""
        return sorted(set(self.labels), key=_order(self.labels))


def read_labelled(path: str | Path, *, text: str = "text", label: str = "label") -> Labelled:
    """Read a file of labelled texts.

    A table whose first line names both columns has a header; any other has two columns, the text
    and then the label.

    Args:
        path: ``.tsv`` (quotes are text), ``.csv`` or ``.jsonl``.
        text: Column or field that holds the text.
        label: Column or field that holds the label, a string or a whole number.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the ending is unknown, there is no row, or a row (which is named by its
            line) is not UTF-8, lacks a column, or has a blank text or label.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give a tsv, csv or jsonl file of labels")
    if path.suffix not in _READERS:
        known = ", ".join(_READERS)
        raise ValueError(f"{path} ends in {path.suffix!r}, expected one of {known}")
    texts, labels = [], []
    for line, content, name in _READERS[path.suffix](path, text, label):
        for what, value in (("text", content), ("label", name)):
            if not value.strip():
                raise ValueError(f"{path}:{line} has no {what}; mend or drop that row")
        texts.append(content)
        labels.append(name.strip())
    if not texts:
        raise ValueError(f"{path} holds no rows; give a file with a text and a label in each")
    return Labelled(path.name, texts, labels)


def _order(labels: Sequence[str]) -> Callable[[str], int] | None:
    try:
        for label in labels:
            int(label)
    except ValueError:
        return None
    return int


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number} is not UTF-8: {error}") from None


def _read_jsonl(path: Path, text: str, label: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number} is not JSON: {error}") from None
        fields = record if isinstance(record, dict) else {}
        content, name = fields.get(text), fields.get(label)
        if not isinstance(content, str):
            raise ValueError(f"{path}:{number} has no text under {text!r}; name the field")
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise ValueError(
                f"{path}:{number} has no string or whole number under {label!r}; name the field"
            )
        yield number, content, str(name)


def _read_table(path: Path, text: str, label: str) -> Iterator[Row]:
    table = _table(path)
    first = next(table, None)
    if first is None:
        return
    header = [name.strip() for name in first[1]]
    named = text in header or label in header
    columns = _columns(path, header, text, label) if named else (0, 1)
    if not named and len(header) != 2:
        raise ValueError(
            f"{path} has {len(header)} columns and no header that names {text!r} and {label!r}; "
            "name the columns, or give a text and a label in each line"
        )
    for number, cells in table if named else chain([first], table):
        if len(cells) != len(header):
            raise ValueError(
                f"{path}:{number} has {len(cells)} columns, but the first line has {len(header)}"
            )
        yield number, cells[columns[0]], cells[columns[1]]


def _columns(path: Path, header: list[str], text: str, label: str) -> tuple[int, int]:
    missing = [name for name in (text, label) if name not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {missing[0]!r}, its first line names {', '.join(header)}; "
            "name the columns"
        )
    return header.index(text), header.index(label)


def _table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that has any, and the number of the line on which it ends."""
    if path.suffix == ".tsv":
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                yield number, line.rstrip("\r\n").split("\t")
        return
    lift_field_limit()
    # Strict, for otherwise a quote that is never closed takes the rest of the file for its text.
    reader = csv.reader(_lines(path), strict=True)
    begin = 1
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{begin} is no csv: {error}") from None


_READERS: dict[str, Callable[[Path, str, str], Iterator[Row]]] = {
    ".tsv": _read_table,
    ".csv": _read_table,
    ".jsonl": _read_jsonl,
}
