"""Writers that are killed at random moments and go on."""

import os
import random
import signal
import time
import traceback

import pytest
from store_cases import make_blocks, make_header, same, tree, write, write_all

from fastinn.embed import EmbeddingStore
from fastinn.embed.store.journal import journal_name

HEADER = make_header(bytes_per_shard=800)


KILLS = [
    pytest.param(10, id="10 kills"),
    pytest.param(250, id="250 kills", marks=pytest.mark.campaign("R1", full=True)),
]


@pytest.mark.parametrize("writers", [1, 3])
@pytest.mark.parametrize("n_kills", KILLS)
def test_killed_writers_end_with_the_bytes_of_unkilled_ones(
    tmp_path, whole, trials, writers, n_kills
):
    shares = [make_blocks(whole, writer, writers) for writer in range(writers)]
    start = time.perf_counter()
    write_all(tmp_path / "expected", whole, HEADER, writers)
    seconds = (time.perf_counter() - start) / writers
    expected = tree(tmp_path / "expected")
    chance, run = random.Random(writers), 0
    while trials.n < n_kills:
        run += 1
        path = tmp_path / f"run-{run}"
        while not is_finished(path, expected):
            before = journals(path, writers)
            wait = chance.uniform(0, seconds) if trials.n < n_kills else None
            trials.n += run_and_kill(path, shares, wait)
            check_nothing_lost(before, journals(path, writers))
        assert same(EmbeddingStore(path).read(0, len(whole.keys)), whole)


def is_finished(path, expected):
    return path.exists() and tree(path) == expected


def journals(path, writers):
    files = [path / journal_name(writer) for writer in range(writers)]
    return [file.read_bytes() if file.exists() else b"" for file in files]


def check_nothing_lost(before, after):
    for old, new in zip(before, after, strict=True):
        committed = old[: old.rfind(b"\n") + 1]
        assert new.startswith(committed)


def run_and_kill(path, shares, wait):
    """Run a writer each; kill them after ``wait`` seconds, and return how many were."""
    children = [start_writer(path, writer, shares) for writer in range(len(shares))]
    if wait is not None:
        time.sleep(wait)
        for child in children:
            os.kill(child, signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) <= {0, -signal.SIGKILL}
    return codes.count(-signal.SIGKILL)


def start_writer(path, writer, shares):
    """Fork a writer: a fresh process would spend seconds on imports."""
    child = os.fork()
    if child:
        return child
    try:
        write(path, shares[writer], HEADER, writer, len(shares))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
