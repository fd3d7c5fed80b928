"""Paired rows of several seeds, block after block, nothing stored."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastinn.embed import memory
from fastinn.embed.corpus import Corpus
from fastinn.embed.pairing import check_keys, shared_keys
from fastinn.embed.prefetch import Prefetch
from fastinn.embed.reading import TOKENS_PER_BLOCK, Position, TextBlock, text_blocks
from fastinn.embed.source import Encoded, Source
from fastinn.embed.tokens import Tokens


@dataclass(frozen=True)
class Block:
    """Rows of the same tokens in every view.

    Attributes:
        rows: For each ``(seed, layer)`` the states, shape ``(n, d)``.
        keys: What each row is, shape ``(n, 3)``; see :class:`Encoded`.
        position: Where the next block begins.
        places: Place of each document in [0, 1), by number; see :attr:`Document.place`.
    """

    rows: dict[tuple[str, Any], Tensor]
    keys: Tensor
    position: Position
    places: dict[int, float]

    @property
    def documents(self) -> Tensor:
        """Document number of each row, shape ``(n,)``."""
        return self.keys[:, 0]


class Stream:
    """Blocks of paired rows that can be iterated again and again; see :func:`stream`.

    Attributes:
        left_out: For each seed the rows of the last iteration that another seed does not have;
            all 0 unless tokenizers differ.
    """

    def __init__(
        self, encoders: Mapping[str, Source], corpus: Corpus, *, tokens_per_block: int
    ) -> None:
        self.level = _check_levels(encoders)
        self._tokens, self._tokens_of = _tokenizers(encoders)
        if len(self._tokens) > 1 and self.level not in Source.BY_DOCUMENT:
            _refuse_tokenizers(encoders, self._tokens_of)
        self.encoders = dict(encoders)
        self.corpus = corpus
        self.tokens_per_block = tokens_per_block
        self.left_out = dict.fromkeys(encoders, 0)
        self._prefetch: Prefetch[TextBlock] | None = None

    @property
    def n_features(self) -> dict[tuple[str, Any], int]:
        """Width of each view."""
        return views_of(self.encoders)

    @property
    def stall_share(self) -> float:
        """Share of the last iteration's time in which the models waited for text."""
        return 0.0 if self._prefetch is None else self._prefetch.stall_share

    def __iter__(self) -> Iterator[Block]:
        """Iterate over the blocks from the beginning."""
        return self.blocks()

    def blocks(self, start: Position | None = None) -> Iterator[Block]:
        """Iterate over the blocks; text is tokenised once for all seeds that share a tokenizer.

        Args:
            start: The ``position`` of the block to go on behind; ``None`` begins anew. Either way
                the blocks are the same, bit for bit.
        """
        position = start or Position()
        self.left_out = dict.fromkeys(self.encoders, 0)
        self._prefetch = Prefetch(
            text_blocks(
                self._tokens,
                self.corpus,
                position,
                self.tokens_per_block,
                whole=self.level in Source.BY_DOCUMENT,
            )
        )
        row = position.row
        for text, encoded in self._encoded(self._prefetch):
            block = self._block(text, encoded, row)
            row = block.position.row
            yield block

    def _encoded(
        self, texts: Iterable[TextBlock]
    ) -> Iterator[tuple[TextBlock, dict[str, Encoded]]]:
        """Encode blocks of text; seeds that do not fit into memory together take turns."""
        takes_turns = not memory.fit_together(e.model for e in self.encoders.values())
        for group in _groups(texts, self._blocks_a_turn() if takes_turns else 1):
            encoded: list[dict[str, Encoded]] = [{} for _ in group]
            for name, encoder in self.encoders.items():
                for text, seeds in zip(group, encoded, strict=True):
                    seeds[name] = encoder.encode_windows(text.windows[self._tokens_of[name]])
                if takes_turns:
                    encoder.release()
            yield from zip(group, encoded, strict=True)

    def _blocks_a_turn(self) -> int:
        row = sum(encoder.bytes_per_row for encoder in self.encoders.values())
        return memory.blocks_a_turn(row * self.tokens_per_block)

    def _block(self, text: TextBlock, encoded: dict[str, Encoded], row: int) -> Block:
        keys = {seed: states.keys for seed, states in encoded.items()}
        keep = shared_keys(keys) if len(self._tokens) > 1 else {}
        for seed, kept in keep.items():
            keys[seed] = keys[seed][kept]
            self.left_out[seed] += int((~kept).sum())
        rows = {
            (seed, layer): rows[keep[seed]] if keep else rows
            for seed, states in encoded.items()
            for layer, rows in states.rows.items()
        }
        shared = check_keys(keys)
        position = Position(text.cursor, text.window, row + len(shared))
        return Block(rows, shared, position, text.places)

    def pair(self, source: tuple[str, Any], target: tuple[str, Any]) -> "PairStream":
        """Narrow the stream to two views, as the aligners' ``fit_stream`` reads them."""
        return PairStream(self, source, target)


@dataclass(frozen=True)
class PairStream:
    """The two views of one aligner: an iterable of ``(x, y, documents)``."""

    stream: Stream
    source: tuple[str, Any]
    target: tuple[str, Any]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Iterate over the blocks from the first document on."""
        for block in self.stream:
            yield block.rows[self.source], block.rows[self.target], block.documents


def stream(
    sources: Mapping[str, Source], corpus: Corpus, *, tokens_per_block: int = TOKENS_PER_BLOCK
) -> Stream:
    """Stream the rows of several seeds over one corpus.

    Seeds whose models fit into half of the free memory are held together. Otherwise they take
    turns: each is loaded, encodes as many blocks as fit into half of the free host memory, and is
    let go. The blocks are the same, bit for bit.

    Args:
        sources: Name of each seed and its encoder. They share a level, and at level ``"token"``
            a tokenizer; at the others, rows that a seed lacks are left out in all of them.
        corpus: Text, or a split of it.
        tokens_per_block: Tokens to gather before a block is handed on; memory grows with it and
            with nothing else.

    Returns:
        An iterable of :class:`Block`, the same at every iteration.

    Raises:
        ValueError: If levels or tokenizers differ that must not.
    """
    return Stream(sources, corpus, tokens_per_block=tokens_per_block)


def views_of(encoders: Mapping[str, Source]) -> dict[tuple[str, Any], int]:
    """Return the width of each ``(seed, layer)`` that the encoders read."""
    return {
        (seed, layer): encoder.n_features
        for seed, encoder in encoders.items()
        for layer in encoder.layers
    }


def _groups(texts: Iterable[TextBlock], size: int) -> Iterator[list[TextBlock]]:
    group: list[TextBlock] = []
    for text in texts:
        group.append(text)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _check_levels(encoders: Mapping[str, Source]) -> str:
    if not encoders:
        raise ValueError("there is no encoder to stream from; give at least one seed")
    (first, reference), *others = encoders.items()
    for name, encoder in others:
        if encoder.level != reference.level:
            raise ValueError(
                f"{first} reads level {reference.level!r} and {name} reads {encoder.level!r}; "
                "give all seeds the same level"
            )
    return reference.level


def _tokenizers(encoders: Mapping[str, Source]) -> tuple[list[Tokens], dict[str, int]]:
    """Return the tokenizers that differ, and the index of each seed's among them."""
    prints = {name: encoder.tokens.fingerprint() for name, encoder in encoders.items()}
    found = list(dict.fromkeys(prints.values()))
    index = {name: found.index(mark) for name, mark in prints.items()}
    tokens = {i: encoders[name].tokens for name, i in reversed(index.items())}
    return [tokens[i] for i in range(len(found))], index


def _refuse_tokenizers(encoders: Mapping[str, Source], index: Mapping[str, int]) -> None:
    first = next(iter(encoders))
    name = next(name for name, i in index.items() if i)
    raise ValueError(
        f"{name} and {first} have different tokenizers or window lengths, so their rows cannot be "
        "paired token by token; give seeds that share a tokenizer and the same max_length, or use "
        "level 'word', 'sentence' or 'cls'"
    )
