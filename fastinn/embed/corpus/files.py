"""Files as one source of records."""

from collections.abc import Iterator, Sequence
from functools import cached_property

from fastinn.embed.corpus.document import BEGINNING, Cursor
from fastinn.embed.corpus.identity import identity_of_files
from fastinn.embed.corpus.parquet import read_parquet
from fastinn.embed.corpus.paths import changed, ending, files_at, name_of, plain_size
from fastinn.embed.corpus.plain import read_jsonl, read_txt
from fastinn.embed.corpus.reading import TOO_LONG, Fault
from fastinn.embed.corpus.records import Record
from fastinn.embed.corpus.rows import Reader, Row
from fastinn.embed.corpus.table import read_table

_READERS: dict[str, Reader] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_parquet,
}

_BYTES_PER_CHARACTER = 16
"""What longer lines are not even held for: JSON may take 12, and has other fields beside."""


class Files:
    """Files read one after the other; see :meth:`Corpus.from_files`."""

    def __init__(self, paths: Sequence[str], column: str, max_characters: int) -> None:
        if not paths:
            raise ValueError("there is no file to read; give at least one path")
        self.name = name_of(paths[0]) + (f"+{len(paths) - 1}" if paths[1:] else "")
        self._paths = [file for path in paths for file in _readable(path)]
        self._column = column
        self._longest = _BYTES_PER_CHARACTER * max_characters
        for path in self._paths:
            self._check_first_record(path)

    def records(self, start: Cursor) -> Iterator[Record]:
        """Yield the records behind ``start``."""
        if start.file >= len(self._paths):
            raise changed(self.name, f"it has {len(self._paths)} files")
        number = start.number
        for file, path in enumerate(self._paths[start.file :], start=start.file):
            for content, line, row, byte in self._rows(path, start):
                number += 1
                yield Record(content, None, f"{path}:{line}", Cursor(number, file, row, byte))
            start = BEGINNING

    @cached_property
    def identity(self) -> str:
        """What tells the text from any other."""
        return f"{identity_of_files(self._paths)}, column {self._column}"

    def share_before(self, place: Cursor) -> float | None:
        """Return which share of the bytes is in front of ``place``, if they can be counted."""
        sizes = [plain_size(path) for path in self._paths]
        if ending(self._paths[place.file]) == ".parquet" or None in sizes:
            return None
        counted = [size or 0 for size in sizes]
        return (sum(counted[: place.file]) + place.byte) / max(1, sum(counted))

    def _rows(self, path: str, start: Cursor = BEGINNING) -> Iterator[Row]:
        return _READERS[ending(path)](path, self._column, self._longest, start)

    def _check_first_record(self, path: str) -> None:
        """Raise ``ValueError`` if the file is not what it should be, before a long run begins."""
        for content, line, _, _ in self._rows(path):
            if isinstance(content, Fault) and content is not TOO_LONG:
                raise ValueError(f"{path}:{line} {content.says}")
            if isinstance(content, Fault) or content.strip():
                return


def _readable(path: str) -> list[str]:
    """Return the files at ``path`` that can be read; all of them must, unless it is a folder."""
    found = files_at(path)
    known = [file for file in found if ending(file) in _READERS]
    if known or found != [path]:
        return known or _refuse(path, "holds no file that can be read")
    return _refuse(path, f"ends in {ending(path)!r}")


def _refuse(path: str, why: str) -> list[str]:
    raise ValueError(f"corpus {path} {why}, expected one of {', '.join(_READERS)}")
