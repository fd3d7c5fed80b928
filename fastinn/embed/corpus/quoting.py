"""Quotes of csv in text that is not kept: they say where a record ends."""

_NEXT_BEHIND_QUOTE = {
    "at a field": "quoted",
    "in a field": "in a field",
    "quoted": "behind a quote",  # the closing one, or the first of two that stand for one
    "behind a quote": "quoted",
}


class Quoting:
    """Follows one line of a table, piece by piece, as Python's csv reader does.

    Args:
        is_open: Whether the line begins within a quoted field.
    """

    def __init__(self, is_open: bool) -> None:
        self._state = "quoted" if is_open else "at a field"

    @property
    def is_open(self) -> bool:
        """Whether what was read so far ends within a quoted field."""
        return self._state == "quoted"

    def read(self, piece: bytes) -> None:
        """Read on."""
        first, *others = piece.split(b'"')
        self._read_unquoted(first)
        for text in others:
            self._state = _NEXT_BEHIND_QUOTE[self._state]
            self._read_unquoted(text)

    def _read_unquoted(self, text: bytes) -> None:
        """Read text without a quote, of which only the last character has a say."""
        if text and not self.is_open:
            self._state = "at a field" if text.endswith(b",") else "in a field"
