"""Files of a record a line: plain text and JSON lines."""

import json
from collections.abc import Iterator

from fastinn.embed.corpus.document import Cursor
from fastinn.embed.corpus.lines import read_lines
from fastinn.embed.corpus.reading import TOO_LONG, Fault
from fastinn.embed.corpus.rows import Row


def read_txt(path: str, column: str, longest: int, start: Cursor) -> Iterator[Row]:
    """Yield a record for every line."""
    for text, number, end in read_lines(path, longest, start.row, start.byte):
        yield Row(TOO_LONG if text is None else text, number, number, end)


def read_jsonl(path: str, column: str, longest: int, start: Cursor) -> Iterator[Row]:
    """Yield the field ``column`` of the object in every line."""
    for row in read_txt(path, column, longest, start):
        if isinstance(row.content, str) and row.content.strip():
            yield row._replace(content=_field(row.content, column))
        else:
            yield row


def _field(line: str, column: str) -> str | Fault:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # too many brackets, too many digits
        return Fault("not JSON", f"is not JSON: {error}")
    text = record.get(column, 0) if isinstance(record, dict) else 0
    if text is None:
        return ""
    if not isinstance(text, str):
        says = f"has no text under {column!r}; name the field with column="
        return Fault(f"without text under {column!r}", says)
    return text
