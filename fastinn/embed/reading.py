"""The text of one block after the other, tokenised, and where reading goes on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastinn.embed.corpus import Corpus, Cursor
from fastinn.embed.tokens import DOCUMENTS_AT_ONCE, Tokens, Window, batched

TOKENS_PER_BLOCK = 16_384


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
        windows: For each tokenizer the windows, in reading order.
        places: Place of each document in [0, 1), by number; see :attr:`Document.place`.
        cursor: Where the document begins in which reading goes on.
        window: Windows of that document already read.
    """

    windows: list[list[Window]]
    places: dict[int, float]
    cursor: Cursor
    window: int


class _Piece(NamedTuple):
    """What is never divided between blocks; its fields are those of :class:`TextBlock`."""

    windows: list[list[Window]]
    place: float
    cursor: Cursor
    window: int


def text_blocks(
    tokens: Sequence[Tokens],
    corpus: Corpus,
    start: Position,
    n_tokens: int,
    *,
    whole: bool,
) -> Iterator[TextBlock]:
    """Yield blocks of at least ``n_tokens`` tokens of the first tokenizer, the last excepted.

    Args:
        tokens: Tokenizers; several only where documents stay whole.
        corpus: Text, or a split of it.
        start: Where to begin.
        n_tokens: When a block is full.
        whole: Keep documents whole; else windows.
    """
    windows: list[list[Window]] = [[] for _ in tokens]
    places: dict[int, float] = {}
    held = 0
    piece = None
    for piece in (_documents if whole else _windows)(tokens, corpus, start):
        for gathered, more in zip(windows, piece.windows, strict=True):
            gathered += more
        first = next(window for more in piece.windows for window in more)
        places[first.document] = piece.place
        held += sum(window.n_tokens for window in piece.windows[0])
        if held >= n_tokens:
            yield TextBlock(windows, places, piece.cursor, piece.window)
            windows, places, held = [[] for _ in tokens], {}, 0
    if piece is not None and places:
        yield TextBlock(windows, places, piece.cursor, piece.window)


def _documents(tokens: Sequence[Tokens], corpus: Corpus, start: Position) -> Iterator[_Piece]:
    """Yield the documents in which any tokenizer finds a token."""
    for batch in batched(corpus.documents(start.cursor), DOCUMENTS_AT_ONCE):
        found = [each.by_document(batch) for each in tokens]
        for document, *windows in zip(batch, *found, strict=True):
            if any(windows):
                yield _Piece(windows, document.place, document.end, 0)


def _windows(tokens: Sequence[Tokens], corpus: Corpus, start: Position) -> Iterator[_Piece]:
    """Yield single windows, without those that were read before ``start``."""
    before, skip = start.cursor, start.window
    for batch in batched(corpus.documents(start.cursor), DOCUMENTS_AT_ONCE):
        for document, windows in zip(batch, tokens[0].by_document(batch), strict=True):
            for i, window in enumerate(windows[skip:], start=skip + 1):
                cursor, read = (document.end, 0) if window.last else (before, i)
                yield _Piece([[window]], document.place, cursor, read)
            before, skip = document.end, 0
