"""The journal of a running writer: locked against a second one, appended to line by line."""

import contextlib
import fcntl
from pathlib import Path

from fastinn.embed.store import _disk
from fastinn.embed.store.files import LocalFiles
from fastinn.embed.store.header import StoreHeader
from fastinn.embed.store.journal import Journal, journal_name, load_journal


class JournalFile:
    """A journal that this process alone appends to.

    Attributes:
        found: What it held when it was opened; a torn last line is cut off.

    Raises:
        ValueError: If another process has it, or it is damaged.
    """

    found: Journal

    def __init__(self, root: Path, header: StoreHeader, writer: int) -> None:
        name = journal_name(writer)
        self._file = _disk.OutputFile(root / name)
        try:
            self._lock(f"another process writes as writer {writer} of {root}; wait for it to end")
            _disk.sync_folder(root)
            self.found = load_journal(LocalFiles(root), header, writer)
            self._end = self.found.end
            self._cut()
        except BaseException:
            self.close()
            raise

    def append(self, line: bytes) -> None:
        """Append a line; it holds when this returns, and does not exist when this raises."""
        try:
            self._file.write_at(self._end, line)
            self._file.sync()
        except OSError:
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self._end += len(line)

    def close(self) -> None:
        """Close the file, which frees it for others."""
        self._file.close()

    def _cut(self) -> None:
        self._file.truncate(self._end)
        self._file.sync()

    def _lock(self, refusal: str) -> None:
        # flock, not lockf: it is the open file that has the lock, so that a reader in the same
        # process does not drop it by closing the file.
        try:
            fcntl.flock(self._file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(refusal) from None
