"""Runs that are killed at any moment and go on, and what they refuse to go on from."""

import json
import multiprocessing
import random
import shutil
import time
from itertools import permutations

import interrupted
import pytest
import torch
from safetensors.torch import load_file

from fastinn import Moments, distributed
from fastinn._checkpoint import Interval
from fastinn._saved import save_tensors
from fastinn.align import CCA, Hub, MLPMap, PublishedBertINN
from fastinn.align._checkpoints import Checkpoints, Snapshot
from fastinn.align._together import Together
from fastinn.moments import load_checkpoint, save_checkpoint
from fastinn.study.passes import run_pass

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["interrupted"])

JOBS = [
    ("pass", {"delay": 0.01}),
    ("fit", {"max_steps": 60}),
    ("fit", {"max_steps": 60, "streamed": True}),
    ("hub", {"max_steps": 60}),
    ("hub", {"max_steps": 60, "streamed": True, "pivot": ("b", 1)}),
]
IDS = ["pass", "fit", "fit_stream", "hub", "hub from a stream"]


def start(job, folder, options):
    process = PROCESSES.Process(target=interrupted.run, args=(job, str(folder), options))
    process.start()
    return process


def finished(job, folder, options):
    folder.mkdir(exist_ok=True)
    process = start(job, folder, options)
    process.join(120)
    assert process.exitcode == 0
    return folder


def kill_until_done(job, folder, options, *, kills, within):
    """Kill the run ``kills`` times at random moments, let it finish, return how often it was."""
    moments = random.Random(0)
    folder.mkdir()
    killed = 0
    for _ in range(kills):
        process = start(job, folder, options)
        process.join(moments.uniform(0.02, within))
        if process.is_alive():
            process.kill()
            killed += 1
        process.join(60)
    finished(job, folder, options)
    return killed


def results(folder):
    """The tensors of the results, and the record of the aligner but for the seconds."""
    files = [f for f in folder.rglob("*") if f.is_file() and "checkpoint" not in f.parts]
    tensors = {
        f"{file.relative_to(folder)} {name}": tensor
        for file in files
        if file.suffix != ".json"
        for name, tensor in load_file(file).items()
    }
    records = [
        json.loads(file.read_text())["attributes"] for file in files if file.suffix == ".json"
    ]
    return tensors, [_without_seconds(record) for record in records]


def _without_seconds(attributes):
    (attributes.get("hub") or attributes)["history_"].pop("seconds")
    return attributes


def assert_equal_bit_for_bit(folder, expected):
    (tensors, records), (their_tensors, their_records) = results(folder), results(expected)
    assert tensors
    assert tensors.keys() == their_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, their_tensors[name]), name
    assert records == their_records


@pytest.mark.parametrize(("job", "options"), JOBS, ids=IDS)
def test_a_killed_run_ends_as_one_that_was_not(tmp_path, job, options):
    whole = finished(job, tmp_path / "whole", {**options, "checkpoint": False})
    killed = kill_until_done(job, tmp_path / "killed", options, kills=3, within=1.0)
    assert killed
    assert_equal_bit_for_bit(tmp_path / "killed", whole)


@pytest.mark.campaign("R8", full=True)
@pytest.mark.parametrize(("job", "options"), JOBS, ids=IDS)
def test_fifty_kills(tmp_path, trials, job, options):
    """Begins anew whenever a run was finished, until fifty were killed."""
    whole = finished(job, tmp_path / "whole", {**options, "checkpoint": False})
    run = tmp_path / "killed"
    while trials.n < 50:
        trials.n += kill_until_done(job, run, options, kills=10, within=0.3)
        assert_equal_bit_for_bit(run, whole)
        shutil.rmtree(run)


class StopError(Exception):
    """Ends a run as a kill does, but in this process."""


def stop_after(blocks, n):
    """A stream that fails behind its ``n``-th block."""
    made = blocks.blocks

    def stopping(start=None):
        for block in made(start):
            if blocks.made > n:
                raise StopError
            yield block

    blocks.blocks = stopping
    return blocks


def test_a_pass_goes_on_in_front_of_the_next_block(tmp_path):
    with pytest.raises(StopError):
        run_pass(
            stop_after(interrupted.Blocks(), 20), **interrupted.RUN, checkpoint=tmp_path, every=0
        )
    again = interrupted.Blocks()
    run_pass(again, **interrupted.RUN, checkpoint=tmp_path)
    assert interrupted.BLOCKS - 20 <= again.made < interrupted.BLOCKS


def test_a_finished_pass_is_not_read_again(tmp_path):
    first = run_pass(interrupted.Blocks(), **interrupted.RUN, checkpoint=tmp_path)
    again = interrupted.Blocks()
    second = run_pass(again, **interrupted.RUN, checkpoint=tmp_path)
    assert again.made == 0
    assert torch.equal(second.rows["a", 1], first.rows["a", 1])
    assert second.n_documents == first.n_documents == interrupted.BLOCKS * interrupted.ROWS // 8


def test_a_sample_of_another_run_is_refused(tmp_path):
    """Whole and sound, it is not what this pass has written."""
    run_pass(interrupted.Blocks(3), **interrupted.RUN, checkpoint=tmp_path)
    (part,) = tmp_path.rglob("sample-*")
    save_tensors(part, {name: rows[1:] for name, rows in load_file(part).items()}, {})
    with pytest.raises(ValueError, match="has 287 rows and its checkpoint says 288"):
        run_pass(interrupted.Blocks(3), **interrupted.RUN, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_rows": 7}, "max_rows=3000 and this run has max_rows=7"),
        ({"mispaired": False}, "mispaired=True and this run has mispaired=False"),
        ({"pairs": "all"}, "pairs='across-seeds' and this run has pairs='all'"),
    ],
    ids=["rows", "mispaired", "pairs"],
)
def test_a_pass_with_other_settings_is_refused(tmp_path, changed, message):
    run_pass(interrupted.Blocks(3), **interrupted.RUN, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=message):
        run_pass(interrupted.Blocks(3), **{**interrupted.RUN, **changed}, checkpoint=tmp_path)


def rows(seed=0, n=400):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return x, x.flip(1).tanh() + 0.1 * torch.randn(n, 4, generator=generator)


def mlp(**changed):
    small = {"max_steps": 5, "hidden": 8, "batch_size": 16, "lr": 0.016, "progress": False}
    return MLPMap(**{**small, **changed})


def test_a_fit_goes_on_behind_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("fastinn.align._checkpoints._EVERY_SECONDS", 0.0)
    steps = []

    class Stopping(MLPMap):
        def _loss(self, x, y):
            steps.append(x)
            if len(steps) == 30:
                raise StopError
            return super()._loss(x, y)

    options = {"max_steps": 40, "hidden": 8, "batch_size": 16, "progress": False}
    with pytest.raises(StopError):
        Stopping(**options).fit(*rows(), checkpoint=tmp_path)
    resumed = Stopping(**options).fit(*rows(), checkpoint=tmp_path)
    assert len(steps) < 30 + 40
    expected = MLPMap(**options).fit(*rows())
    assert torch.equal(resumed.transform(rows()[0]), expected.transform(rows()[0]))


def test_a_finished_fit_is_given_back(tmp_path):
    first = mlp().fit(*rows(), checkpoint=tmp_path)
    again = mlp(progress=True).fit(*rows(), checkpoint=tmp_path)
    assert torch.equal(again.transform(rows()[0]), first.transform(rows()[0]))
    assert again.history_ == first.history_
    assert len(list(tmp_path.rglob("step-*"))) == 1


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (
            lambda folder: mlp(lr=0.5).fit(*rows(), checkpoint=folder),
            "lr=0.016 and this run has lr",
        ),
        (lambda folder: mlp().fit(*rows(n=300), checkpoint=folder), "rows=400 and this run has"),
        (lambda folder: mlp().fit(*rows(seed=1), checkpoint=folder), "made with hash of the rows="),
        (
            lambda folder: mlp().fit(*rows(), documents=torch.arange(400), checkpoint=folder),
            "made with hash of the rows=",
        ),
        (lambda folder: interrupted.inn().fit(*rows(), checkpoint=folder), "class='MLPMap' and"),
    ],
    ids=["parameter", "number", "values", "documents", "class"],
)
def test_a_fit_with_other_settings_is_refused(tmp_path, fit, message):
    mlp().fit(*rows(), documents=torch.arange(400) // 2, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path)


def test_other_training_rows_are_refused_beside_the_same_validation_rows(tmp_path):
    aside = rows(n=50, seed=3)
    mlp().fit(*rows(), validation=aside, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="made with hash of the rows="):
        mlp().fit(*rows(seed=1), validation=aside, checkpoint=tmp_path)


SEEDS = dict(zip("abc", (*rows(), rows(seed=2)[1]), strict=True))


def hub(pivot=None, **changed):
    return Hub(interrupted.inn(**{"max_steps": 5, **changed}), pivot=pivot)


def test_a_hub_goes_on_with_the_partners_that_were_next(tmp_path, monkeypatch):
    """Which pair is drawn is part of the place, not only the batch."""
    monkeypatch.setattr("fastinn.align._checkpoints._EVERY_SECONDS", 0.0)
    loss, steps = Together.loss, []

    def stopping(self, x, y):
        steps.append(x)
        if len(steps) == 30:
            raise StopError
        return loss(self, x, y)

    monkeypatch.setattr(Together, "loss", stopping)
    with pytest.raises(StopError):
        hub(max_steps=40).fit(SEEDS, checkpoint=tmp_path)
    resumed = hub(max_steps=40).fit(SEEDS, checkpoint=tmp_path)
    assert len(steps) < 30 + 40
    expected = hub(max_steps=40).fit(SEEDS)
    for source, target in permutations("abc", 2):
        found = resumed.transform(SEEDS[source], source, target)
        assert torch.equal(found, expected.transform(SEEDS[source], source, target))
    assert resumed.history_["forward_r2"] == expected.history_["forward_r2"]


@pytest.mark.parametrize(
    ("changed", "seeds", "message"),
    [
        (hub(pivot="b"), SEEDS, "pivot=None and this run has pivot='b'"),
        (hub(lr=0.5), SEEDS, "lr=0.025 and this run has lr=0.5"),
        (hub(), {s: SEEDS[s] for s in "ba"}, "was made with seeds="),
        (hub(), {s: x[1:] for s, x in SEEDS.items()}, "rows=400 and this run has rows=399"),
        (hub(), {s: x.flip(0) for s, x in SEEDS.items()}, "made with hash of the rows="),
        (Hub(PublishedBertINN()), SEEDS, "class='INN' and this run has class='Published"),
    ],
    ids=["pivot", "parameter", "seeds", "number", "values", "template"],
)
def test_a_hub_of_other_settings_is_refused(tmp_path, changed, seeds, message):
    hub().fit(SEEDS, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=message):
        changed.fit(seeds, checkpoint=tmp_path)


def test_a_hub_that_is_solved_at_once_keeps_nothing(tmp_path):
    with pytest.raises(ValueError, match="CCA is a closed form, of which nothing is kept; leave"):
        Hub(CCA()).fit(SEEDS, checkpoint=tmp_path)


@pytest.fixture
def two_ranks(tmp_path, monkeypatch):
    """Open the checkpoints of two ranks, and return those of each."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    folders = [tmp_path / f"rank-{rank}-of-2" for rank in range(2)]

    def gather(value):
        if not isinstance(value, list):
            return [value, value]
        return [[int(f.stem[5:]) for f in folder.glob("step-*")] for folder in folders]

    monkeypatch.setattr(distributed, "gather", gather)

    def opened():
        found = []
        for rank in range(2):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            found.append(Checkpoints(tmp_path, {"lr": 0.5}))
        return found

    return opened


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, Snapshot({}, {"step": step}))


def reached(ranks):
    return [rank.found and rank.found.record["step"] for rank in ranks]


def test_ranks_killed_between_their_saves_over_and_over_have_one_in_common(two_ranks):
    first, second = two_ranks()
    save(first, 80, 90, 100)
    save(second, 80, 90)
    first, second = again = two_ranks()
    assert reached(again) == [90, 90]
    save(first, 95, 98)
    save(second, 95)
    assert reached(two_ranks()) == [95, 95]


def test_ranks_without_a_checkpoint_in_common_say_so_and_begin_anew(two_ranks, tmp_path):
    first, _ = two_ranks()
    save(first, 10)
    with pytest.warns(UserWarning, match="no checkpoint in common below .*training begins anew"):
        assert reached(two_ranks()) == [None, None]
    assert not list(tmp_path.rglob("step-*"))


def test_a_time_budget_counts_what_was_spent(tmp_path):
    limited = {"max_seconds": 0.2, "max_steps": 10**6}
    first = mlp(**limited).fit(*rows(), checkpoint=tmp_path)
    start = time.perf_counter()
    again = mlp(**limited).fit(*rows(), checkpoint=tmp_path)
    assert again.n_steps_ == first.n_steps_
    assert again.history_["seconds"] == first.history_["seconds"]
    assert time.perf_counter() - start < 60  # it ends at all


def test_checkpoints_of_other_ranks_are_refused(tmp_path):
    (tmp_path / "rank-0-of-4").mkdir()
    with pytest.raises(ValueError, match="checkpoints of 4 ranks and this run has 1"):
        mlp().fit(*rows(), checkpoint=tmp_path)


@pytest.mark.parametrize("harm", ["flip", "cut", "moments"])
def test_a_damaged_checkpoint_is_named(tmp_path, harm):
    path = tmp_path / "checkpoint.safetensors"
    moments = Moments({"a": 2}).update({"a": torch.randn(5, 2)})
    save_checkpoint(path, moments, {"row": 5})
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if harm == "moments":
        moments.save(path)
    else:
        path.write_bytes(content if harm == "flip" else content[:-8])
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is (damaged|no checkpoint)"):
        load_checkpoint(path)


def test_a_checkpoint_gives_both_back(tmp_path):
    assert load_checkpoint(tmp_path / "none") is None
    moments = Moments({"a": 2}).update({"a": torch.randn(5, 2)})
    save_checkpoint(tmp_path / "c", moments, {"cursor": {"file": 1}})
    loaded, place = load_checkpoint(tmp_path / "c", storage=tmp_path)
    assert place == {"cursor": {"file": 1}}
    more = {"a": torch.randn(5, 2)}
    assert torch.equal(loaded.update(more).cov("a"), moments.update(more).cov("a"))


def test_checkpoints_take_a_small_share_of_the_time():
    now = [0.0]
    interval = Interval(1.0, clock=lambda: now[0])
    written = 0.0
    while now[0] < 1000:
        now[0] += 0.5
        if interval.due():
            with interval.writing():
                now[0] += 2.0
            written += 2.0
    assert 0.025 < written / now[0] < 0.031


def test_short_checkpoints_keep_their_distance():
    now = [0.0]
    interval = Interval(10.0, clock=lambda: now[0])
    with interval.writing():
        now[0] += 0.001
    now[0] += 9.9
    assert not interval.due()
    now[0] += 0.2
    assert interval.due()


def test_what_a_killed_process_left_is_removed(tmp_path):
    folder = tmp_path / "rank-0-of-1"
    folder.mkdir()
    (folder / "step-1.safetensors.99.unfinished").touch()
    mlp().fit(*rows(), checkpoint=tmp_path)
    assert not list(tmp_path.rglob("*.unfinished"))
