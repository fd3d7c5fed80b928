"""Data sets that the library ``datasets`` streams, from the hub or from files."""

from collections.abc import Iterator, Sequence
from typing import Any

from fastinn.embed.corpus._extra import extra
from fastinn.embed.corpus.document import BEGINNING, Cursor, digest
from fastinn.embed.corpus.parquet import ROWS_AT_ONCE, check_column, text_rows
from fastinn.embed.corpus.paths import changed, printable
from fastinn.embed.corpus.records import Record


class HubDataset:
    """One split of a data set; see :meth:`Corpus.from_dataset`.

    Rows are counted here: a cursor is a shard of the data set, which is a file of it, and the
    rows of the shard that are behind. Resuming opens that shard and reads past those rows.
    """

    def __init__(
        self,
        path: str,
        config: str | None,
        split: str,
        column: str,
        revision: str | None,
        data_files: str | Sequence[str] | None,
    ) -> None:
        datasets = extra("datasets", f"reading the data set {path}")
        self.name = printable(" ".join(part for part in (path, config, split) if part))
        self._column = column
        builder = datasets.load_dataset_builder(
            path, config, revision=revision, data_files=data_files
        )
        self.identity = _identity(builder, split, column)
        self._rows = builder.as_streaming_dataset(split).with_format("arrow")
        first = next(self._batches(self._rows, rows_at_once=1), None)
        if first is not None:
            check_column(first.schema, column, self.name)
            self._rows = self._rows.select_columns([column])

    def records(self, start: Cursor) -> Iterator[Record]:
        """Yield the rows behind ``start``."""
        shards = self._rows.num_shards
        if start.file >= shards:
            raise changed(self.name, f"it has {shards} shards")
        number = start.number
        for file in range(start.file, shards):
            batches = self._batches(self._rows.shard(shards, file))
            for content, _, row, _ in text_rows(batches, self._column, 0, start.row):
                number += 1
                place = f"{self.name}, shard {file}:{row}"
                yield Record(content, None, place, Cursor(number, file, row))
            start = BEGINNING

    def share_before(self, place: Cursor) -> float | None:
        """Say that it is not known: what is streamed tells its length at its end."""
        return None

    def _batches(self, rows: Any, rows_at_once: int = ROWS_AT_ONCE) -> Iterator[Any]:
        try:
            yield from rows.iter(rows_at_once)
        except ValueError as error:  # Arrow's own too
            raise ValueError(
                f"{self.name} cannot be read: {error}; Corpus.from_files reads its files record "
                "by record and leaves bad ones out"
            ) from None


def _identity(builder: Any, split: str, column: str) -> str:
    """Return what tells the text from any other: commits on the hub, tags or dates of files."""
    marks = sorted(
        str(mark)
        for files in (builder.config.data_files or {}).values()
        for mark in files.origin_metadata
    )
    told = digest(f"{builder.hash} {marks}").hex()
    return f"{len(marks)} marks of files, {told}, split {split}, column {column}"
