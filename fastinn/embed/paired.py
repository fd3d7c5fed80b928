"""Blocks of rows of the same tokens in every seed, wherever the rows come from."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from fastinn.embed.corpus import Cursor, Split
from fastinn.embed.levels import BY_DOCUMENT
from fastinn.embed.pairing import check_keys, shared_keys
from fastinn.embed.prefetch import Prefetch
from fastinn.embed.reading import Position
from fastinn.embed.source import Encoded

T = TypeVar("T")


class Readable(Protocol):
    """What a seed is read from: a live encoder or a store."""

    @property
    def level(self) -> str:
        """What a row is."""
        ...

    @property
    def layers(self) -> Sequence[Any]:
        """What is read, in order."""
        ...

    @property
    def n_features(self) -> int:
        """Width of a row."""
        ...

    @property
    def n_layers(self) -> int:
        """Number of Transformer layers of the model."""
        ...

    @property
    def source(self) -> str:
        """Hub id or folder of the model."""
        ...

    @property
    def revision(self) -> str | None:
        """Commit on the hub; ``None`` for a local folder."""
        ...

    @property
    def tokens_fingerprint(self) -> str:
        """Hash of tokenizer and window length; equal ones pair token by token."""
        ...

    def fingerprint(self) -> str:
        """Hash of the weights."""
        ...


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows of the same tokens in every view.

    Attributes:
        rows: For each ``(seed, layer)`` the states, shape ``(n, d)``.
        keys: What each row is, shape ``(n, 3)``; see :class:`Encoded`.
        position: Where the next block begins.
        places: Place of each document in [0, 1), by number; see :attr:`Document.place`. Empty
            where rows come from stores.
    """

    rows: dict[tuple[str, Any], Tensor]
    keys: Tensor
    position: Position
    places: Mapping[int, float] = dataclasses.field(default_factory=dict)

    @property
    def documents(self) -> Tensor:
        """Document number of each row, shape ``(n,)``."""
        return self.keys[:, 0]


class Stream(ABC):
    """Blocks of paired rows that can be iterated again and again; see :func:`stream`.

    Attributes:
        sources: What each seed is read from.
        name: What to call the text, in messages and reports.
        tokens_per_block: Tokens, or rows, to gather before a block is handed on.
        left_out: For each seed the rows of the last iteration that another seed does not have;
            all 0 unless tokenizers differ.
    """

    sources: Mapping[str, Readable]

    def __init__(self, sources: Mapping[str, Readable], name: str, tokens_per_block: int) -> None:
        self.level = _common_level(sources)
        self.name = name
        self.tokens_per_block = tokens_per_block
        self.left_out = dict.fromkeys(sources, 0)
        prints = {seed: source.tokens_fingerprint for seed, source in sources.items()}
        self._one_tokenizer = len(set(prints.values())) == 1
        if not self._one_tokenizer and self.level not in BY_DOCUMENT:
            _refuse_tokenizers(prints)
        self._prefetch: Prefetch[Any] | None = None

    @property
    def n_features(self) -> dict[tuple[str, Any], int]:
        """Width of each view."""
        return views_of(self.sources)

    @property
    def stall_share(self) -> float:
        """Share of the last iteration's time that was spent waiting for what is read ahead."""
        return 0.0 if self._prefetch is None else self._prefetch.stall_share

    @abstractmethod
    def split(self, split: Split) -> Self:
        """Keep the documents of one split, decided by the hash of each document."""

    @abstractmethod
    def shard(self, index: int, count: int) -> Self:
        """Keep the documents of one of ``count`` shards; see :meth:`Corpus.shard`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the text, 32 hexadecimal digits."""

    @abstractmethod
    def blocks(self, start: Position | None = None) -> Iterator[Block]:
        """Iterate over the blocks; none is empty.

        Args:
            start: The ``position`` of the block to go on behind; ``None`` begins anew. Either way
                the blocks are the same, bit for bit.
        """

    def __iter__(self) -> Iterator[Block]:
        """Iterate over the blocks from the beginning."""
        return self.blocks()

    def shuffled(self, generator: torch.Generator) -> Iterator[Block]:
        """Iterate over the blocks, where it costs nothing in an order that ``generator`` draws."""
        return self.blocks()

    def identity(self) -> dict[str, Any]:
        """Return what two streams share whose blocks are the same, as JSON can hold it."""
        return {
            "text": self.name,
            "tokens_per_block": self.tokens_per_block,
            "level": self.level,
            "seeds": {
                seed: [source.source, source.fingerprint(), source.tokens_fingerprint]
                for seed, source in self.sources.items()
            },
        }

    def pair(
        self,
        source: tuple[str, Any],
        target: tuple[str, Any],
        *,
        move: Callable[[Tensor], Tensor] = lambda rows: rows,
    ) -> "PairStream":
        """Narrow the stream to two views, as the aligners' ``fit_stream`` reads them.

        Args:
            source: View to map from.
            target: View to map into.
            move: Brings the rows of a block to where they are wanted, such as a GPU.

        Raises:
            ValueError: If a view is not in the stream.
        """
        for view in (source, target):
            _check_view(view, self.sources)
        return PairStream(self, source, target, move)

    def _read_ahead(self, items: Iterable[T]) -> Prefetch[T]:
        self._prefetch = prefetch = Prefetch(items)
        return prefetch

    def _paired(
        self, encoded: Mapping[str, Encoded]
    ) -> tuple[dict[tuple[str, Any], Tensor], Tensor]:
        """Return the rows that all seeds have, and their keys."""
        keys = {seed: states.keys for seed, states in encoded.items()}
        keep = {} if self._one_tokenizer else shared_keys(keys)
        for seed, kept in keep.items():
            keys[seed] = keys[seed][kept]
            self.left_out[seed] += int((~kept).sum())
        rows = {
            (seed, layer): rows[keep[seed]] if keep else rows
            for seed, states in encoded.items()
            for layer, rows in states.rows.items()
        }
        return rows, check_keys(keys)


@dataclasses.dataclass(frozen=True)
class PairStream:
    """The two views of one aligner: an iterable of ``(x, y, documents)``."""

    stream: Stream
    source: tuple[str, Any]
    target: tuple[str, Any]
    move: Callable[[Tensor], Tensor]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Iterate over the blocks from the first document on."""
        return self._of(self.stream)

    def shuffled(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Iterate over the blocks in an order that ``generator`` draws, if they come from stores.

        Live encoders read text from its beginning to its end, whatever the generator says.
        """
        return self._of(self.stream.shuffled(generator))

    def identity(self) -> dict[str, Any]:
        """Return what two of them share whose rows are the same, as JSON can hold it."""
        return {**self.stream.identity(), "views": [list(self.source), list(self.target)]}

    def _of(self, blocks: Iterable[Block]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for block in blocks:
            x, y = (self.move(block.rows[view]) for view in (self.source, self.target))
            yield x, y, block.documents


def position_of(record: Mapping[str, Any]) -> Position:
    """Return the position of which ``record`` is the JSON of ``dataclasses.asdict``."""
    return Position(**{**record, "cursor": Cursor(**record["cursor"])})


def views_of(sources: Mapping[str, Readable]) -> dict[tuple[str, Any], int]:
    """Return the width of each ``(seed, layer)`` that the sources hold."""
    return {
        (seed, layer): source.n_features
        for seed, source in sources.items()
        for layer in source.layers
    }


def _check_view(view: tuple[str, Any], sources: Mapping[str, Readable]) -> None:
    if view in views_of(sources):
        return
    there = f"the stream has the seeds {', '.join(sources)}"
    if view[0] in sources:
        there = f"{view[0]} is read at {', '.join(map(str, sources[view[0]].layers))}"
    raise ValueError(f"there is no view {view}: {there}; give a seed and one of its layers")


def _common_level(sources: Mapping[str, Readable]) -> str:
    if not sources:
        raise ValueError("there is no encoder or store to stream from; give at least one seed")
    (first, reference), *others = sources.items()
    for name, source in others:
        if source.level != reference.level:
            raise ValueError(
                f"{first} reads level {reference.level!r} and {name} reads {source.level!r}; "
                "give all seeds the same level"
            )
    return reference.level


def _refuse_tokenizers(prints: Mapping[str, str]) -> None:
    (first, expected), *others = prints.items()
    name = next(name for name, found in others if found != expected)
    raise ValueError(
        f"{name} and {first} have different tokenizers or window lengths, so their rows cannot be "
        "paired token by token; give seeds that share a tokenizer and the same max_length, or use "
        "level 'word', 'sentence' or 'cls'"
    )
