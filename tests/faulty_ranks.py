"""Ranks that are killed, stopped or late, and what becomes of the others."""

import multiprocessing
import os
import signal
import time

import interrupted

from fastinn import distributed

TIMEOUT = 4
FAULTS = ("kill", "stop", "late", "too late")

# A rank waits for TIMEOUT once or twice; the rest is for a busy machine.
_PATIENCE = 60

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["interrupted"])


def run_rank(rank, n, port, folder, delay, max_steps):
    """Fit as one of ``n`` ranks; end with status 3 if the others did not take part."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "FASTINN_TIMEOUT": str(TIMEOUT),
    }
    time.sleep(delay)
    try:
        with distributed.started():
            interrupted.run("fit", folder, {"max_steps": max_steps, "checkpoint": False})
    except ConnectionError:
        os._exit(3)
    os._exit(0)


def statuses(n, port, folder, fault, chance):
    """Start ``n`` ranks, let a fault befall one, and return the exit statuses of the others.

    A rank that is late is counted among them; one that is still there after a minute is ``None``.
    """
    faulty = chance.randrange(n)
    delay = {"late": 0.5, "too late": TIMEOUT + 2.0}.get(fault, 0.0)
    steps = 20 if delay else 10**6
    ranks = [
        PROCESSES.Process(
            target=run_rank, args=(rank, n, port, folder, delay * (rank == faulty), steps)
        )
        for rank in range(n)
    ]
    for rank in ranks:
        rank.start()
    if not delay:
        time.sleep(chance.uniform(0.0, 2.0))
        os.kill(ranks[faulty].pid, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    others = [rank for place, rank in enumerate(ranks) if delay or place != faulty]
    deadline = time.monotonic() + _PATIENCE
    for rank in others:
        rank.join(max(0.0, deadline - time.monotonic()))
    found = [rank.exitcode for rank in others]
    for rank in ranks:
        rank.kill()
        rank.join()
    return found
