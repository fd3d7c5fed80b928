"""The part that a writer is at: one shard a layer and one of tokens, growing together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastinn.embed.source import Encoded
from fastinn.embed.store import _disk
from fastinn.embed.store.header import StoreHeader
from fastinn.embed.store.journal import Commit, shard_key
from fastinn.embed.store.layout import DTYPES, folder_of, head, shard_name
from fastinn.embed.store.shard import GrowingShard, metadata


class GrowingPart:
    """Rows that are on their way to the disk and not committed yet."""

    def __init__(self, root: Path, header: StoreHeader, writer: int, part: int) -> None:
        self._root, self._header = root, header
        self._writer, self._part = writer, part
        self.rows = 0
        self._documents: dict[int, tuple[int, float]] = {}
        self._shards: dict[int | None, GrowingShard] = {}
        for layer in (None, *header.layers):
            name = shard_name(layer, writer, part)
            self._shards[layer] = GrowingShard(root, name, header.block_bytes)

    def append(self, encoded: Encoded, places: Mapping[int, float]) -> None:
        """Write rows, already in the store's dtype."""
        for layer, rows in encoded.rows.items():
            self._shards[layer].append(rows)
        self._shards[None].append(encoded.keys)
        self.rows += len(encoded.keys)
        for document, n in zip(*documents_of(encoded.keys), strict=True):
            before, _ = self._documents.get(document, (0, 0.0))
            self._documents[document] = before + n, float(places[document])

    def finish(self, position: Mapping[str, Any]) -> Commit:
        """Make all shards durable under their names; the journal is yet to be written."""
        commit = Commit(
            writer=self._writer,
            part=self._part,
            rows=self.rows,
            documents=len(self._documents),
            first=next(iter(self._documents)),
            last=next(reversed(self._documents)),
            position=position,
            checksums={},
        )
        for column in self._document_table():
            self._shards[None].append(column)
        sums = {shard_key(layer): self._finish_shard(layer, commit) for layer in self._shards}
        for layer in self._shards:
            _disk.sync_folder(self._root / folder_of(layer))
        return Commit(**{**vars(commit), "checksums": sums})

    def close(self) -> None:
        """Give up; what was written is overwritten by the next attempt."""
        for shard in self._shards.values():
            shard.close()

    def _finish_shard(self, layer: int | None, commit: Commit) -> str:
        says = metadata(self._header, layer, self._writer, self._part)
        return self._shards[layer].finish(head(commit.arrays(self._header, layer), says))

    def _document_table(self) -> list[Tensor]:
        lengths, places = zip(*self._documents.values(), strict=True)
        return [
            torch.tensor(list(self._documents)),
            torch.tensor(lengths),
            torch.tensor(places, dtype=torch.float64),
        ]


def documents_of(keys: Tensor) -> tuple[list[int], list[int]]:
    """Return the documents of sorted keys and the rows of each."""
    documents, counts = torch.unique_consecutive(keys[:, 0], return_counts=True)
    return documents.tolist(), counts.tolist()


def as_stored(encoded: Encoded, header: StoreHeader) -> Encoded:
    """Return rows and keys as they are written.

    Raises:
        ValueError: If layers or shapes are not those of the store.
    """
    if sorted(encoded.rows) != list(header.layers):
        raise ValueError(
            f"rows are of layers {sorted(encoded.rows)}, the store is of {list(header.layers)}"
        )
    keys = encoded.keys.to("cpu", torch.int64).contiguous()
    for layer, rows in encoded.rows.items():
        if rows.shape != (len(keys), header.n_features):
            raise ValueError(
                f"layer {layer} has shape {tuple(rows.shape)}, expected "
                f"({len(keys)}, {header.n_features}): a row a key, of the store's width"
            )
    dtype = DTYPES[header.dtype]
    stored = {
        layer: encoded.rows[layer].detach().to("cpu", dtype).contiguous() for layer in header.layers
    }
    return Encoded(stored, keys)
