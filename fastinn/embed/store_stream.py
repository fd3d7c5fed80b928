"""Paired rows of several stores."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch

from fastinn.embed.corpus import Cursor, Split
from fastinn.embed.levels import BY_DOCUMENT
from fastinn.embed.paired import Block, Stream
from fastinn.embed.prefetch import READ_AHEAD
from fastinn.embed.reading import Position
from fastinn.embed.source import Encoded
from fastinn.embed.store import EmbeddingStore
from fastinn.embed.store._json import digest

BLOCKS_HELD = READ_AHEAD + 2
"""Blocks in memory at once: the one in use, those that wait, and the one in the reader's hand."""


class StoreStream(Stream):
    """Stores that are read side by side.

    Args:
        stores: Name of each seed and its store, or a split of it.
        rows_per_block: Rows of a block.

    Raises:
        ValueError: If a document is not the same text in all stores.
    """

    sources: dict[str, EmbeddingStore]

    def __init__(self, stores: Mapping[str, EmbeddingStore], rows_per_block: int) -> None:
        first = next(iter(stores.values()), None)
        super().__init__(stores, "" if first is None else first.name, rows_per_block)
        self.sources = dict(stores)
        self._check_texts()

    def split(self, split: Split) -> Self:
        """Keep the documents of one split, decided by the place that was stored with each."""
        return self._of({seed: store.split(split) for seed, store in self.sources.items()})

    def shard(self, index: int, count: int) -> Self:
        """Keep the documents of one of ``count`` shards; see :meth:`Corpus.shard`."""
        return self._of({s: store.shard(index, count) for s, store in self.sources.items()})

    def identity(self) -> dict[str, Any]:
        """Return what two streams share whose blocks are the same, as JSON can hold it."""
        contents = "".join(store.content() for store in self.sources.values())
        return {**super().identity(), "content of stores": digest(contents.encode())}

    def fingerprint(self) -> str:
        """Hash of the tokens of the first store, 32 hexadecimal digits."""
        return next(iter(self.sources.values())).keys_fingerprint()

    def blocks(self, start: Position | None = None) -> Iterator[Block]:
        """Iterate over the blocks, which are read and verified ahead.

        Args:
            start: The ``position`` of the block to go on behind; ``None`` begins anew. Either way
                the blocks are the same, bit for bit.
        """
        return self._blocks(self._positions(start or Position()))

    def shuffled(self, generator: torch.Generator) -> Iterator[Block]:
        """Iterate over the blocks in an order that ``generator`` draws."""
        starts = list(self._positions(Position()))
        order = torch.randperm(len(starts), generator=generator).tolist()
        return self._blocks(starts[i] for i in order)

    def _of(self, stores: Mapping[str, EmbeddingStore]) -> Self:
        return type(self)(stores, self.tokens_per_block)

    def _check_texts(self) -> None:
        """Refuse other texts: keys of whole documents do not show them, those of words in part."""
        first, *others = self.sources.values()
        for store in others:
            document = first.first_other_text(store)
            if document is not None:
                raise ValueError(
                    f"document {document} is another text in {store.path} than in {first.path}; "
                    "extract both from the same corpus"
                )

    def _blocks(self, steps: Iterator[tuple[Position, Position]]) -> Iterator[Block]:
        self.left_out = dict.fromkeys(self.sources, 0)
        read = ((self._read(start, end), end) for start, end in steps)
        for encoded, end in self._read_ahead(read):
            rows, keys = self._paired(encoded)
            if len(keys):
                yield Block(rows, keys, end)

    def _positions(self, start: Position) -> Iterator[tuple[Position, Position]]:
        """Yield the beginning and the end of every block, counted in rows of the first store."""
        first, n = next(iter(self.sources.values())), self._n_rows()
        while start.row < n:
            row = min(start.row + self.tokens_per_block, n)
            if self.level in BY_DOCUMENT:
                document = first.document_of(row - 1) + 1
                end = Position(Cursor(document), 0, first.rows_before(document))
            else:
                end = Position(Cursor(), 0, row)
            yield start, end
            start = end

    def _n_rows(self) -> int:
        lengths = {seed: len(store) for seed, store in self.sources.items()}
        (name, n), *others = lengths.items()
        odd = next((seed for seed, length in others if length != n), None)
        if odd is not None and self._one_tokenizer:
            raise ValueError(
                f"{name} has {n:,} rows and {odd} has {lengths[odd]:,}; extract both from the "
                "same corpus"
            )
        return n

    def _read(self, start: Position, end: Position) -> dict[str, Encoded]:
        if self._one_tokenizer:
            return {seed: s.read(start.row, end.row) for seed, s in self.sources.items()}
        first, last = start.cursor.number, end.cursor.number
        return {
            seed: store.read(store.rows_before(first), store.rows_before(last))
            for seed, store in self.sources.items()
        }
