"""Several processes on one machine, over gloo: equal results, restarts, and no rank that hangs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_seeds import make_texts
from tolerances import HIDDEN_STATES, R2_HIGH, SHARDED

from fastinn import Corpus, EmbeddingStore, Moments, distributed
from fastinn.cli._reading import reading_of_all_ranks
from fastinn.embed.corpus import SPLITS

MAIN = Path(__file__).with_name("rank_main.py")


def environment(**changed):
    paths = os.pathsep.join([str(MAIN.parent), *sys.path])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **changed}


def torchrun(n, job, folder, options, *, restarts=0):
    folder.mkdir(exist_ok=True)
    launch(n, str(MAIN), job, str(folder), json.dumps(options), restarts=restarts)
    return folder


def fastinn(n, *arguments):
    """Run a command under several ranks, and return what it printed."""
    return launch(n, "-m", "fastinn", *map(str, arguments))


def patched(tmp_path, n, patch, *arguments):
    """Run a command under several ranks, each of which runs ``patch`` first; return stderr."""
    script = tmp_path / "patched.py"
    script.write_text(f"from fastinn import cli\n{patch}\ncli.main()\n")
    return launched(n, str(script), *map(str, arguments)).stderr


def launch(n, *command, restarts=0):
    return launched(n, *command, restarts=restarts).stdout


def launched(n, *command, restarts=0):
    launcher = ["-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", str(n), "--max-restarts", str(restarts)]
    done = subprocess.run(
        [sys.executable, *(launcher if n > 1 else []), *command],
        env=environment(FASTINN_TIMEOUT="120"),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def tensors(folder, name):
    return load_file(folder / name)


def assert_same_files(folder, name, others):
    expected = tensors(folder, name)
    for other in others:
        found = tensors(*other)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), (other, key)


@pytest.fixture(scope="module")
def passes(tmp_path_factory):
    """Folders of the same pass, by number of ranks."""
    root = tmp_path_factory.mktemp("passes")
    options = {"checkpoint": False, "precision": "exact"}
    return {n: torchrun(n, "pass", root / str(n), options) for n in (1, 2, 4)}


@pytest.mark.campaign("R9")
@pytest.mark.parametrize("n", [2, 4])
def test_moments_do_not_depend_on_the_number_of_ranks(passes, n):
    one, many = (Moments.load(passes[k] / "moments-0") for k in (1, n))
    assert many.n_rows == one.n_rows
    for a in one.views:
        torch.testing.assert_close(many.mean(a), one.mean(a), rtol=0, atol=SHARDED)
        for b in [b for b in one.views if b == a or b[0] != a[0]]:
            torch.testing.assert_close(many.cov(a, b), one.cov(a, b), rtol=0, atol=SHARDED)


@pytest.mark.parametrize("n", [2, 4])
def test_the_sample_does_not_depend_on_the_number_of_ranks(passes, n):
    assert_same_files(passes[1], "sample-0", [(passes[n], "sample-0")])


@pytest.mark.parametrize("name", ["moments", "sample"])
def test_all_ranks_have_the_same_pass(passes, name):
    assert_same_files(passes[4], f"{name}-0", [(passes[4], f"{name}-{r}") for r in range(1, 4)])


@pytest.mark.campaign("R9")
def test_a_killed_rank_of_a_pass_goes_on(tmp_path):
    whole = torchrun(2, "pass", tmp_path / "whole", {"checkpoint": False})
    options = {"dies": 1, "delay": 0.02}
    killed = torchrun(2, "pass", tmp_path / "killed", options, restarts=1)
    for name in ("moments-0", "sample-0"):
        assert_same_files(whole, name, [(killed, name)])


@pytest.mark.campaign("R9")
@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "stream"])
def test_a_killed_rank_of_a_fit_goes_on(tmp_path, streamed):
    options = {"max_steps": 20, "streamed": streamed}
    whole = torchrun(2, "fit", tmp_path / "whole", {**options, "checkpoint": False})
    killed = torchrun(2, "fit", tmp_path / "killed", {**options, "dies": 1}, restarts=1)
    file = "aligner.safetensors"
    ranks = [(folder / f"inn-{r}", file) for folder in (whole, killed) for r in range(2)]
    assert_same_files(*ranks[0], ranks[1:])
    history = json.loads((whole / "inn-0" / "aligner.json").read_text())["attributes"]["history_"]
    both = [sum(ways) for ways in zip(history["forward_r2"], history["inverse_r2"], strict=True)]
    assert both[-1] > both[0]  # which is what a two-way loss is of; one way may pay for the other


@pytest.mark.campaign("R9")
def test_a_killed_rank_of_a_hub_goes_on(tmp_path):
    options = {"max_steps": 20}
    whole = torchrun(2, "hub", tmp_path / "whole", {**options, "checkpoint": False})
    killed = torchrun(2, "hub", tmp_path / "killed", {**options, "dies": 1}, restarts=1)
    file = "aligner.safetensors"
    ranks = [(folder / f"hub-{r}", file) for folder in (whole, killed) for r in range(2)]
    assert_same_files(*ranks[0], ranks[1:])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("\n".join(f"{text} {i % 7}" for i, text in enumerate(make_texts(300))))
    return ["--corpus", path]


@pytest.fixture(scope="module")
def stored(seeds, text, tmp_path_factory):
    """Folders of the stores of two seeds, each written by one process."""
    out = tmp_path_factory.mktemp("states")
    options = [*text, "--layers", "0,3", "--json", "--out", out]
    return list(json.loads(fastinn(1, "extract", *seeds, *options)))


def test_a_store_does_not_depend_on_the_number_of_ranks(seeds, text, stored, tmp_path):
    """A single seed is read by both ranks, half the text each."""
    options = [*text, "--layers", "0,3", "--json", "--out", tmp_path]
    (divided,) = json.loads(fastinn(2, "extract", seeds[0], *options))
    one, two = EmbeddingStore(stored[0]), EmbeddingStore(divided)
    assert (one.header.writers, two.header.writers) == (1, 2)
    assert all(journal.rows for journal in two.journals)
    found, expected = (store.read(0, len(store)) for store in (two, one))
    assert torch.equal(found.keys, expected.keys)
    for layer in (0, 3):
        torch.testing.assert_close(
            found.rows[layer], expected.rows[layer], rtol=0, atol=HIDDEN_STATES
        )


def test_ranks_divide_the_seeds(seeds, text, tmp_path):
    out = ["--layers", "3", "--json", "--out", tmp_path]
    paths = list(json.loads(fastinn(2, "extract", *seeds, *text, *out)))
    assert [Path(path).name for path in paths] == ["seed-0@local", "seed-1@local"]
    assert [EmbeddingStore(path).header.writers for path in paths] == [1, 1]


@pytest.mark.campaign("R9")
@pytest.mark.parametrize("n", [2, 4])
def test_the_command_moments_does_not_depend_on_the_number_of_ranks(stored, tmp_path, n):
    """On stores, whose rows are the same however they are divided."""
    options = ["--exact", "--tokens-per-block", 100, "--json", "--out"]
    shown = [fastinn(k, "moments", *stored, *options, tmp_path / str(k)) for k in (1, n)]
    assert json.loads(shown[0]) == json.loads(shown[1])
    for split in SPLITS:
        one, many = (Moments.load(tmp_path / str(k) / f"{split}.safetensors") for k in (1, n))
        assert many.n_rows == one.n_rows
        for a, b in product(one.views, repeat=2):
            if a == b or (a[0] != b[0] and a[1] == b[1]):
                torch.testing.assert_close(many.cov(a, b), one.cov(a, b), rtol=0, atol=SHARDED)


@pytest.mark.parametrize("n", [2, 4])
def test_the_command_moments_on_models_under_ranks(seeds, text, tmp_path, n):
    """Live models round as batches are shaped, which are the same however text is divided."""
    options = [*text, "--layers", "1,3", "--exact", "--json", "--out"]
    shown = [fastinn(k, "moments", *seeds, *options, tmp_path / str(k)) for k in (1, n)]
    assert json.loads(shown[0]) == json.loads(shown[1])
    for split in SPLITS:
        one, many = (Moments.load(tmp_path / str(k) / f"{split}.safetensors") for k in (1, n))
        for layer in (1, 3):
            a, b = ("seed-0", layer), ("seed-1", layer)
            for pair in ((a, a), (a, b), (b, b)):
                expected = one.cov(*pair)
                scale = float(expected.abs().max())
                torch.testing.assert_close(many.cov(*pair), expected, rtol=0, atol=SHARDED * scale)
    assert not (tmp_path / str(n) / "checkpoints").exists()


def test_the_command_compare_does_not_depend_on_the_number_of_ranks(stored, tmp_path):
    for n in (1, 2):
        fastinn(n, "compare", *stored, "--networks", "", "--out", tmp_path / str(n), "--json")
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in "12")
    assert two["corpus"]["documents"] == one["corpus"]["documents"]
    assert len(one["scores"]) == 4 * 2 * 4
    assert_same_scores(two["scores"], one["scores"])


def assert_same_scores(records, others):
    """Records are equal but for scores, which agree to the precision of their moments."""
    for found, expected in zip(records, others, strict=True):
        scores = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert {k: found[k] for k in scores} == pytest.approx(scores, rel=0, abs=R2_HIGH)
        assert {k: v for k, v in found.items() if k not in scores} == {
            k: v for k, v in expected.items() if k not in scores
        }


@pytest.mark.campaign("R9")
@pytest.mark.parametrize(
    "saves",
    [
        pytest.param(3, id="passes", marks=pytest.mark.campaign("R9", full=True)),
        pytest.param(20, id="networks"),
        pytest.param(45, id="hub"),
    ],
)
def test_a_killed_rank_of_a_comparison_goes_on(stored, tmp_path, saves):
    """All train together and divide the rest; the results are those of ranks that were let be."""
    options = {"stores": list(map(str, stored))}
    whole = torchrun(2, "compare", tmp_path / "whole", {**options, "checkpoint": False})
    dying = {**options, "dies": 1, "saves": saves}
    killed = torchrun(2, "compare", tmp_path / "killed", dying, restarts=1)
    assert (killed / "died").exists()
    expected = (whole / "results-0.json").read_text()
    for folder, rank in ((whole, 1), (killed, 0), (killed, 1)):
        assert (folder / f"results-{rank}.json").read_text() == expected


def test_attention_does_not_depend_on_the_number_of_ranks(seeds, text, tmp_path):
    options = [*text, "--max-length", 16, "--layers", "1,3", "--networks", "", "--json", "--out"]
    for n in (1, 2):
        fastinn(n, "attention", *seeds, *options, tmp_path / str(n))
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in "12")
    assert_same_scores(two["scores"], one["scores"])
    assert_same_scores(two["heads"]["scores"], one["heads"]["scores"])
    assert_same_scores(two["baseline"], one["baseline"])
    assert not (tmp_path / "2" / "checkpoints").exists()


LATE = """
import time
from fastinn.align._checkpoints import Checkpoints
from fastinn import distributed
save = Checkpoints.save
def late(*args):
    time.sleep(3 * distributed.rank())
    save(*args)
Checkpoints.save = late
"""


@pytest.mark.campaign("R9")
def test_checkpoints_stay_until_the_last_rank_has_written_its_own(stored, tmp_path):
    out = tmp_path / "map"
    patched(tmp_path, 2, LATE, "align", *stored, "--max-steps", 2, "--json", "--out", out)
    assert (out / "aligner.json").exists()
    assert not (out / "checkpoints").exists()


UNCOUNTED = """
from fastinn.embed import estimate
estimate._COUNTED_SECONDS = 0.0
"""


@pytest.mark.parametrize("command", ["extract", "moments"])
def test_what_is_left_out_is_counted_over_all_ranks(seeds, tmp_path, command):
    """Records go to the ranks 64 by 64, and the estimate sees none of the bad ones."""
    lines = [text.encode() for text in make_texts(400)]
    for number in (300, 301, 330):
        lines[number] = b"\xff"
    text = tmp_path / "corpus.txt"
    text.write_bytes(b"\n".join(lines))
    models = seeds[:1] if command == "extract" else seeds
    options = ["--corpus", text, "--layers", "3", "--json", "--out", tmp_path / "out"]
    said = patched(tmp_path, 2, UNCOUNTED, command, *models, *options)
    assert said.count("fastinn: read 397 documents") == 1
    assert "left out 3 not UTF-8 (" in said


def test_what_several_ranks_have_read_counts_once(tmp_path, monkeypatch):
    """Two ranks read the first shard, one the other, and two the beginning of it all besides."""
    path = tmp_path / "corpus.txt"
    path.write_text("a\n\n" * 200)
    ranks = [Corpus.from_file(path) for _ in range(3)]
    for number, (rank, shard) in enumerate(zip(ranks, (0, 1, 0), strict=True)):
        list(rank.head(number + 1))
        list(rank.shard(shard, 2))
    gathered = []
    monkeypatch.setattr(distributed, "gather", lambda own: gathered.append(own) or gathered)
    for rank in ranks:
        found = reading_of_all_ranks(rank)
    assert (found.documents, found.characters, found.left_out["blank"].count) == (200, 200, 200)
    list(ranks[0])
    assert str(reading_of_all_ranks(ranks[0])) == str(ranks[0].reading)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start_ranks(n, folder, ranks, *, timeout, job="fit", **options):
    """Start some of ``n`` ranks of a job."""
    options = json.dumps(options or {"max_steps": 10**6})
    return start_processes(n, ranks, [str(MAIN), job, str(folder), options], timeout=timeout)


def start_processes(n, ranks, command, *, timeout):
    """Start some of ``n`` ranks without a launcher, which would end the others by itself."""
    common = {
        "WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "FASTINN_TIMEOUT": str(timeout),
    }
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **common),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]


def wait_for(path, processes):
    for _ in range(1200):
        if list(path.rglob("step-*")):
            return
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    raise AssertionError("the ranks never wrote a checkpoint")


def ends_with_an_error(process):
    _, error = process.communicate(timeout=180)  # of which most is the imports
    assert process.returncode
    return error


@pytest.mark.campaign("R9")
@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_no_rank_waits_for_ever(tmp_path, fault):
    alive, faulty = start_ranks(2, tmp_path, (0, 1), timeout=5)
    try:
        wait_for(tmp_path, [alive, faulty])
        faulty.send_signal(fault)
        assert "rank 0 of 2: averaging gradients failed" in ends_with_an_error(alive)
    finally:
        for process in (alive, faulty):
            process.kill()
            process.wait()


def test_a_rank_may_work_longer_than_others_wait(tmp_path):
    both = start_ranks(2, tmp_path, (0, 1), timeout=10, job="wait", seconds=25)
    for process in both:
        _, error = process.communicate(timeout=180)
        assert process.returncode == 0, error
    assert len(list(tmp_path.glob("done-*"))) == 2


def test_a_rank_that_dies_at_work_is_not_waited_for(tmp_path):
    alive, faulty = start_ranks(2, tmp_path, (0, 1), timeout=10, job="wait", seconds=600)
    try:
        while not (tmp_path / "done-0").exists():
            assert alive.poll() is None
            time.sleep(0.1)
        faulty.kill()
        error = ends_with_an_error(alive)
        assert "rank 0 of 2: waiting for the other ranks failed" in error
        assert "no sign of life of rank 1" in error
    finally:
        for process in (alive, faulty):
            process.kill()
            process.wait()


@pytest.mark.campaign("R9")
def test_a_rank_that_never_joins_is_not_waited_for(tmp_path):
    (alone,) = start_ranks(2, tmp_path, (0,), timeout=3)
    assert "rank 0 of 2: joining the other ranks failed" in ends_with_an_error(alone)


COMMANDS_OF_ONE = ["sanity", "stitch a b --data c", "finetune a --data c --out d", "seeds list"]


@pytest.mark.parametrize("command", COMMANDS_OF_ONE)
def test_a_command_that_does_not_divide_its_work_refuses_ranks(command):
    ranks = start_processes(2, (0, 1), ["-m", "fastinn", *command.split()], timeout=60)
    errors = [ends_with_an_error(rank) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2]
    name = command.split()[0]
    assert errors[0].startswith(f"fastinn: {name} does not divide its work and 2 ranks were")
    assert "run it without torchrun" in errors[0]
    assert errors[1] == ""


def test_parameters_are_sent_in_one_piece(monkeypatch):
    """As nccl wants them, whatever their strides."""
    module = torch.nn.Linear(3, 3, bias=False)
    module.weight = torch.nn.Parameter(torch.arange(9.0).view(3, 3).T)
    sent = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "broadcast", lambda t, src: sent.append(t.neg_()))
    expected = -module.weight.detach().clone()
    distributed.same_parameters(module)
    assert [tensor.is_contiguous() for tensor in sent] == [True]
    assert torch.equal(module.weight, expected)


def test_a_group_without_a_cpu_backend_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "_is_started", lambda: True)
    monkeypatch.setattr(distributed.dist, "get_backend_config", lambda: "cuda:nccl")
    refused = pytest.raises(ValueError, match=r"group is cuda:nccl, .* backend cpu:gloo,cuda:nccl")
    with refused, distributed.started():
        pytest.fail("the block ran")


def test_a_rank_without_a_gpu_of_its_own_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refused = pytest.raises(ValueError, match="LOCAL_RANK is 2 and this process sees 2 GPUs")
    with refused, distributed.started():
        pytest.fail("the block ran")


def test_what_ranks_do_not_share_is_named(monkeypatch):
    monkeypatch.setattr(distributed, "gather", lambda value: [value, {**value, "lr": 0.5}])
    with pytest.raises(ValueError, match=r"what is fitted \(lr\) is 0.1 on rank 0 and 0.5 on rank"):
        distributed.all_equal({"class": "INN", "lr": 0.1}, "what is fitted")


def test_what_one_rank_refuses_all_refuse(monkeypatch):
    monkeypatch.setattr(distributed, "gather", lambda reason: [reason, "other rows"])
    with pytest.raises(ValueError, match="rank 1: other rows"), distributed.together():
        pass
    with pytest.raises(ValueError, match="my own"), distributed.together():
        raise ValueError("my own")


def test_a_single_process_talks_to_nobody():
    with distributed.started():
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
        assert distributed.broadcast({"a": [1]}) == {"a": [1]}
        assert distributed.gather({"a": 1}) == [{"a": 1}]
        assert distributed.share_of(7) == 7
        distributed.all_equal({"a": 1}, "settings")
        with distributed.together():
            pass
