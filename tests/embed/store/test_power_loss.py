"""States that a power loss may leave: unsynced writes and names lost, torn or out of order."""

import random

import pytest
import torch
from store_cases import lay_out, make_blocks, make_header, refusal, tree, write
from store_faults import Disk, RecordedCalls

from fastinn.embed import EmbeddingStore
from fastinn.embed.store import _disk

HEADER = make_header(bytes_per_shard=2500)
STATES = [
    pytest.param(300, id="300 states"),
    pytest.param(2500, id="2500 states", marks=pytest.mark.campaign("R2", full=True)),
]


@pytest.fixture
def recorded(tmp_path, whole, monkeypatch):
    """Calls of an uninterrupted run, what it wrote, and rows promised after how many calls."""
    calls = RecordedCalls()
    promised = [(0, 0)]
    blocks = make_blocks(whole)[:9]
    with monkeypatch.context() as patch:
        patch.setattr(_disk, "os", calls)
        write(
            tmp_path / "run",
            blocks,
            HEADER,
            appended=lambda out: promised.append((len(calls.calls), committed_rows(out))),
        )
    return calls.calls, blocks, promised


def committed_rows(writer):
    return sum(commit.rows for commit in writer._commits)


@pytest.mark.parametrize("n_states", STATES)
def test_what_was_committed_survives(tmp_path, whole, recorded, trials, n_states, monkeypatch):
    calls, blocks, promised = recorded
    expected = tree(tmp_path / "run")
    chance = random.Random(0)
    survived = 0
    for state in trials(range(n_states)):
        stop = chance.randrange(1, len(calls) + 1)
        disk = Disk(tmp_path / "run")
        for call in calls[:stop]:
            disk.run(call)
        path = tmp_path / f"state-{state}"
        path.mkdir()
        lay_out(path, disk.power_loss(chance))
        least = max(rows for n, rows in promised if n <= stop)
        survived += check_committed(path, whole, least)
        with monkeypatch.context() as patch:
            patch.setattr(_disk, "os", Unsynced())
            write(path, blocks, HEADER)
        assert tree(path) == expected, f"state {state}, call {stop}"
    assert survived > n_states / 3


class Unsynced(RecordedCalls):
    """Calls without the syncs, which cost time and show nothing here."""


def check_committed(path, whole, least):
    """Check that a reader finds at least the promised rows, or nothing where none were."""
    message = refusal(lambda: EmbeddingStore(path, unfinished=True))
    if message is not None:
        assert least == 0, message
        assert "no store at" in message or "journal-0.jsonl is missing" in message
        return False
    found = EmbeddingStore(path, unfinished=True)
    n = len(found)
    assert n >= least
    rows = found.read(0, n)
    assert torch.equal(rows.keys, whole.keys[:n])
    assert all(torch.equal(rows.rows[layer], whole.rows[layer][:n]) for layer in rows.rows)
    return n > 0


def test_the_model_loses_what_is_not_synced(tmp_path, whole, recorded):
    """Without the syncs of files, or of folders, the same states lose promised rows."""
    calls, _, promised = recorded
    for lost in ("files", "folders"):
        chance = random.Random(1)
        broken = 0
        for state in range(40):
            disk = Disk(tmp_path / "run")
            for call in calls:
                is_folder = not call[1].endswith((".jsonl", ".json", ".unfinished"))
                if call[0] != "fsync" or is_folder == (lost == "files"):
                    disk.run(call)
            path = tmp_path / f"{lost}-{state}"
            path.mkdir()
            lay_out(path, disk.power_loss(chance))
            try:
                check_committed(path, whole, promised[-1][1])
            except (AssertionError, ValueError):
                broken += 1
        assert broken > 10
