"""Comparisons that are killed and go on: nothing that was finished is lost, or made again."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import interrupted
import pytest
from test_checkpoints import StopError, finished, start
from test_distributed import environment

from fastinn import EmbeddingStore
from fastinn.align import Hub, MLPMap
from fastinn.embed.extraction import extract
from fastinn.study import networks
from fastinn.study.layers import compare
from fastinn.study.linear_family import LinearFamily


@pytest.fixture(scope="module")
def stores(three_seeds, corpus, tmp_path_factory):
    """Folders of the stores of three seeds."""
    folder = tmp_path_factory.mktemp("states")
    return [str(path) for path in extract(three_seeds, corpus, folder).values()]


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory):
    """The results of a run that nothing happened to, without checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return results(finished("compare", folder, {"stores": stores, "checkpoint": False}))


def results(folder):
    return (folder / "results-0.json").read_text()


def kill_after_saves(folder, stores, counts):
    """Kill run after run, each behind so many saves of its own, and return how many it took."""
    for kills, count in enumerate(counts):
        process = start("compare", folder, {"stores": stores, "dies_after": count})
        process.join(120)
        assert process.exitcode in (0, -9)
        if process.exitcode == 0:
            return kills
    finished("compare", folder, {"stores": stores})
    return len(counts)


@pytest.mark.parametrize(
    ("counts", "kills"),
    [
        pytest.param([7, 1, 2, 40], 4, id="few"),
        pytest.param(
            [1] * 60 + [5] * 12, 72, id="many", marks=pytest.mark.campaign("R8", full=True)
        ),
        pytest.param([29] * 9, 4, id="evenly", marks=pytest.mark.campaign("R8", full=True)),
    ],
)
def test_a_killed_comparison_ends_as_one_that_was_not(
    stores, whole, tmp_path, trials, counts, kills
):
    """Killed in passes, linear maps, networks, between pairs, in the hub and in its scores."""
    trials.n += kill_after_saves(tmp_path, stores, counts)
    assert trials.n >= kills
    assert results(tmp_path) == whole


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def works(pid):
    """Whether a process is there and no zombie."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(happened, seconds=600.0):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def side_by_side(folder, stores):
    """Start a comparison with workers of its own."""
    folder.mkdir(exist_ok=True)
    code = "import interrupted, sys; interrupted.run('compare', sys.argv[1], {'n_jobs': 2, "
    command = [sys.executable, "-c", code + "'stores': sys.argv[2:]})", str(folder), *stores]
    return subprocess.Popen(command, env=environment())


def test_a_killed_comparison_whose_pairs_are_trained_side_by_side(stores, tmp_path):
    """Its workers end with it, or they would write what the next run writes."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert side_by_side(whole, stores).wait(600) == 0
    process = side_by_side(killed, stores)
    wait_until((killed / "checkpoint/parts/networks/000000/part.safetensors").exists)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert len(workers) >= 2
    wait_until(lambda: not any(map(works, workers)))
    assert not (killed / "results-0.json").exists()
    assert side_by_side(killed, stores).wait(600) == 0
    assert results(killed) == results(whole)


def test_a_worker_that_begins_after_the_end_of_its_run_does_nothing():
    gone = -1  # no parent of any process
    code = f"from fastinn.study import networks; import time; networks._work_for({gone}); "
    done = subprocess.run(
        [sys.executable, "-c", code + "time.sleep(600)"], env=environment(), check=False
    )
    assert done.returncode == 1


def command(stores, out, *options):
    """Start ``fastinn compare``."""
    arguments = ["compare", *stores, "--max-steps", "30", "--hub", "consensus", "--jobs", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "fastinn", *arguments, "--out", str(out), *options],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def written(folder):
    found = json.loads((folder / "results.json").read_text())
    return {k: v for k, v in interrupted.untimed(found).items() if k != "command"}


def test_the_command_goes_on_after_a_kill(stores, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert command(stores, whole).wait(600) == 0
    process = command(stores, killed)
    wait_until((killed / "checkpoints/parts/networks/000000/part.safetensors").exists)
    process.kill()
    process.wait()
    other = command(stores, killed, "--random-state", "1")
    _, error = other.communicate(timeout=600)
    assert other.returncode == 2
    assert error.count("\n") == 1
    assert "random_state=0 and this run has INN random_state=1; resume with the same" in error
    assert command(stores, killed).wait(600) == 0
    assert written(killed) == written(whole)
    assert (killed / "report.html").exists()
    assert not (killed / "checkpoints").exists()


@pytest.fixture
def seeds_in_stores(stores):
    return {Path(path).name: EmbeddingStore(path) for path in stores}


@pytest.fixture
def stopped(seeds_in_stores, tmp_path, monkeypatch):
    """A comparison that was stopped in its hub; the folder it was kept in is returned."""

    def stop(*args, **kwargs):
        raise StopError

    with monkeypatch.context() as patched:
        patched.setattr(Hub, "fit", stop)
        with pytest.raises(StopError):
            compare(seeds_in_stores, None, interrupted.small_comparison(tmp_path))
    return tmp_path


def test_what_is_finished_is_not_made_again(stopped, seeds_in_stores, monkeypatch):
    expected = compare(
        seeds_in_stores, None, interrupted.small_comparison(stopped, checkpoints=None)
    )

    def again(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr(networks._PairWork, "results", again)
    monkeypatch.setattr(MLPMap, "fit", again)
    monkeypatch.setattr(LinearFamily, "_solved", again)
    found = compare(seeds_in_stores, None, interrupted.small_comparison(stopped))
    assert interrupted.untimed(found) == interrupted.untimed(expected)
    assert not list(stopped.rglob("step-*"))  # nor is what only a training needs kept


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cells": "all"}, "cells='same-layer' and this run has cells='all'; resume with the same"),
        ({"hub": None}, "hub='consensus' and this run has hub=None"),
        ({"inn": interrupted.inn()}, "INN batch_size=512 and this run has INN batch_size=32"),
        ({"published": None}, "BERT-INN='PublishedBertINN' and this run has BERT-INN=None"),
        ({"n_candidates": 9}, "n_candidates=10000 and this run has n_candidates=9"),
        ({"tokens_per_block": 99}, "and this run has tokens_per_block=99"),
    ],
    ids=["cells", "hub", "inn", "bert-inn", "candidates", "block"],
)
def test_checkpoints_of_other_settings_are_refused(stopped, seeds_in_stores, changed, message):
    """Before anything is read or written."""
    saved = []
    how = replace(interrupted.small_comparison(stopped), **changed)
    with pytest.raises(ValueError, match=message):
        compare(seeds_in_stores, None, how, save=saved.append)
    assert not saved


def test_checkpoints_of_another_version_are_refused(stopped, seeds_in_stores, monkeypatch):
    monkeypatch.setattr("fastinn.study.layers.versions", lambda: {"fastinn": "0.0.9"})
    how = interrupted.small_comparison(stopped)
    with pytest.raises(ValueError, match=r"version of fastinn='0\.0\.9'; resume with the same"):
        compare(seeds_in_stores, None, how)


def test_checkpoints_of_other_seeds_are_refused(stopped, seeds_in_stores):
    fewer = dict(list(seeds_in_stores.items())[:2])
    with pytest.raises(ValueError, match=r"was made with seeds=.* give another folder"):
        compare(fewer, None, interrupted.small_comparison(stopped))


def test_checkpoints_of_another_text_are_refused(three_seeds, corpus, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise StopError

    monkeypatch.setattr(networks._PairWork, "results", stop)
    how = interrupted.small_comparison(tmp_path)
    with pytest.raises(StopError):
        compare(three_seeds, corpus, how)
    with pytest.raises(ValueError, match=r"was made with text.* give another folder"):
        compare(three_seeds, corpus.head(100), how)


def test_a_damaged_part_is_named(stopped, seeds_in_stores):
    path = next(stopped.rglob("networks/*1/part.safetensors"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        compare(seeds_in_stores, None, interrupted.small_comparison(stopped))
