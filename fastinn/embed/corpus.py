"""Corpora: documents in, documents split by hash out, one at a time."""

import csv
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal, Self, TypeAlias

from fastinn import _checks
from fastinn.embed import python_docs

Split: TypeAlias = Literal["train", "validation", "test"]

SPLITS: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.7),
    "validation": (0.7, 0.8),
    "test": (0.8, 1.0),
}
"""Range of the document hash, mapped to [0, 1), that each split takes."""

Narrowing: TypeAlias = Callable[[Iterable["Document"]], Iterable["Document"]]


@dataclass(frozen=True)
class Cursor:
    """A place in a corpus: reading goes on in front of record ``number``.

    Attributes:
        number: Records in front of it, blank ones too.
        file: Number of the file.
        row: Row in the file.
        byte: Byte in the file.
    """

    number: int = 0
    file: int = 0
    row: int = 0
    byte: int = 0


@dataclass(frozen=True)
class Document:
    """A text that is never divided between splits.

    Attributes:
        number: Position in the whole corpus, counted from 0.
        text: What it says.
        key: What its split is drawn from; the text itself unless the source names documents.
        end: Where reading goes on behind it.
    """

    number: int
    text: str
    key: str
    end: Cursor = Cursor()

    @property
    def place(self) -> float:
        """Hash of ``key`` in [0, 1): equal texts share a split, whatever their order."""
        return int.from_bytes(_digest(self.key.encode())[:8], "big") / 2**64


class Corpus:
    """Documents that can be read again and again without being held in memory.

    Args:
        name: What to call it in messages and reports.
        read: Returns a fresh iterator of ``(key, text)``; ``key`` is ``None`` for texts that have
            no name of their own.
    """

    def __init__(self, name: str, read: Callable[[], Iterable[tuple[str | None, str]]]) -> None:
        self.name = name
        self._read = read
        self._narrowings: tuple[Narrowing, ...] = ()

    @classmethod
    def from_texts(cls, texts: Iterable[str], *, name: str = "texts") -> Self:
        """Make a corpus of texts in memory, a document each."""
        held = list(texts)
        return cls(name, lambda: ((None, text) for text in held))

    @classmethod
    def from_file(cls, path: str | Path, *, column: str = "text") -> Self:
        """Make a corpus of a text file, read a line at a time.

        Args:
            path: ``.txt`` (a document a line), ``.jsonl``, ``.csv`` or ``.tsv``.
            column: Name of the field or column that holds the text, where there are several.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the ending is unknown, or the column is missing.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"corpus {path} is not a file; give a txt, jsonl, csv or tsv file"
            )
        if path.suffix not in _READERS:
            known = ", ".join(_READERS)
            raise ValueError(f"corpus {path} ends in {path.suffix!r}, expected one of {known}")
        reader = _READERS[path.suffix]
        return cls(path.name, lambda: ((None, text) for text in reader(path, column)))

    @classmethod
    def python_docs(cls, *, packages: bool = False) -> Self:
        """Make a corpus of this Python's own documentation: docstrings and help topics.

        A document is a module or a topic. A paragraph that was seen before is left out, so that
        no held-out document repeats a training one.

        Args:
            packages: Go on with the docstrings of the installed packages.
        """
        read = cache(lambda: list(python_docs.documents(packages=packages)))
        return cls("python-docs+packages" if packages else "python-docs", read)

    def split(self, split: Split) -> Self:
        """Keep the documents of one split; which is decided by the hash of each document."""
        _checks.one_of(split, tuple(SPLITS), "split")
        low, high = SPLITS[split]
        return self._narrowed(
            f"{self.name}/{split}",
            lambda documents: (d for d in documents if low <= d.place < high),
        )

    def head(self, n_documents: int) -> Self:
        """Keep the first ``n_documents`` documents."""
        return self._narrowed(self.name, lambda documents: islice(documents, n_documents))

    def __iter__(self) -> Iterator[Document]:
        """Iterate over the documents that hold any text."""
        documents: Iterable[Document] = (
            Document(number, text, text if key is None else key, Cursor(number + 1))
            for number, (key, text) in enumerate(self._read())
            if text.strip()
        )
        for narrowing in self._narrowings:
            documents = narrowing(documents)
        number = -1
        for document in documents:
            number = document.number
            yield document
        if number < 0:
            wanted = "more documents" if self._narrowings else "text in it"
            raise ValueError(f"corpus {self.name} holds no text; give a corpus with {wanted}")

    def documents(self, start: Cursor = Cursor()) -> Iterator[Document]:
        """Iterate over the documents from ``start`` on."""
        return (document for document in self if document.number >= start.number)

    def fingerprint(self) -> str:
        """Hash of every document in order, 32 hexadecimal digits."""
        whole = hashlib.blake2b(digest_size=16)
        for document in self:
            whole.update(_digest(document.text.encode()))
        return whole.hexdigest()

    def _narrowed(self, name: str, narrowing: Narrowing) -> Self:
        narrowed = type(self)(name, self._read)
        narrowed._narrowings = (*self._narrowings, narrowing)
        return narrowed


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines; one that is not UTF-8 is reported by number and left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                warnings.warn(f"{path}:{number} left out: {error}", stacklevel=2)


def _read_txt(path: Path, column: str) -> Iterator[str]:
    return (line for _, line in _lines(path))


def _read_jsonl(path: Path, column: str) -> Iterator[str]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number} is not JSON: {error}") from None
        if not isinstance(record, dict) or not isinstance(record.get(column), str):
            raise ValueError(
                f"{path}:{number} has no text under {column!r}; name the field with column="
            )
        yield record[column]


def _read_table(path: Path, column: str) -> Iterator[str]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    table = csv.DictReader((line + "\n" for _, line in _lines(path)), delimiter=delimiter)
    if column not in (table.fieldnames or ()):
        listed = ", ".join(table.fieldnames or ()) or "nothing"
        raise ValueError(f"{path} has no column {column!r}, its first line names {listed}")
    for record in table:
        yield record[column] or ""


_READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".csv": _read_table,
    ".tsv": _read_table,
}
