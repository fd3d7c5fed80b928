"""Parquet files, and the columns of text in Arrow tables."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastinn.embed.corpus._extra import extra
from fastinn.embed.corpus.document import Cursor
from fastinn.embed.corpus.paths import changed, opened
from fastinn.embed.corpus.rows import Row

ROWS_AT_ONCE = 256
"""Rows to decode at once."""


def read_parquet(path: str, column: str, longest: int, start: Cursor) -> Iterator[Row]:
    """Yield the values of ``column``; only row groups that hold rows behind ``start`` are read."""
    parquet, arrow = extra("pyarrow.parquet", f"reading {path}"), extra("pyarrow", path)
    with opened(path) as file:
        try:
            table = parquet.ParquetFile(file)
            check_column(table.schema_arrow, column, path)
            if start.row > table.metadata.num_rows:
                raise changed(path, f"it has {table.metadata.num_rows} rows, not {start.row}")
            groups, before = _groups_behind(table.metadata, start.row)
            batches = table.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=[column])
            yield from text_rows(batches, column, before, start.row)
        except arrow.ArrowInvalid as error:
            raise ValueError(f"{path} cannot be read as parquet: {error}") from None


def check_column(schema: Any, column: str, name: str) -> None:
    """Raise ``ValueError`` unless ``schema`` has a column of text of that name."""
    arrow = extra("pyarrow", f"reading {name}")
    if column not in schema.names:
        listed = ", ".join(schema.names) or "nothing"
        raise ValueError(f"{name} has no column {column!r}, its columns are {listed}")
    kind = schema.field(column).type
    held = kind.value_type if arrow.types.is_dictionary(kind) else kind
    texts = (arrow.string(), arrow.large_string(), arrow.string_view(), arrow.null())
    if held not in texts:
        raise ValueError(f"column {column!r} of {name} holds {kind}, expected text")


def text_rows(batches: Iterable[Any], column: str, before: int, start: int) -> Iterator[Row]:
    """Yield the rows of Arrow batches or tables as records.

    Args:
        batches: Row ``before`` of the file is the first one in them.
        column: Column of text.
        before: Rows of the file in front of the batches.
        start: Rows of the file in front of the first one to yield.
    """
    arrow = extra("pyarrow", "reading a table")
    for batch in batches:
        fresh = batch.slice(max(start - before, 0)).column(column)
        row = before + len(batch) - len(fresh)
        before += len(batch)
        # As bytes: one text that is not UTF-8 would stop the conversion of the whole batch.
        for data in fresh.cast(arrow.large_string()).cast(arrow.large_binary()).to_pylist():
            row += 1
            yield Row((data or b"").decode("utf-8", "surrogateescape"), row, row, 0)


def _groups_behind(metadata: Any, row: int) -> tuple[list[int], int]:
    """Return the row groups that hold rows from ``row`` on, and the rows in front of them."""
    before = 0
    for group in range(metadata.num_row_groups):
        behind = before + metadata.row_group(group).num_rows
        if behind > row:
            return list(range(group, metadata.num_row_groups)), before
        before = behind
    return [], before
