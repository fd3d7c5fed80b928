"""What sources of text hand to a corpus: records, good and bad ones."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Protocol

from fastinn.embed.corpus.document import Cursor
from fastinn.embed.corpus.identity import identity_of_texts
from fastinn.embed.corpus.reading import BLANK, TOO_LONG, Fault


class Record(NamedTuple):
    """A record of a corpus.

    Attributes:
        content: Its text, not checked yet, or why there is none.
        key: Name of its document, ``None`` for texts that have none of their own.
        place: File and line, or row, as messages name it.
        end: Place behind it.
    """

    content: str | Fault
    key: str | None
    place: str
    end: Cursor


class Source(Protocol):
    """Records that can be read again from any place on."""

    @property
    def identity(self) -> str:
        """What tells the text from any other of the same name."""
        ...

    def records(self, start: Cursor) -> Iterator[Record]:
        """Yield the records behind ``start``, all of them, in order."""

    def share_before(self, place: Cursor) -> float | None:
        """Return which share of the text is in front of ``place``; ``None`` if nobody knows."""


class Held:
    """Texts in memory.

    Args:
        name: What messages call them.
        read: Returns all ``(key, text)``.
    """

    def __init__(self, name: str, read: Callable[[], Sequence[tuple[str | None, str]]]) -> None:
        self._name = name
        self._read = read

    @cached_property
    def identity(self) -> str:
        """What tells the texts from any others."""
        return identity_of_texts(self._read())

    def records(self, start: Cursor) -> Iterator[Record]:
        """Yield the texts behind ``start``."""
        texts = islice(self._read(), start.number, None)
        for number, (key, text) in enumerate(texts, start=start.number + 1):
            yield Record(text, key, f"{self._name}:{number}", Cursor(number, row=number))

    def share_before(self, place: Cursor) -> float | None:
        """Return which share of the texts is in front of ``place``."""
        return place.number / max(1, len(self._read()))


def checked(content: str | Fault, max_characters: int) -> str | Fault:
    """Return ``content``, or what is wrong with it as the text of a document."""
    if isinstance(content, Fault):
        return content
    if not content.strip():
        return BLANK
    if len(content) > max_characters:
        return TOO_LONG
    try:
        content.encode()
    except UnicodeEncodeError as error:  # bytes that were no UTF-8 are read as lone surrogates
        return Fault("not UTF-8", f"is not UTF-8 at character {error.start + 1}")
    return content
