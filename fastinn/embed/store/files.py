"""Where a store's files are read from: a local folder, or anything that fsspec opens."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol


class Files(Protocol):
    """Read access to the files below one root; names have ``/`` between their parts."""

    def names(self, folder: str) -> list[str]:
        """List a folder; empty if there is none."""

    def size(self, name: str) -> int:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a plain file below the root.
        """

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` with the bytes from ``offset`` on; return how many there were."""


class LocalFiles:
    """Files of a folder.

    They are read, not mapped: a mapped file that is cut under its reader ends the process.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = os.path.realpath(root)

    def names(self, folder: str) -> list[str]:
        """List a folder; see :class:`Files`."""
        path = self._inside(folder)
        return sorted(os.listdir(path)) if os.path.isdir(path) else []

    def size(self, name: str) -> int:
        """Return the bytes of a file; see :class:`Files`."""
        with self._open(name) as fd:
            return os.fstat(fd).st_size

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill a buffer from a file; see :class:`Files`."""
        done = 0
        with self._open(name) as fd:
            while done < len(buffer) and (read := os.preadv(fd, [buffer[done:]], offset + done)):
                done += read
        return done

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        # Without O_NONBLOCK, a named pipe in place of a file would be waited for.
        fd = os.open(self._inside(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError(f"{name} is not a file; restore it from a copy")
            yield fd
        finally:
            os.close(fd)

    def _inside(self, name: str) -> str:
        path = os.path.realpath(os.path.join(self._root, name))
        if os.path.commonpath([path, self._root]) != self._root:
            raise ValueError(f"{name} is a link to outside of the store; restore it from a copy")
        return path


class RemoteFiles:
    """Files below a URL that fsspec understands; only the ranges that are asked for are fetched."""

    def __init__(self, url: str) -> None:
        import fsspec  # lazy: local stores do without

        self._system: Any
        self._system, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self._system.invalidate_cache()

    def names(self, folder: str) -> list[str]:
        """List a folder; see :class:`Files`."""
        try:
            found = self._system.ls(self._path(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def size(self, name: str) -> int:
        """Return the bytes of a file; see :class:`Files`."""
        return int(self._system.info(self._path(name))["size"] or 0)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill a buffer from a file; see :class:`Files`."""
        found = self._system.cat_file(self._path(name), start=offset, end=offset + len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def files_at(path: str | Path) -> Files:
    """Return the files at a local path or a URL such as ``s3://bucket/store``."""
    return RemoteFiles(path) if isinstance(path, str) and "://" in path else LocalFiles(path)


def read_whole(files: Files, name: str, *, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is larger.
    """
    size = files.size(name)
    if size > limit:
        raise ValueError(f"{name} has {size} bytes, expected at most {limit}; restore it")
    content = bytearray(size)
    return bytes(content[: files.read_into(name, 0, memoryview(content))])
