"""Paired rows of several seeds, block after block, nothing stored."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from fastinn.embed.corpus import Corpus
from fastinn.embed.encoder import TOKENS_PER_BLOCK, Encoder, blocks_of_windows


@dataclass(frozen=True)
class Block:
    """Rows of the same tokens in every view.

    Attributes:
        rows: For each ``(seed, layer)`` the states, shape ``(n, d)``.
        keys: Document, position and token id of each row, shape ``(n, 3)``.
    """

    rows: dict[tuple[str, int], Tensor]
    keys: Tensor

    @property
    def documents(self) -> Tensor:
        """Document number of each row, shape ``(n,)``."""
        return self.keys[:, 0]


class Stream:
    """Blocks of paired rows that can be iterated again and again; see :func:`stream`."""

    def __init__(
        self, encoders: Mapping[str, Encoder], corpus: Corpus, *, tokens_per_block: int
    ) -> None:
        _check_tokenizers(encoders)
        self.encoders = dict(encoders)
        self.corpus = corpus
        self.tokens_per_block = tokens_per_block

    @property
    def n_features(self) -> dict[tuple[str, int], int]:
        """Width of each view."""
        return views_of(self.encoders)

    def __iter__(self) -> Iterator[Block]:
        """Iterate over the blocks; the text is tokenised once for all seeds."""
        tokens = next(iter(self.encoders.values())).tokens
        for windows in blocks_of_windows(tokens.windows(self.corpus), self.tokens_per_block):
            encoded = {name: e.encode_windows(windows) for name, e in self.encoders.items()}
            yield Block(
                rows={
                    (seed, layer): rows
                    for seed, states in encoded.items()
                    for layer, rows in states.rows.items()
                },
                keys=check_keys({seed: states.keys for seed, states in encoded.items()}),
            )

    def pair(self, source: tuple[str, int], target: tuple[str, int]) -> "PairStream":
        """Narrow the stream to two views, as the aligners' ``fit_stream`` reads them."""
        return PairStream(self, source, target)


@dataclass(frozen=True)
class PairStream:
    """The two views of one aligner: an iterable of ``(x, y, documents)``."""

    stream: Stream
    source: tuple[str, int]
    target: tuple[str, int]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Iterate over the blocks from the first document on."""
        for block in self.stream:
            yield block.rows[self.source], block.rows[self.target], block.documents


def stream(
    sources: Mapping[str, Encoder], corpus: Corpus, *, tokens_per_block: int = TOKENS_PER_BLOCK
) -> Stream:
    """Stream the rows of several seeds over one corpus.

    Args:
        sources: Name of each seed and its encoder; all must share one tokenizer.
        corpus: Text, or a split of it.
        tokens_per_block: Tokens to gather before a block is handed on; memory grows with it and
            with nothing else.

    Returns:
        An iterable of :class:`Block`, the same at every iteration.

    Raises:
        ValueError: If the tokenizers differ.
    """
    return Stream(sources, corpus, tokens_per_block=tokens_per_block)


def views_of(encoders: Mapping[str, Encoder]) -> dict[tuple[str, int], int]:
    """Return the width of each ``(seed, layer)`` that the encoders read."""
    return {
        (seed, layer): encoder.n_features
        for seed, encoder in encoders.items()
        for layer in encoder.layers
    }


def check_keys(keys: Mapping[str, Tensor]) -> Tensor:
    """Return the keys that all seeds share, or name the first row in which two seeds differ."""
    (first, expected), *others = keys.items()
    for name, found in others:
        if len(found) != len(expected):
            raise ValueError(
                f"{first} has {len(expected)} rows and {name} has {len(found)}; both must read "
                "the same corpus with the same tokenizer"
            )
        differs = (found != expected).any(dim=1).nonzero()
        if len(differs):
            row = int(differs[0])
            raise ValueError(
                f"row {row} is (document, position, token) {tuple(expected[row].tolist())} in "
                f"{first} and {tuple(found[row].tolist())} in {name}; both must read the same "
                "corpus with the same tokenizer"
            )
    return expected


def _check_tokenizers(encoders: Mapping[str, Encoder]) -> None:
    if not encoders:
        raise ValueError("there is no encoder to stream from; give at least one seed")
    (first, reference), *others = encoders.items()
    for name, encoder in others:
        if encoder.tokens.fingerprint() != reference.tokens.fingerprint():
            raise ValueError(
                f"{name} and {first} have different tokenizers or window lengths, so their rows "
                "cannot be paired token by token; give seeds that share a tokenizer and the same "
                "max_length"
            )
