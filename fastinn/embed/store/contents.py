"""Whether the files of a store are those that its journals commit."""

from collections.abc import Sequence

from fastinn.embed.store.files import Files
from fastinn.embed.store.header import StoreHeader
from fastinn.embed.store.journal import Journal
from fastinn.embed.store.layout import SHARD, TOKENS
from fastinn.embed.store.shard import shards_of

_NAMED = 8


def check_complete(header: StoreHeader, journals: Sequence[Journal]) -> None:
    """Raise ``ValueError`` unless every writer has closed its share."""
    at_work = [str(writer) for writer, journal in enumerate(journals) if not journal.finished]
    if at_work:
        raise ValueError(
            f"it is unfinished: writer {', '.join(at_work[:_NAMED])} of {header.writers} was not "
            "closed; run the extraction again to go on (EmbeddingStore(..., unfinished=True) and "
            "fastinn store export --unfinished read what is committed)"
        )


def check_listing(files: Files, header: StoreHeader, journals: Sequence[Journal]) -> None:
    """Raise ``ValueError`` that names shards that are missing, or there without being committed.

    What a writer at work has not committed yet does not count.
    """
    missing, extra = listing(files, header, journals)
    if missing:
        raise ValueError(f"{_some(missing)} missing, the journal commits it; restore it")
    if extra:
        raise ValueError(f"{_some(extra)} not in the journal; remove it")


def listing(
    files: Files, header: StoreHeader, journals: Sequence[Journal]
) -> tuple[list[str], list[str]]:
    """Return the shards that are missing, and those that no journal commits."""
    commits = [commit for journal in journals for commit in journal.commits]
    committed = {shard.name for shard in shards_of(header, commits)}
    there = _shards(files)
    extra = {name for name in there - committed if not _may_come(name, journals)}
    return sorted(committed - there), sorted(extra)


def has_begun(files: Files, writer: int) -> bool:
    """Tell whether there are shards of a writer, which then has a journal unless it was removed."""
    return any(_writer_and_part(name)[0] == str(writer) for name in _shards(files))


def _shards(files: Files) -> set[str]:
    return {
        f"{folder}/{name}"
        for folder in files.names("")
        if folder == TOKENS or folder.startswith("layer=")
        for name in files.names(folder)
        if name.endswith(SHARD)
    }


def _may_come(name: str, journals: Sequence[Journal]) -> bool:
    """Tell whether a writer that is not finished may be about to commit a shard."""
    writer, part = _writer_and_part(name)
    return any(
        writer == str(number) and part.isdecimal() and int(part) >= len(journal.commits)
        for number, journal in enumerate(journals)
        if not journal.finished
    )


def _writer_and_part(name: str) -> tuple[str, str]:
    writer, _, part = name.rpartition("part-")[2].removesuffix(SHARD).partition("-")
    return writer, part


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{listed}{more} {'is' if len(names) == 1 else 'are'}"
