"""System calls of a writer; every error names its file."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

from fastinn.embed.store.layout import UNFINISHED

_REMEDY = "what is committed is safe, run again to go on from there"


class OutputFile:
    """A file that is written at given offsets and then made durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _naming(path):
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of ``data`` at ``offset``, in as many calls as the system takes."""
        left = memoryview(data)
        with _naming(self.path):
            while left:
                written = os.pwrite(self.fd, left, offset)
                if not written:
                    raise OSError(errno.EIO, "nothing could be written")
                left, offset = left[written:], offset + written

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        with _naming(self.path):
            os.ftruncate(self.fd, size)

    def sync(self) -> None:
        """Return when the content will survive a power loss."""
        with _naming(self.path):
            os.fsync(self.fd)

    def close(self) -> None:
        """Close the file, once or more often."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with _naming(self.path):
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_folder(path: Path) -> None:
    """Make ``path`` and what lacks above it, durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with _naming(path):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not path.is_dir():
                raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Return when the names in ``path`` will survive a power loss."""
    with _naming(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def rename(source: Path, target: Path) -> None:
    """Give ``source`` the name ``target``, replacing what had it."""
    with _naming(target):
        os.replace(source, target)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with _naming(path), suppress(FileNotFoundError):
        os.unlink(path)


def create_once(path: Path, content: bytes) -> None:
    """Write a file whole and durably, unless another process has done so first."""
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}{UNFINISHED}")
    with OutputFile(unfinished) as file:
        file.write_at(0, content)
        file.sync()
    with _naming(path):
        try:
            os.link(unfinished, path)
        except (FileExistsError, FileNotFoundError):
            if not path.is_file():  # else the other process has tidied up, too
                raise
    remove(unfinished)
    sync_folder(path.parent)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; {_REMEDY}", str(path)) from error
