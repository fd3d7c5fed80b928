"""A document, where it stands in its corpus, and which split it belongs to."""

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "validation", "test"]

SPLITS: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.7),
    "validation": (0.7, 0.8),
    "test": (0.8, 1.0),
}
"""Range of the document hash, mapped to [0, 1), that each split takes."""


@dataclass(frozen=True)
class Cursor:
    """A place between two records of a corpus, from which reading can go on.

    Attributes:
        number: Records behind it in the whole corpus, documents or not.
        file: Index of the file that it stands in; of the shard, in a data set.
        row: Lines (of text) or rows (of a table) of that file that are behind it.
        byte: Bytes of that file that are behind it, of what a compressed file holds; 0 where
            rows are enough to find the place.
    """

    number: int = 0
    file: int = 0
    row: int = 0
    byte: int = 0


BEGINNING = Cursor()
"""Place in front of the first record."""


@dataclass(frozen=True)
class Document:
    """A text that is never divided between splits.

    Attributes:
        number: Position in the whole corpus, counted from 0; records that are no documents, such
            as blank lines, count too.
        text: What it says.
        key: What its split is drawn from; the text itself unless the source names documents.
        end: Place behind it.
    """

    number: int
    text: str
    key: str
    end: Cursor = BEGINNING

    @property
    def place(self) -> float:
        """Hash of ``key`` in [0, 1): equal texts share a split, whatever their order."""
        return int.from_bytes(digest(self.key)[:8], "big") / 2**64


def digest(text: str) -> bytes:
    """Return the 16-byte hash of a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
