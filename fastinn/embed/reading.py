"""The text of one block after the other, tokenised, and where reading goes on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from fastinn.embed.corpus import Corpus, Cursor
from fastinn.embed.corpus.narrowing import group_of
from fastinn.embed.tokens import Tokens, Window, batched

TOKENS_PER_BLOCK = 16_384

_PORTIONS = 4
"""Portions of a full block. Batches of "exact" encoders are made within a portion: fewer would
leave blocks less full, more would take more padding."""


@dataclass(frozen=True)
class Position:
    """Where the next block begins.

    Attributes:
        cursor: Place in front of the document that it begins in.
        window: Windows of that document which earlier blocks took.
        row: Rows handed out so far.
    """

    cursor: Cursor = field(default_factory=Cursor)
    window: int = 0
    row: int = 0


class TextBlock(NamedTuple):
    """The text of a block.

    Attributes:
        windows: For each tokenizer the windows, in reading order, portion by portion. Of what a
            portion consists, no shard of the text and no place to begin at has a say.
        places: Place of each document in [0, 1), by number; see :attr:`Document.place`.
        cursor: Where the document begins in which reading goes on.
        window: Windows of that document already read.
    """

    windows: list[list[list[Window]]]
    places: dict[int, float]
    cursor: Cursor
    window: int


class _Piece(NamedTuple):
    """What is never divided between blocks.

    Attributes:
        windows: For each tokenizer those of one document.
        number: Of the document.
        place: See :attr:`TextBlock.places`.
        cursor: See :attr:`TextBlock.cursor`.
        window: See :attr:`TextBlock.window`.
    """

    windows: list[list[Window]]
    number: int
    place: float
    cursor: Cursor
    window: int

    @property
    def n_tokens(self) -> int:
        """Tokens of the first tokenizer."""
        return sum(window.n_tokens for window in self.windows[0])


def text_blocks(
    tokens: Sequence[Tokens],
    corpus: Corpus,
    start: Position,
    n_tokens: int,
    *,
    whole: bool,
) -> Iterator[TextBlock]:
    """Yield blocks of at most ``n_tokens`` tokens of the first tokenizer.

    One that a single portion fills may have a window, or a document, more.

    Args:
        tokens: Tokenizers; several only where documents stay whole.
        corpus: Text, or a split of it.
        start: Where to begin.
        n_tokens: When a block is full.
        whole: Keep documents whole; else windows.
    """
    pieces = (_documents if whole else _windows)(tokens, corpus, start)
    gathered: list[list[_Piece]] = []
    held = 0
    for portion in _portions(pieces, max(1, n_tokens // _PORTIONS)):
        size = sum(piece.n_tokens for piece in portion)
        if gathered and held + size > n_tokens:
            yield _block(gathered)
            gathered, held = [], 0
        gathered.append(portion)
        held += size
    if gathered:
        yield _block(gathered)


def _portions(pieces: Iterable[_Piece], n_tokens: int) -> Iterator[list[_Piece]]:
    """Divide each group of documents that shards have in common, counted from its beginning."""
    for _, group in groupby(pieces, lambda piece: group_of(piece.number)):
        portion: list[_Piece] = []
        held = 0
        for piece in group:
            portion.append(piece)
            held += piece.n_tokens
            if held >= n_tokens:
                yield portion
                portion, held = [], 0
        if portion:
            yield portion


def _block(portions: Sequence[Sequence[_Piece]]) -> TextBlock:
    last = portions[-1][-1]
    windows = [
        [[w for piece in portion for w in piece.windows[i]] for portion in portions]
        for i in range(len(last.windows))
    ]
    places = {piece.number: piece.place for portion in portions for piece in portion}
    return TextBlock(windows, places, last.cursor, last.window)


def _documents(tokens: Sequence[Tokens], corpus: Corpus, start: Position) -> Iterator[_Piece]:
    """Yield the documents in which any tokenizer finds a token."""
    for batch in batched(corpus.documents(start.cursor)):
        found = [each.by_document(batch) for each in tokens]
        for document, *windows in zip(batch, *found, strict=True):
            if any(windows):
                yield _Piece(windows, document.number, document.place, document.end, 0)


def _windows(tokens: Sequence[Tokens], corpus: Corpus, start: Position) -> Iterator[_Piece]:
    """Yield single windows, without those that were read before ``start``."""
    before, skip = start.cursor, start.window
    for batch in batched(corpus.documents(start.cursor)):
        for document, windows in zip(batch, tokens[0].by_document(batch), strict=True):
            for i, window in enumerate(windows[skip:], start=skip + 1):
                cursor, read = (document.end, 0) if window.last else (before, i)
                yield _Piece([[window]], document.number, document.place, cursor, read)
            before, skip = document.end, 0
