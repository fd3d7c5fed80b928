"""Journals: a line for every part that a writer has committed.

A line is the CRC-32 of the rest in hexadecimal, a blank, and a JSON object. Only the last line can
be torn by a crash, for each is durable before the next is written.
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastinn.embed.store._json import canonical, parse, whole
from fastinn.embed.store.files import Files, read_whole
from fastinn.embed.store.header import StoreHeader
from fastinn.embed.store.layout import (
    TOKENS,
    Array,
    layer_arrays,
    payload_bytes,
    token_arrays,
)

_MOST_BYTES = 2**29
_MOST_ROWS = 2**40
_CHECKSUM = 32  # hexadecimal digits
_HEXADECIMAL = re.compile("[0-9a-f]*")


@dataclass(frozen=True)
class Commit:
    """A part: the same rows in one shard a layer and one of tokens.

    Attributes:
        writer: Who wrote it.
        part: Its number, counted from 0 for each writer.
        rows: Rows in it.
        documents: Documents in it, a divided one included.
        first: Number of the first document.
        last: Number of the last document.
        position: Where the corpus is read on from behind it.
        checksums: Those of each shard's blocks one behind the other, by ``"tokens"`` or layer.
    """

    writer: int
    part: int
    rows: int
    documents: int
    first: int
    last: int
    position: Mapping[str, Any]
    checksums: Mapping[str, str]

    def arrays(self, header: StoreHeader, layer: int | None) -> list[Array]:
        """Return what the shard of a layer, or of the tokens for ``None``, holds."""
        if layer is None:
            return token_arrays(self.rows, self.documents)
        return layer_arrays(self.rows, header.n_features, header.dtype)


@dataclass(frozen=True)
class Journal:
    """What a writer has committed.

    Attributes:
        commits: Its parts in order.
        finished: Whether the writer has closed its share of the store.
        end: Bytes of the journal that are whole lines.
    """

    commits: list[Commit]
    finished: bool
    end: int

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return sum(commit.rows for commit in self.commits)

    @property
    def position(self) -> Mapping[str, Any] | None:
        """Where the corpus is read on from; ``None`` at its beginning."""
        return self.commits[-1].position if self.commits else None


def journal_name(writer: int) -> str:
    """Return the name of a writer's journal."""
    return f"journal-{writer}.jsonl"


def shard_key(layer: int | None) -> str:
    """Return what a shard's checksums are called in the journal."""
    return TOKENS if layer is None else str(layer)


def commit_line(commit: Commit) -> bytes:
    """Return the line that commits a part."""
    fields = {**vars(commit)}
    del fields["writer"]  # the journal's name says it
    return _line(fields)


def last_line(commits: list[Commit]) -> bytes:
    """Return the line that says that nothing will follow."""
    return _line({"finished": len(commits), "rows": sum(commit.rows for commit in commits)})


def load_journal(files: Files, header: StoreHeader, writer: int, *, begun: bool = True) -> Journal:
    """Read a journal.

    Args:
        files: Of the store.
        header: Of the store.
        writer: Whose journal.
        begun: Whether it has to be there; otherwise a missing one is an empty one.

    Raises:
        ValueError: If it is missing, or damaged elsewhere than by a torn last line.
    """
    name = journal_name(writer)
    try:
        content = read_whole(files, name, limit=_MOST_BYTES)
    except FileNotFoundError:
        if not begun:
            return Journal([], False, 0)
        raise ValueError(
            f"{name} is missing: writer {writer} of {header.writers} has not begun, or it was "
            "removed; run that writer or restore the file"
        ) from None
    return parse_journal(content, header, writer)


def parse_journal(content: bytes, header: StoreHeader, writer: int) -> Journal:
    """Read the content of a journal; see :func:`load_journal`."""
    *lines, torn = content.split(b"\n")
    if not torn and lines and not _is_whole(lines[-1]):
        torn = lines.pop()
    commits: list[Commit] = []
    for number, line in enumerate(lines, start=1):
        name = f"{journal_name(writer)} line {number}"
        if not _is_whole(line):
            raise ValueError(f"{name} is damaged: its checksum does not match; restore it")
        fields = parse(line[9:], name)
        if "finished" in fields:
            _check_last(fields, commits, number == len(lines) and not torn, name)
            return Journal(commits, True, len(content))
        commits.append(_commit(fields, header, writer, name))
        _check_order(commits, name)
    return Journal(commits, False, sum(len(line) + 1 for line in lines))


def _line(fields: Mapping[str, Any]) -> bytes:
    body = canonical(fields)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _is_whole(line: bytes) -> bool:
    return line[:9] == b"%08x " % zlib.crc32(line[9:])


def _commit(fields: dict[str, Any], header: StoreHeader, writer: int, name: str) -> Commit:
    expected = set(Commit.__dataclass_fields__) - {"writer"}
    if fields.keys() != expected or not isinstance(fields["position"], dict):
        raise ValueError(f"{name} is damaged: it does not describe a part; restore it")
    for field in ("rows", "documents"):
        whole(fields[field], 1, _MOST_ROWS, f"{name}: {field}")
    for field in ("part", "first", "last"):
        whole(fields[field], 0, 2**63 - 1, f"{name}: {field}")
    commit = Commit(writer=writer, **fields)
    _check_checksums(commit, header, name)
    return commit


def _check_checksums(commit: Commit, header: StoreHeader, name: str) -> None:
    layers = [None, *header.layers]
    sums = commit.checksums
    if not isinstance(sums, dict) or sums.keys() != {shard_key(layer) for layer in layers}:
        raise ValueError(
            f"{name} is damaged: it has other shards than tokens and layers {list(header.layers)}"
        )
    for layer in layers:
        found = sums[shard_key(layer)]
        n_blocks = -(-payload_bytes(commit.arrays(header, layer)) // header.block_bytes)
        if (
            not isinstance(found, str)
            or len(found) != _CHECKSUM * n_blocks
            or not _HEXADECIMAL.fullmatch(found)
        ):
            raise ValueError(
                f"{name} is damaged: {shard_key(layer)} has not the {n_blocks} checksums of "
                f"{commit.rows} rows; restore it"
            )


def _check_order(commits: list[Commit], name: str) -> None:
    commit = commits[-1]
    before = commits[-2].last if len(commits) > 1 else 0
    if commit.part != len(commits) - 1:
        raise ValueError(f"{name} is part {commit.part}, expected {len(commits) - 1}; restore it")
    if not before <= commit.first <= commit.last:
        raise ValueError(
            f"{name} has documents {commit.first} to {commit.last} behind {before}; restore it"
        )


def _check_last(fields: dict[str, Any], commits: list[Commit], is_last: bool, name: str) -> None:
    expected = {"finished": len(commits), "rows": sum(commit.rows for commit in commits)}
    if fields != expected or not is_last:
        raise ValueError(
            f"{name} is damaged: it ends the journal with {str(fields)[:80]}, "
            f"expected {expected}; restore it"
        )


def checksums(joined: str) -> list[str]:
    """Divide the checksums of a shard."""
    return [joined[i : i + _CHECKSUM] for i in range(0, len(joined), _CHECKSUM)]
