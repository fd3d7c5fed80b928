"""Stores as they are read."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
import xxhash
from torch import Tensor

from fastinn import _checks
from fastinn.embed.corpus import SPLITS, Split
from fastinn.embed.corpus.narrowing import Shard as Share
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.embed.source import Encoded
from fastinn.embed.store._json import canonical
from fastinn.embed.store.blocks import VerifiedBlocks
from fastinn.embed.store.contents import check_complete, check_listing, has_begun
from fastinn.embed.store.files import Files, files_at
from fastinn.embed.store.header import StoreHeader, load_header
from fastinn.embed.store.index import Pieces, Runs, index
from fastinn.embed.store.journal import Journal, load_journal
from fastinn.embed.store.layout import DTYPES, KEY_BYTES
from fastinn.embed.store.naming import naming
from fastinn.embed.store.shard import Shard


class EmbeddingStore:
    """Hidden states of one model over one corpus, verified as they are read.

    Rows are in reading order, by document, however many processes wrote them. Every block of a
    shard is checked against the journal whenever it comes from the disk, so a store with a flipped
    byte gives an error that names the store and the shard, and no rows.

    Args:
        path: Folder of the store, or a URL that fsspec opens, such as ``s3://bucket/store``.
        unfinished: Read what is committed of a store whose writers are not done.

    Attributes:
        name: Of its corpus, or of a split of it.
        layers: Layers that are read, in order.

    Raises:
        FileNotFoundError: If there is no store.
        ValueError: If it is damaged, or unfinished; store and file are named.
    """

    def __init__(self, path: str | Path, *, unfinished: bool = False) -> None:
        self.path = path
        files = files_at(path)
        with naming(path):
            self.header: StoreHeader = load_header(files, path)
            self.journals: list[Journal] = _journals(files, self.header, unfinished=unfinished)
        self.name = self.header.corpus
        self.layers: list[int] = list(self.header.layers)
        # A reader that goes through the rows shares one block a file between two reads.
        self._blocks = VerifiedBlocks(files, held=len(self.layers) + 1)
        commits = [commit for journal in self.journals for commit in journal.commits]
        self._shards = {
            layer: [Shard(self.header, commit, layer) for commit in commits]
            for layer in (None, *self.layers)
        }
        with naming(path):
            self._pieces = index(self._blocks, self._shards[None])
        self._runs = Runs(self._pieces)
        self._stride = 1

    @property
    def n_layers(self) -> int:
        """Number of Transformer layers of the model."""
        return self.header.n_layers

    @property
    def n_features(self) -> int:
        """Width of a row."""
        return self.header.n_features

    @property
    def level(self) -> str:
        """What a row is."""
        return self.header.level

    @property
    def tokens_fingerprint(self) -> str:
        """Hash of tokenizer and window length; stores that share it pair token by token."""
        return self.header.tokenizer

    @property
    def source(self) -> str:
        """Hub id or folder of the model."""
        return self.header.model

    @property
    def revision(self) -> str | None:
        """Commit of the model on the hub; ``None`` for a local folder."""
        return self.header.revision

    def fingerprint(self) -> str:
        """Hash of the model's weights."""
        return self.header.weights

    @property
    def finished(self) -> bool:
        """Whether all writers have closed their shares."""
        return all(journal.finished for journal in self.journals)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._runs)

    def split(self, split: Split) -> Self:
        """Keep the documents of one split, decided by the place that was stored with each."""
        _checks.one_of(split, tuple(SPLITS), "split")
        return self._of(self._pieces.within(*SPLITS[split]), f"{self.name}/{split}")

    def shard(self, index: int, count: int) -> Self:
        """Keep the documents of one of ``count`` shards, as :meth:`Corpus.shard` deals them.

        Raises:
            ValueError: If there is no such shard.
        """
        share = Share(index, count, self._stride)
        narrowed = self._of(self._pieces.shard(share), self.name)
        narrowed._stride = self._stride * count
        return narrowed

    def keys_fingerprint(self) -> str:
        """Hash of what every row is, in reading order, 32 hexadecimal digits."""
        whole = xxhash.xxh3_128()
        for start in range(0, len(self), TOKENS_PER_BLOCK):
            whole.update(
                self._keys(start, min(start + TOKENS_PER_BLOCK, len(self))).numpy().tobytes()
            )
        return whole.hexdigest()

    def content(self) -> str:
        """Hash of the checksums of all shards, whatever was selected, 32 hexadecimal digits."""
        whole = xxhash.xxh3_128()
        for journal in self.journals:
            for commit in journal.commits:
                whole.update(canonical(dict(commit.checksums)))
        return whole.hexdigest()

    def select(self, layers: Sequence[int]) -> Self:
        """Keep some layers, negative ones counted from the end of the model.

        Raises:
            ValueError: If one is not stored.
        """
        narrowed = copy.copy(self)
        narrowed.layers = self.resolve(layers)
        return narrowed

    def document_of(self, row: int) -> int:
        """Return the number of the document that row ``row`` of the reading order belongs to."""
        return self._pieces.document_of(row)

    def rows_before(self, document: int) -> int:
        """Return how many rows come before those of document ``document``, held or not."""
        return self._pieces.rows_before(document)

    def first_other_text(self, other: "EmbeddingStore") -> int | None:
        """Return the first document that is another text in ``other``, if both hold one.

        Told by the places that were stored; see :attr:`Document.place`.
        """
        return self._pieces.first_other_text(other._pieces)

    def resolve(self, layers: Sequence[int] | None) -> list[int]:
        """Return layers as non-negative numbers in ascending order; see :meth:`read`."""
        if layers is None:
            return self.layers
        chosen = sorted({layer + (self.n_layers + 1) * (layer < 0) for layer in layers})
        if not chosen or not set(chosen) <= set(self.layers):
            raise ValueError(f"layers is {list(layers)}, {self.path} holds layers {self.layers}")
        return chosen

    def read(self, start: int, stop: int, layers: Sequence[int] | None = None) -> Encoded:
        """Read rows ``start`` to before ``stop`` of the reading order.

        Args:
            start: First row, from 0.
            stop: Row to end before, at most ``len(self)``.
            layers: Layers to read, negative ones from the end of the model; ``None`` for all.

        Returns:
            Rows in float32, whatever they are stored in, and keys.

        Raises:
            ValueError: If there are no such rows or layers, or a shard is damaged.
        """
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"rows {start} to {stop} of a store of {len(self)} rows")
        chosen = self.resolve(layers)
        runs = self._runs.between(start, stop)
        dtype = DTYPES[self.header.dtype]
        rows = {
            layer: self._gather(layer, runs, (stop - start, self.n_features), dtype).float()
            for layer in chosen
        }
        return Encoded(rows, self._keys(start, stop))

    def __iter__(self) -> Iterator[Encoded]:
        """Iterate over all rows in blocks."""
        return self.blocks()

    def blocks(
        self, rows_per_block: int = TOKENS_PER_BLOCK, layers: Sequence[int] | None = None
    ) -> Iterator[Encoded]:
        """Iterate over blocks of ``rows_per_block`` rows, the last of which may be shorter."""
        _checks.at_least(rows_per_block, 1, "rows_per_block")
        for start in range(0, len(self), rows_per_block):
            yield self.read(start, min(start + rows_per_block, len(self)), layers)

    def _of(self, pieces: Pieces, name: str) -> Self:
        narrowed = copy.copy(self)
        narrowed.name, narrowed._pieces, narrowed._runs = name, pieces, Runs(pieces)
        return narrowed

    def _keys(self, start: int, stop: int) -> Tensor:
        runs = self._runs.between(start, stop)
        return self._gather(None, runs, (stop - start, 3), torch.int64)

    def _gather(
        self,
        layer: int | None,
        runs: Sequence[tuple[int, int, int]],
        shape: tuple[int, int],
        dtype: torch.dtype,
    ) -> Tensor:
        out = torch.empty(shape, dtype=dtype)
        row_bytes = KEY_BYTES if layer is None else self.header.row_bytes
        at = 0
        with naming(self.path):
            for part, first, n in runs:
                self._blocks.fill(self._shards[layer][part], first * row_bytes, out[at : at + n])
                at += n
        return out


def _journals(files: Files, header: StoreHeader, *, unfinished: bool) -> list[Journal]:
    """Read the journals of all writers, and check that the shards are those they commit."""
    found = [
        load_journal(files, header, writer, begun=not unfinished or has_begun(files, writer))
        for writer in range(header.writers)
    ]
    if not unfinished:
        check_complete(header, found)
    check_listing(files, header, found)
    return found
