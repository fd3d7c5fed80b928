"""Aligners, moments and checkpoints on disk: damage is found, failing disks lose nothing."""

import random

import pytest
import torch
from mutations import mutated
from saved_cases import SAVED
from store_cases import lay_out, refusal, tree
from store_faults import FailingDisk

EVERY_KIND = pytest.mark.parametrize("kind", SAVED.values(), ids=SAVED)
# Two files, one file, and one with a place: whatever else is saved is written by the same calls.
FILES = ("procrustes", "moments", "checkpoint")
MUTATIONS = [
    pytest.param(40, id="40 mutations"),
    pytest.param(700, id="700 mutations", marks=pytest.mark.campaign("R4", full=True)),
]


def computes(kind, thing):
    return [value.clone() for value in kind.values(thing)]


def equal(found, expected):
    return all(map(torch.equal, found, expected))


@pytest.fixture
def saves(tmp_path, kind):
    """Folders of two saves side by side, so that files may change places; what they compute."""
    expected = {}
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        kind.save(kind.make(seed), tmp_path / name)
        expected[name] = computes(kind, kind.load(tmp_path / name))
    return expected


@EVERY_KIND
@pytest.mark.parametrize("n_mutations", MUTATIONS)
def test_every_mutation_is_found_or_harmless(tmp_path, kind, saves, trials, n_mutations):
    content = tree(tmp_path)
    chance, found = random.Random(0), 0
    for _ in trials(range(n_mutations)):
        changed = mutated(content, chance)
        lay_out(tmp_path, changed)
        for name in {name[0] for name, data in changed.items() if data != content[name]}:
            found += is_refused(kind, tmp_path / name, saves.values())
        lay_out(tmp_path, {name: content[name] for name in changed})
    assert found > 0.7 * n_mutations


def is_refused(kind, folder, saves):
    """Tell whether a save is refused; if not, it must compute what one of the saves does."""
    loaded = []
    message = refusal(lambda: loaded.append(kind.load(folder)))
    if message is None:
        assert any(equal(computes(kind, loaded[0]), expected) for expected in saves)
        return False
    assert any(file.name in message for file in folder.iterdir()), message
    return True


@pytest.mark.campaign("R3")
@pytest.mark.parametrize("kind", [SAVED[name] for name in FILES], ids=FILES)
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "short"])
def test_every_call_may_fail_once(tmp_path, kind, saves, trials, error, monkeypatch):
    """The old save or the new one is there, or a mixture is refused; saving again heals it."""
    old, new = kind.make(0), kind.make(2)
    disk = FailingDisk(monkeypatch)
    n_calls = disk.run(-1, error, lambda: kind.save(new, tmp_path / "b")).n_calls
    expected = computes(kind, kind.load(tmp_path / "b"))
    failed = set()
    for index in trials(range(n_calls)):
        kind.save(old, tmp_path / "a")
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            disk.run(index, error, lambda: kind.save(new, tmp_path / "a"))
        assert str(tmp_path / "a") in str(caught.value.filename)
        failed.add(disk.calls.failed)
        assert not list(tmp_path.rglob("*.unfinished"))
        if refusal(lambda: kind.load(tmp_path / "a")) is None:
            found = computes(kind, kind.load(tmp_path / "a"))
            assert equal(found, saves["a"]) or equal(found, expected)
        kind.save(new, tmp_path / "a")
        assert equal(computes(kind, kind.load(tmp_path / "a")), expected)
    assert failed >= {"write", "fsync", "replace", "open"}
