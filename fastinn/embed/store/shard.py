"""One shard: what it must be according to the journal, and how a new one grows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from fastinn.embed.store import _disk
from fastinn.embed.store.header import StoreHeader
from fastinn.embed.store.journal import Commit, checksums, shard_key
from fastinn.embed.store.layout import (
    HEAD_BYTES,
    UNFINISHED,
    Array,
    head,
    payload_bytes,
    shard_name,
)


@dataclass(frozen=True, eq=False)
class Shard:
    """A committed file, derived from header and journal alone."""

    header: StoreHeader
    commit: Commit
    layer: int | None

    @cached_property
    def name(self) -> str:
        """Name below the root."""
        return shard_name(self.layer, self.commit.writer, self.commit.part)

    @cached_property
    def arrays(self) -> list[Array]:
        """What it holds."""
        return self.commit.arrays(self.header, self.layer)

    @cached_property
    def payload(self) -> int:
        """Bytes behind the head."""
        return payload_bytes(self.arrays)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return HEAD_BYTES + self.payload

    @cached_property
    def checksums(self) -> list[str]:
        """One for each block of the payload."""
        return checksums(self.commit.checksums[shard_key(self.layer)])

    @cached_property
    def head(self) -> bytes:
        """The first bytes of the file."""
        where = self.layer, self.commit.writer, self.commit.part
        return head(self.arrays, metadata(self.header, *where))


class GrowingShard:
    """A shard that is written row by row under a temporary name, and hashed on the way."""

    def __init__(self, root: Path, name: str, block_bytes: int) -> None:
        self._target = root / name
        self._file = _disk.OutputFile(self._target.with_name(self._target.name + UNFINISHED))
        self._file.truncate(0)
        self._blocks = _BlockChecksums(block_bytes)
        self._at = HEAD_BYTES

    def append(self, rows: Tensor) -> None:
        """Write a contiguous tensor behind the others."""
        data = bytes_of(rows)
        self._file.write_at(self._at, data)
        self._blocks.update(data)
        self._at += len(data)

    def finish(self, first_bytes: bytes) -> str:
        """Write the head, make all of it durable, and return the checksums of the blocks.

        The folder is yet to be synced.
        """
        self._file.write_at(0, first_bytes)
        self._file.sync()
        self._file.close()
        _disk.rename(self._file.path, self._target)
        return self._blocks.joined()

    def close(self) -> None:
        """Give up."""
        self._file.close()


class _BlockChecksums:
    """Checksums of the blocks of bytes that come in pieces of any size."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._done: list[str] = []
        self._open = xxhash.xxh3_128()
        self._left = block_bytes

    def update(self, data: memoryview) -> None:
        while data:
            piece, data = data[: self._left], data[self._left :]
            self._open.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._close_block()

    def joined(self) -> str:
        if self._left < self._block_bytes:
            self._close_block()
        return "".join(self._done)

    def _close_block(self) -> None:
        self._done.append(self._open.hexdigest())
        self._open.reset()
        self._left = self._block_bytes


def metadata(header: StoreHeader, layer: int | None, writer: int, part: int) -> dict[str, str]:
    """Return what a shard says of itself in its head."""
    return {
        "model": header.model,
        "revision": header.revision or "",
        "shard": shard_name(layer, writer, part),
        "store": header.fingerprint(),
    }


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def shards_of(header: StoreHeader, commits: Sequence[Commit]) -> list[Shard]:
    """Return all shards of ``commits``, part by part."""
    layers = [None, *header.layers]
    return [Shard(header, commit, layer) for commit in commits for layer in layers]
