"""One writer of a store: rows in, committed parts out."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from fastinn import _checks
from fastinn.embed.source import Encoded
from fastinn.embed.store import _disk
from fastinn.embed.store.files import LocalFiles
from fastinn.embed.store.header import StoreHeader, settle_header
from fastinn.embed.store.journal import commit_line, last_line
from fastinn.embed.store.journal_file import JournalFile
from fastinn.embed.store.layout import SHARD, UNFINISHED, folder_of
from fastinn.embed.store.part import GrowingPart, as_stored, documents_of
from fastinn.embed.store.shard import shards_of


class StoreWriter:
    """Writes its share of a store; killed at any moment, it goes on from the last committed part.

    What it writes depends on the blocks that are appended and on nothing else: a writer that was
    killed and goes on from :attr:`position` ends with the bytes of one that was not. As a context
    manager it closes the store at the end, unless there was an error.

    Args:
        path: Local folder of the store; made if it is not there.
        header: What the store is; its ``writers`` is set to the argument of that name.
        writer: Number of this writer, from 0.
        writers: How many there are; each has documents of its own.

    Raises:
        ValueError: If the folder holds another store or a damaged one, or another process writes
            as this writer.
        OSError: If the disk is full or fails; the file is named.
    """

    def __init__(
        self, path: str | Path, header: StoreHeader, writer: int = 0, writers: int = 1
    ) -> None:
        if "://" in str(path):
            raise ValueError(f"store {path} is remote; write to a local folder and copy it there")
        if not 0 <= writer < writers:
            raise ValueError(f"writer is {writer}, expected 0 to {writers - 1}")
        self.header = dataclasses.replace(header, writers=writers)
        self._root, self._writer = Path(path), writer
        self._part: GrowingPart | None = None
        self._broken = False
        _disk.make_folder(self._root)
        settle_header(self._root, self.header, LocalFiles(self._root))
        for folder in self._folders():
            _disk.make_folder(folder)
        self._journal = JournalFile(self._root, self.header, writer)
        self._take_over()

    def _take_over(self) -> None:
        found = self._journal.found
        self._commits, self._finished = list(found.commits), found.finished
        self._position = found.position
        self._last = found.commits[-1].last if found.commits else 0
        try:
            self._check_committed()
            self._remove_uncommitted()
        except BaseException:
            self._journal.close()
            raise

    @property
    def position(self) -> Mapping[str, Any] | None:
        """Where the corpus is read on from, as it was appended; ``None`` at its beginning.

        Right after opening it is that of the last committed part.
        """
        return self._position

    @property
    def rows(self) -> int:
        """Rows that this writer has written so far, those of earlier runs included."""
        held = self._part.rows if self._part else 0
        return sum(commit.rows for commit in self._commits) + held

    @property
    def finished(self) -> bool:
        """Whether the writer was closed, by this run or an earlier one."""
        return self._finished

    def append(
        self, encoded: Encoded, places: Mapping[int, float], position: Mapping[str, Any]
    ) -> None:
        """Write rows.

        Args:
            encoded: Rows of all layers of the store, documents ascending.
            places: Place in [0, 1] of each document in it, from which splits are made.
            position: Where the corpus is read on from behind these rows; anything that JSON takes.

        Raises:
            ValueError: If the rows do not fit the store or hold NaN or infinity.
            OSError: If the disk is full or fails; open the store again to go on.
        """
        if self._finished or self._broken:
            state = "failed before" if self._broken else "is finished"
            raise ValueError(f"writer {self._writer} of {self._root} {state}; open another one")
        stored = as_stored(encoded, self.header)
        self._check_rows(stored)
        self._check_documents(stored, places)
        position = json.loads(json.dumps(position, allow_nan=False))
        self._broken = True  # until all of it is written
        self._write(stored, places)
        self._position = position
        if self._part and self._part.rows >= self.header.rows_per_shard:
            self._commit()
        self._broken = False

    def close(self) -> None:
        """Commit what is left and close this writer's share for good.

        After an error, it only lets go of the files.
        """
        try:
            if not (self._finished or self._broken):
                self._broken = True
                self._commit()
                self._journal.append(last_line(self._commits))
                self._finished, self._broken = True, False
        finally:
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._let_go()

    def _write(self, stored: Encoded, places: Mapping[int, float]) -> None:
        if not len(stored.keys):
            return
        if self._part is None:
            where = self._writer, len(self._commits)
            self._part = GrowingPart(self._root, self.header, *where)
        self._part.append(stored, places)
        self._last = int(stored.keys[-1, 0])

    def _commit(self) -> None:
        if self._part is None:
            return
        commit = self._part.finish(self._position or {})
        self._journal.append(commit_line(commit))
        self._commits.append(commit)
        self._part = None

    def _let_go(self) -> None:
        if self._part is not None:
            self._part.close()
        self._journal.close()

    def _check_rows(self, stored: Encoded) -> None:
        for layer, rows in stored.rows.items():
            if len(rows):
                _checks.finite(rows, f"layer {layer} as {self.header.dtype}")

    def _check_documents(self, stored: Encoded, places: Mapping[int, float]) -> None:
        keys = stored.keys
        if keys.shape != (len(keys), 3):
            raise ValueError(f"keys have shape {tuple(keys.shape)}, expected (n_rows, 3)")
        before = self._last
        for document in documents_of(keys)[0]:
            if document < before:
                raise ValueError(
                    f"document {document} comes behind {before}; append documents in ascending "
                    "order, going on from the writer's position"
                )
            if not 0 <= places.get(document, -1.0) <= 1:
                raise ValueError(f"document {document} has no place in [0, 1] in places")
            before = document

    def _check_committed(self) -> None:
        files = LocalFiles(self._root)
        for shard in shards_of(self.header, self._commits):
            try:
                size = files.size(shard.name)
            except FileNotFoundError:
                size = 0
            if size != shard.size:
                raise ValueError(
                    f"{shard.name} of {self._root} has {size} bytes, the journal says "
                    f"{shard.size}; restore it from a copy, or extract into a new folder"
                )

    def _remove_uncommitted(self) -> None:
        mine = f"part-{self._writer}-"
        committed = {f"{mine}{commit.part}{SHARD}" for commit in self._commits}
        for folder in self._folders():
            for path in sorted(folder.glob(f"{mine}*")):
                if path.name.endswith((SHARD, UNFINISHED)) and path.name not in committed:
                    _disk.remove(path)

    def _folders(self) -> list[Path]:
        return [self._root / folder_of(layer) for layer in (None, *self.header.layers)]
