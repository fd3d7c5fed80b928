"""Tensors on disk: safetensors files that are written whole and checked when read."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

Allocate: TypeAlias = Callable[[str, tuple[int, ...], torch.dtype], Tensor]
"""Makes the contiguous CPU tensor that a tensor of this name, shape and dtype is read into."""

_DIGEST = "sha256"

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TORCH = {name: dtype for dtype, name in _DTYPES.items()}

# Bytes that are copied from a device, digested and written at a time.
_PART = 1 << 24

_UNFINISHED = "unfinished"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write; a reader of ``path`` sees the old content or all of the new.

    What is at ``path`` afterwards outlives a loss of power.

    Raises:
        OSError: If the disk is full or fails; the file is named.
    """
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}.{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # calls on open files do not know it
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one."""
    with whole_file(path) as file:
        file.write(content)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed left of files in ``folder``."""
    for left in folder.glob(f"*.{_UNFINISHED}"):
        left.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` and ``metadata`` to one safetensors file, with a digest of both.

    Holds a few megabytes at a time, however large the tensors are.
    """
    held = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    # Wide entries first, as in every safetensors file: no entry then straddles a word.
    order = sorted(held, key=lambda name: (-held[name].element_size(), name))
    header = _header(held, order, {**metadata, _DIGEST: _digest(held, metadata)})
    with whole_file(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in order:
            for part in _parts(held[name]):
                file.write(part.cpu().numpy().data)


def load_tensors(
    path: Path, allocate: Allocate = lambda name, shape, dtype: torch.empty(shape, dtype=dtype)
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of :func:`save_tensors`.

    Args:
        path: The file.
        allocate: Makes the tensors, which hold the only copy of what is read.

    Returns:
        The tensors and the metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or was not written by :func:`save_tensors`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    metadata = load_metadata(path)
    expected = metadata.pop(_DIGEST, None)
    digest = _Digest(metadata)
    tensors = {}
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(size))
        for name in sorted(entries.keys() - {"__metadata__"}):
            entry = entries[name]
            if entry["dtype"] not in _TORCH:
                raise ValueError(f"{path} is damaged: {name} is of no known type; write it again")
            tensor = allocate(name, tuple(entry["shape"]), _TORCH[entry["dtype"]])
            digest.begin(name, tensor)
            file.seek(8 + size + entry["data_offsets"][0])
            for part in _parts(tensor):
                file.readinto(part.numpy().data)
                digest.add(part)
            tensors[name] = tensor
    if expected != digest.result():
        raise ValueError(f"{path} is damaged: its digest does not match; write it again")
    return tensors, metadata


def load_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file whose layout is sound; no digest is checked.

    Raises:
        ValueError: If names, shapes and offsets do not fit the file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; write it again") from error


def _header(tensors: Mapping[str, Tensor], order: list[str], metadata: dict[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        entries[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries).encode()
    return text + b" " * (-len(text) % 8)


class _Digest:
    """Digest of metadata and of tensors in the order of their names, part by part."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._hash = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())

    def begin(self, name: str, tensor: Tensor) -> None:
        self._hash.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())

    def add(self, part: Tensor) -> None:
        self._hash.update(part.cpu().numpy().data)

    def result(self) -> str:
        return self._hash.hexdigest()


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = _Digest(metadata)
    for name in sorted(tensors):
        digest.begin(name, tensors[name])
        for part in _parts(tensors[name]):
            digest.add(part)
    return digest.result()


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the bytes of a contiguous tensor, few at a time and without a copy."""
    flat = tensor.reshape(-1).view(torch.uint8)
    return iter(flat.split(_PART)) if len(flat) else iter(())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
