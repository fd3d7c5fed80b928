"""Where the rows of every document are, in reading order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from fastinn.embed.corpus.narrowing import Shard
from fastinn.embed.store.blocks import VerifiedBlocks
from fastinn.embed.store.layout import KEY_BYTES
from fastinn.embed.store.shard import Shard as StoredShard

_FIELDS = ("document", "place", "part", "start", "length")


@dataclass(frozen=True)
class Pieces:
    """Rows of one document in one part each; arrays of equal length, by document.

    Attributes:
        document: Number of the document.
        place: Place of its hash in [0, 1], which decides its split.
        part: Index of the part in the store's list.
        start: First row in the part.
        length: Number of rows.
    """

    document: NDArray[np.int64]
    place: NDArray[np.float64]
    part: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]

    def within(self, low: float, high: float) -> "Pieces":
        """Keep the documents with a place from ``low`` to below ``high``."""
        return self._at((low <= self.place) & (self.place < high))

    def shard(self, shard: Shard) -> "Pieces":
        """Keep the documents of one shard of the corpus."""
        return self._at(shard.holds(self.document))

    def document_of(self, row: int) -> int:
        """Return the number of the document of row ``row``."""
        return int(self.document[np.searchsorted(self._ends, row, side="right")])

    def rows_before(self, document: int) -> int:
        """Return how many rows documents of smaller numbers have."""
        piece = int(np.searchsorted(self.document, document))
        return int(self._ends[piece - 1]) if piece else 0

    def first_other_text(self, other: "Pieces") -> int | None:
        """Return the first document that both hold with different places, so of different texts."""
        shared, here, there = np.intersect1d(self.document, other.document, return_indices=True)
        differs = np.flatnonzero(self.place[here] != other.place[there])
        return int(shared[differs[0]]) if len(differs) else None

    def in_order(self) -> "Pieces":
        """Sort by document; the pieces of one keep their order."""
        return self._at(np.argsort(self.document, kind="stable"))

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.length)

    def _at(self, chosen: NDArray) -> "Pieces":
        return Pieces(*(getattr(self, name)[chosen] for name in _FIELDS))


class Runs:
    """Stretches of rows that lie one behind the other in one part, in reading order."""

    def __init__(self, pieces: Pieces) -> None:
        ends = pieces.start + pieces.length
        joins = (pieces.part[1:] == pieces.part[:-1]) & (pieces.start[1:] == ends[:-1])
        first = np.flatnonzero(np.concatenate([[True], ~joins])[: len(ends)])
        self._part, self._start = pieces.part[first], pieces.start[first]
        self._row = np.concatenate([[0], np.cumsum(pieces.length)])[np.append(first, len(ends))]

    def __len__(self) -> int:
        """Number of rows."""
        return int(self._row[-1])

    def between(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Return part, first row in it and number of rows of what makes up rows start to stop."""
        found = []
        run = int(np.searchsorted(self._row, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._row[run + 1]))
            offset = start - int(self._row[run])
            found.append((int(self._part[run]), int(self._start[run]) + offset, end - start))
            start, run = end, run + 1
        return found


def index(blocks: VerifiedBlocks, shards: Sequence[StoredShard]) -> Pieces:
    """Read the documents of the token shards of all parts.

    Args:
        blocks: What reads them.
        shards: Token shards, each writer's in order.

    Raises:
        ValueError: If a shard is damaged, or two writers have the same document.
    """
    tables = [_documents(blocks, shard, part) for part, shard in enumerate(shards)]
    if not tables:
        return Pieces(*(np.empty(0, kind) for kind in (np.int64, np.float64, *[np.int64] * 3)))
    joined = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _FIELDS}
    pieces = Pieces(**joined).in_order()
    _check_owners(pieces, shards)
    return pieces


def _documents(blocks: VerifiedBlocks, shard: StoredShard, part: int) -> Pieces:
    n, at = shard.commit.documents, shard.commit.rows * KEY_BYTES
    document, length = blocks.tensor(shard, at, (2, n), torch.int64).numpy()
    place = blocks.tensor(shard, at + 16 * n, (n,), torch.float64).numpy()
    start = np.cumsum(length) - length
    _check_table(shard, document, length, place)
    return Pieces(document, place, np.full(n, part), start, length)


def _check_table(
    shard: StoredShard,
    document: NDArray[np.int64],
    length: NDArray[np.int64],
    place: NDArray[np.float64],
) -> None:
    commit = shard.commit
    fits = (
        (document[0], document[-1]) == (commit.first, commit.last)
        and bool((np.diff(document) > 0).all())
        and bool(((length > 0) & (length <= commit.rows)).all())
        and int(length.sum()) == commit.rows
        and bool(((place >= 0) & (place <= 1)).all())
    )
    if not fits:
        raise ValueError(
            f"{shard.name} is damaged: its documents are not those of the journal; restore it"
        )


def _check_owners(pieces: Pieces, shards: Sequence[StoredShard]) -> None:
    owner = np.array([shard.commit.writer for shard in shards])[pieces.part]
    same = pieces.document[1:] == pieces.document[:-1]
    shared = np.flatnonzero(same & (owner[1:] != owner[:-1]))
    if len(shared):
        one, other = (shards[pieces.part[shared[0] + i]].name for i in (0, 1))
        raise ValueError(
            f"{one} and {other} both hold document {pieces.document[shared[0]]}: their writers "
            "read the same text; give each its share with corpus.shard(writer, writers)"
        )
