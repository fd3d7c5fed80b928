"""Paired rows of several live encoders, nothing stored."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from fastinn.embed import memory
from fastinn.embed.corpus import Corpus, Split
from fastinn.embed.levels import BY_DOCUMENT
from fastinn.embed.paired import Block, Stream
from fastinn.embed.reading import Position, TextBlock, text_blocks
from fastinn.embed.source import Encoded, Source
from fastinn.embed.tokens import Tokens


class TextStream(Stream):
    """Text that several encoders read side by side.

    Args:
        encoders: Name of each seed and its encoder.
        corpus: Text, or a split of it.
        tokens_per_block: Tokens to gather before a block is handed on.
    """

    sources: dict[str, Source]

    def __init__(
        self, encoders: Mapping[str, Source], corpus: Corpus, tokens_per_block: int
    ) -> None:
        super().__init__(encoders, corpus.name, tokens_per_block)
        self.sources = dict(encoders)
        self.corpus = corpus
        self._tokens, self._tokens_of = _tokenizers(encoders)

    def split(self, split: Split) -> Self:
        """Keep the documents of one split, decided by the hash of each document."""
        return self._of(self.corpus.split(split))

    def shard(self, index: int, count: int) -> Self:
        """Keep the documents of one of ``count`` shards; see :meth:`Corpus.shard`."""
        return self._of(self.corpus.shard(index, count))

    def identity(self) -> dict[str, Any]:
        """Return what two streams share whose blocks are the same, as JSON can hold it."""
        dtypes = {seed: str(encoder.dtype) for seed, encoder in self.sources.items()}
        return {**super().identity(), "text content": self.corpus.identity(), "dtypes": dtypes}

    def fingerprint(self) -> str:
        """Hash of the text, 32 hexadecimal digits."""
        return self.corpus.fingerprint()

    def blocks(self, start: Position | None = None) -> Iterator[Block]:
        """Iterate over the blocks; text is tokenised once for all seeds that share a tokenizer.

        Args:
            start: The ``position`` of the block to go on behind; ``None`` begins anew. Either way
                the blocks are the same, bit for bit.
        """
        position = start or Position()
        self.left_out = dict.fromkeys(self.sources, 0)
        whole = self.level in BY_DOCUMENT
        texts = text_blocks(self._tokens, self.corpus, position, self.tokens_per_block, whole=whole)
        row = position.row
        for text, encoded in self._encoded(self._read_ahead(texts)):
            rows, keys = self._paired(encoded)
            row += len(keys)
            if len(keys):
                yield Block(rows, keys, Position(text.cursor, text.window, row), text.places)

    def _of(self, corpus: Corpus) -> Self:
        narrowed = copy.copy(self)
        narrowed.corpus, narrowed.name = corpus, corpus.name
        return narrowed

    def _encoded(
        self, texts: Iterable[TextBlock]
    ) -> Iterator[tuple[TextBlock, dict[str, Encoded]]]:
        """Encode blocks of text; seeds that do not fit into memory together take turns."""
        takes_turns = not memory.fit_together(e.model for e in self.sources.values())
        for group in _groups(texts, self._blocks_a_turn() if takes_turns else 1):
            encoded: list[dict[str, Encoded]] = [{} for _ in group]
            for name, encoder in self.sources.items():
                for text, seeds in zip(group, encoded, strict=True):
                    seeds[name] = encoder.encode_windows(*text.windows[self._tokens_of[name]])
                if takes_turns:
                    encoder.release()
            yield from zip(group, encoded, strict=True)

    def _blocks_a_turn(self) -> int:
        row = sum(encoder.bytes_per_row for encoder in self.sources.values())
        return memory.blocks_a_turn(row * self.tokens_per_block)


def _groups(texts: Iterable[TextBlock], size: int) -> Iterator[list[TextBlock]]:
    group: list[TextBlock] = []
    for text in texts:
        group.append(text)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _tokenizers(encoders: Mapping[str, Source]) -> tuple[list[Tokens], dict[str, int]]:
    """Return the tokenizers that differ, and the index of each seed's among them."""
    prints = {name: encoder.tokens_fingerprint for name, encoder in encoders.items()}
    found = list(dict.fromkeys(prints.values()))
    index = {name: found.index(mark) for name, mark in prints.items()}
    tokens = {i: encoders[name].tokens for name, i in reversed(index.items())}
    return [tokens[i] for i in range(len(found))], index
