"""Signs of life, of ranks that share a store in one process."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch.distributed as dist

from fastinn._heartbeats import Heartbeats

LONG = 600.0


def test_a_rank_that_failed_is_not_waited_for():
    store = dist.HashStore()
    with pytest.raises(ValueError, match="its work"), Heartbeats(store, 1, 2, LONG):
        raise ValueError("its work")
    with Heartbeats(store, 0, 2, LONG) as alive, pytest.raises(RuntimeError, match="rank 1 failed"):
        alive.wait()


def test_a_rank_without_a_sign_of_life_is_given_up():
    silent = "no sign of life of rank 1"
    with Heartbeats(dist.HashStore(), 0, 2, 0.3) as alive:
        begun = time.monotonic()
        with pytest.raises(RuntimeError, match=silent):
            alive.wait()
    assert time.monotonic() - begun >= 0.3


def test_ranks_that_all_wait_go_on():
    store, n = dist.HashStore(), 3
    ranks = [Heartbeats(store, rank, n, LONG) for rank in range(n)]
    with ExitStack() as entered, ThreadPoolExecutor(n) as threads:
        waiting = [threads.submit(entered.enter_context(rank).wait) for rank in ranks]
        assert [done.result(timeout=60) for done in waiting] == [None] * n
