"""Which text a source holds, told at little cost, so that a run goes on with that text only."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import xxhash

_WHOLE = 1 << 20
"""Bytes up to which a file is hashed whole."""

_SLICE = 1 << 18
"""Bytes of the beginning, the middle and the end that are hashed of a longer one."""


def identity_of_files(paths: Sequence[str]) -> str:
    """Return the number of files, their bytes and a hash of what they hold.

    Of a file of more than a megabyte that is its size, beginning, middle and end; of a remote one
    what its file system tells: size and date, or a tag of the content.
    """
    whole, n_bytes = xxhash.xxh3_128(), 0
    for path in paths:
        size, mark = _remote(path) if "://" in path else _local(Path(path))
        n_bytes += size
        whole.update(f"{size} {mark};".encode())
    return f"{len(paths)} files, {n_bytes:,} bytes, {whole.hexdigest()}"


def identity_of_texts(texts: Iterable[tuple[str | None, str]]) -> str:
    """Return the number of texts, their characters and a hash of all of them."""
    whole, n_texts, n_characters = xxhash.xxh3_128(), 0, 0
    for _, text in texts:
        whole.update(f"{len(text)};".encode())
        whole.update(text.encode(errors="surrogatepass"))
        n_texts, n_characters = n_texts + 1, n_characters + len(text)
    return f"{n_texts:,} texts, {n_characters:,} characters, {whole.hexdigest()}"


def _local(path: Path) -> tuple[int, str]:
    size = path.stat().st_size
    places = [0, (size - _SLICE) // 2, size - _SLICE] if size > _WHOLE else [0]
    content = xxhash.xxh3_128()
    with path.open("rb") as file:
        for place in places:
            file.seek(place)
            content.update(file.read(_SLICE if size > _WHOLE else _WHOLE))
    return size, content.hexdigest()


def _remote(path: str) -> tuple[int, str]:
    from fsspec.core import url_to_fs

    files, inner = url_to_fs(path)
    return int(files.info(inner).get("size") or 0), str(files.checksum(inner))
