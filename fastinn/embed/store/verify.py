"""A whole store read for its checksums."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fastinn._progress import progress
from fastinn.embed.store.blocks import VerifiedBlocks
from fastinn.embed.store.contents import has_begun, listing
from fastinn.embed.store.files import Files, files_at
from fastinn.embed.store.header import StoreHeader, load_header
from fastinn.embed.store.index import index
from fastinn.embed.store.journal import Journal, load_journal
from fastinn.embed.store.shard import Shard, shards_of


@dataclass
class Verdict:
    """What :func:`verify` found.

    Attributes:
        shards: Shards that were read.
        nbytes: Their bytes.
        rows: Rows that are committed.
        finished: Whether all writers have closed their shares.
        damages: A line for each damaged, missing or foreign file, which it names.
    """

    shards: int = 0
    nbytes: int = 0
    rows: int = 0
    finished: bool = True
    damages: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Turn an error into a line of ``damages``."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.damages.append(str(error))


def verify(path: str | Path) -> Verdict:
    """Read everything in a store and compare it with the journal.

    Args:
        path: Folder or URL of the store.

    Raises:
        FileNotFoundError: If there is no store.
    """
    files, verdict = files_at(path), Verdict()
    try:
        header = load_header(files, path)
    except ValueError as error:
        return Verdict(finished=False, damages=[str(error)])
    journals = _journals(files, header, verdict)
    missing, extra = listing(files, header, journals)
    verdict.damages += [f"{name} is missing, the journal commits it" for name in missing]
    verdict.damages += [f"{name} is not in the journal" for name in extra]
    commits = [commit for journal in journals for commit in journal.commits]
    shards = [s for s in shards_of(header, commits) if s.name not in missing]
    _read_all(VerifiedBlocks(files, held=2), shards, verdict)
    return verdict


def _journals(files: Files, header: StoreHeader, verdict: Verdict) -> list[Journal]:
    found = []
    for writer in range(header.writers):
        journal = Journal([], False, 0)
        with verdict.noting():
            journal = load_journal(files, header, writer, begun=has_begun(files, writer))
        found.append(journal)
        verdict.rows += journal.rows
    verdict.finished = all(journal.finished for journal in found)
    return found


def _read_all(blocks: VerifiedBlocks, shards: list[Shard], verdict: Verdict) -> None:
    sound = []
    for shard in progress(shards, "verify", unit=" shards", leave=False):
        verdict.shards += 1
        verdict.nbytes += shard.size
        with verdict.noting():
            blocks.check(shard)
            if shard.layer is None:
                _check_keys(blocks, shard)
                sound.append(shard)
    with verdict.noting():
        index(blocks, sound)


def _check_keys(blocks: VerifiedBlocks, shard: Shard) -> None:
    """Check that the rows of a token shard are those of its documents."""
    commit = shard.commit
    keys = blocks.tensor(shard, 0, (commit.rows, 3), torch.int64).numpy()
    table = index(blocks, [shard])
    if not np.array_equal(keys[:, 0], np.repeat(table.document, table.length)):
        raise ValueError(f"{shard.name} has keys of other documents than it lists; restore it")
