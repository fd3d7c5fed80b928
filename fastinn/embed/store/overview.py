"""What a store holds and how far its writers are, without opening a shard."""

from pathlib import Path
from typing import Any

from fastinn.embed.store.files import Files, files_at
from fastinn.embed.store.header import HEADER, StoreHeader, is_store, load_header
from fastinn.embed.store.journal import load_journal
from fastinn.embed.store.naming import naming
from fastinn.embed.store.shard import shards_of


def stores_below(path: str) -> list[str]:
    """Return the store at ``path``, or those in the folder ``path``.

    Raises:
        FileNotFoundError: If there is none.
    """
    if is_store(path):
        return [path]
    found = [str(header.parent) for header in sorted(Path(path).glob(f"*/{HEADER}"))]
    if not found:
        raise FileNotFoundError(f"no store at {path}, and none in it; give a folder that has one")
    return found


def overview(path: str) -> dict[str, Any]:
    """Return the header of a store, and rows, bytes and progress of each writer."""
    files = files_at(path)
    with naming(path):
        header = load_header(files, path)
        writers = [_progress(files, header, writer) for writer in range(header.writers)]
    return {
        **header.fields(),
        "rows": sum(writer["rows"] for writer in writers),
        "bytes": sum(writer["bytes"] for writer in writers),
        "finished": all(writer["finished"] for writer in writers),
        "progress": writers,
    }


def _progress(files: Files, header: StoreHeader, writer: int) -> dict[str, Any]:
    journal = load_journal(files, header, writer, begun=False)
    return {
        "parts": len(journal.commits),
        "rows": journal.rows,
        "bytes": sum(shard.size for shard in shards_of(header, journal.commits)),
        "finished": journal.finished,
        "position": journal.position,
    }
