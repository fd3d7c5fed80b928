"""Files as users name them: local, compressed, in a folder, or behind a scheme such as ``s3://``."""

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO

_COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What broken files, archives and connections end in."""


def ending(path: str) -> str:
    """Return what says how the file is to be read: ``.csv`` for ``a.csv`` and for ``a.csv.gz``."""
    plain = PurePosixPath(path)
    return (plain.with_suffix("") if plain.suffix in _COMPRESSED else plain).suffix.lower()


def name_of(path: str) -> str:
    """Return what to call a file or folder in messages and reports: the last part of its path."""
    plain = path if "://" in path else os.path.abspath(path)  # which leaves links as they are
    return printable(PurePosixPath(plain).name or path)


def printable(text: str) -> str:
    """Return ``text`` with a question mark in place of each character that does not print."""
    return "".join(character if character.isprintable() else "?" for character in text)


def files_at(path: str) -> list[str]:
    """Return the files that ``path`` stands for: itself, or all in the folder in order of name.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ImportError: If its scheme takes a package that is not installed.
    """
    if "://" in path:
        return _remote_files(path)
    if Path(path).is_dir():
        return _visible(Path(path), (f for f in Path(path).rglob("*") if f.is_file()))
    if not Path(path).is_file():
        raise _not_there(path)
    return [path]


def plain_size(path: str) -> int | None:
    """Return the bytes of a local file; ``None`` if it is remote or compressed."""
    if "://" in path or PurePosixPath(path).suffix in _COMPRESSED:
        return None
    return Path(path).stat().st_size


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a file to read bytes, those that it holds if it is compressed.

    Raises:
        OSError: If it cannot be read, here or later; the file is named.
    """
    try:
        with _opened_as_it_is(path) as file:
            decompress = _COMPRESSED.get(PurePosixPath(path).suffix)
            yield decompress(file) if decompress else file
    except _UNREADABLE as error:
        raise OSError(f"{path} cannot be read: {error}") from None


def changed(path: str, why: str) -> ValueError:
    """Return the error of a file that a cursor does not belong to."""
    return ValueError(
        f"reading cannot go on in {path}: {why}, so it is another file than before; start anew or "
        "bring the former file back"
    )


def _opened_as_it_is(path: str) -> Any:
    if "://" not in path:
        return Path(path).open("rb")
    import fsspec

    return fsspec.open(path, "rb")


def _remote_files(path: str) -> list[str]:
    from fsspec.core import url_to_fs

    files, inner = url_to_fs(path)
    if files.isdir(inner):
        found = (PurePosixPath(file) for file in files.find(inner))
        return [files.unstrip_protocol(file) for file in _visible(PurePosixPath(inner), found)]
    if not files.isfile(inner):
        raise _not_there(path)
    return [path]


def _visible(folder: PurePath, paths: Iterable[PurePath]) -> list[str]:
    """Return ``paths`` in order of name, without hidden files and what is in hidden folders."""
    within = ((path, path.relative_to(folder).parts) for path in paths)
    return sorted(str(path) for path, parts in within if not any(p[0] == "." for p in parts))


def _not_there(path: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"corpus {path} is not a file; give a txt, jsonl, csv, tsv or parquet file, or a folder"
    )
