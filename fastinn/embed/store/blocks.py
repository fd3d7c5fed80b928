"""Bytes of shards, none of which is handed on unverified."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from fastinn.embed.store._json import digest
from fastinn.embed.store.files import Files
from fastinn.embed.store.layout import HEAD_BYTES, head_says
from fastinn.embed.store.shard import Shard, bytes_of

_MEND = "restore it from a copy, or extract into a new folder"


class VerifiedBlocks:
    """Reads ranges of shards; every block that is touched is checked against the journal.

    Whole blocks are read to where they are wanted and checked there, the blocks at the ends of a
    range in a buffer that the next range may need again.

    Args:
        files: Where the shards are.
        held: Buffers to keep.
    """

    def __init__(self, files: Files, held: int) -> None:
        self._files = files
        self._identified: set[str] = set()
        self._end_block = lru_cache(maxsize=held)(self._read_block)

    def tensor(
        self, shard: Shard, start: int, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        """Read a tensor whose first byte is byte ``start`` of the payload.

        Raises:
            ValueError: If the shard is missing or damaged; it is named.
        """
        self.identify(shard)  # before anything is allocated
        found = torch.empty(shape, dtype=dtype)
        self.fill(shard, start, found)
        return found

    def fill(self, shard: Shard, start: int, out: Tensor) -> None:
        """Read into a contiguous tensor; see :meth:`tensor`."""
        self.identify(shard)
        target = bytes_of(out)
        stop = start + len(target)
        for block, low, high in _blocks_between(shard, start, stop):
            if start <= low and high <= stop:
                self._read_verified(shard, block, target[low - start : high - start])
                continue
            first, last = max(start, low), min(stop, high)
            content = self._end_block(shard, block)
            target[first - start : last - start] = content[first - low : last - low]

    def identify(self, shard: Shard) -> None:
        """Check size and head of a shard, once."""
        if shard.name in self._identified:
            return
        size = self._size(shard)
        if size != shard.size:
            raise ValueError(
                f"{shard.name} has {size} bytes, the journal says {shard.size}; {_MEND}"
            )
        found = bytearray(HEAD_BYTES)
        self._read(shard, 0, memoryview(found))
        if found != shard.head:
            raise ValueError(_other_head(shard, bytes(found)))
        self._identified.add(shard.name)

    def check(self, shard: Shard) -> None:
        """Read a whole shard for its checksums only."""
        self.identify(shard)
        for block in range(len(shard.checksums)):
            self._read_block(shard, block)

    def _read_block(self, shard: Shard, block: int) -> memoryview:
        low, high = _block_range(shard, block)
        content = memoryview(bytearray(high - low))
        self._read_verified(shard, block, content)
        return content

    def _read_verified(self, shard: Shard, block: int, target: memoryview) -> None:
        low, high = _block_range(shard, block)
        self._read(shard, HEAD_BYTES + low, target)
        if digest(target) != shard.checksums[block]:
            raise ValueError(
                f"{shard.name} is damaged: bytes {HEAD_BYTES + low} to {HEAD_BYTES + high} do not "
                f"match their checksum; {_MEND}"
            )

    def _read(self, shard: Shard, offset: int, target: memoryview) -> None:
        try:
            read = self._files.read_into(shard.name, offset, target)
        except FileNotFoundError:
            raise _missing(shard) from None
        if read < len(target):
            raise ValueError(f"{shard.name} ends at byte {offset + read}; {_MEND}")

    def _size(self, shard: Shard) -> int:
        try:
            return self._files.size(shard.name)
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(shard) from None


def _blocks_between(shard: Shard, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, first and end byte of the blocks that hold bytes ``start`` to ``stop``."""
    size = shard.header.block_bytes
    for block in range(start // size, -(-stop // size)):
        yield block, *_block_range(shard, block)


def _block_range(shard: Shard, block: int) -> tuple[int, int]:
    size = shard.header.block_bytes
    return block * size, min((block + 1) * size, shard.payload)


def _missing(shard: Shard) -> ValueError:
    return ValueError(f"{shard.name} is missing, the journal commits it; {_MEND}")


def _other_head(shard: Shard, found: bytes) -> str:
    """Say in what a shard differs from the one that was committed."""
    expected, says = head_says(shard.head), head_says(found)
    for name, value in expected.items():
        if name in says and says[name] != value:
            other, this = str(says[name])[:80], str(value)[:80]
            return f"{shard.name} has {name} {other!r}, the store has {this!r}; {_MEND}"
    return f"{shard.name} is damaged: its head is not what the journal says; {_MEND}"
