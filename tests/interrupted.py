"""Runs that are killed and go on: what the subprocesses of the reliability tests do."""

import json
import os
import signal
import time
from pathlib import Path

import torch

from fastinn import EmbeddingStore, _checkpoint, distributed
from fastinn._saved import save_tensors
from fastinn.align import INN, Hub, MLPMap, PublishedBertINN, _checkpoints
from fastinn.embed.reading import Position
from fastinn.embed.stream import Block
from fastinn.study import passes
from fastinn.study.comparison import Comparison
from fastinn.study.layers import compare
from fastinn.study.parts import Part
from fastinn.study.passes import run_pass

SEEDS, LAYERS, WIDTH = ("a", "b"), (0, 1), 6
ROWS, BLOCKS = 96, 60
RUN = {
    "pairs": "across-seeds",
    "mispaired": True,
    "sampled": [("a", 1), ("b", 1)],
    "max_rows": 3000,
}


class Blocks:
    """A stream that makes its rows up: each block is a function of its number.

    Args:
        n: Blocks in all.
        rank: Takes every ``world_size``-th block, beginning with this one.
        world_size: Of how many.
        delay: Seconds that a block takes.
    """

    stall_share = 0.0

    def __init__(self, n=BLOCKS, rank=0, world_size=1, delay=0.0):
        self._numbers = range(rank, n, world_size)
        self._delay = delay
        self.made = 0

    @property
    def n_features(self):
        return {(seed, layer): WIDTH for seed in SEEDS for layer in LAYERS}

    def identity(self):
        return {"text": "made up", "tokens_per_block": ROWS}

    def blocks(self, start=None):
        first = 0 if start is None else start.row // ROWS
        for place in range(first, len(self._numbers)):
            time.sleep(self._delay)
            self.made += 1
            yield block(self._numbers[place], Position(row=(place + 1) * ROWS))

    def __iter__(self):
        return self.blocks()

    def pairs(self):
        """Return what ``fit_stream`` takes: itself with two views."""
        return _Pairs(self)

    def seeds(self):
        """Return what ``fit_stream`` of a hub takes: itself with three views, as seeds."""
        return _Seeds(self)


class _Pairs:
    def __init__(self, blocks):
        self._blocks = blocks

    def __iter__(self):
        for made in self._blocks:
            yield made.rows["a", 1], made.rows["b", 1], made.documents


class _Seeds:
    def __init__(self, blocks):
        self._blocks = blocks

    def __iter__(self):
        for made in self._blocks:
            yield {view: made.rows[view] for view in (("a", 1), ("b", 1), ("b", 0))}, made.documents

    def identity(self):
        return self._blocks.identity()


def block(number, position):
    generator = torch.Generator().manual_seed(number)
    x = 0.3 * torch.randn(ROWS, WIDTH, generator=generator)
    mixing = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(99))
    rows = {}
    for seed in SEEDS:
        for layer in LAYERS:
            noise = 0.1 * torch.randn(ROWS, WIDTH, generator=generator)
            rows[seed, layer] = (x @ mixing if seed == "b" else x).tanh() * (layer + 1) + noise + 3
    documents = number * ROWS // 8 + torch.arange(ROWS) // 8
    keys = torch.stack([documents, torch.arange(ROWS), torch.zeros(ROWS).long()], dim=1)
    return Block(rows, keys, position)


def inn(**changed):
    parameters = {"n_couplings": 2, "hidden": 8, "max_steps": 120, "batch_size": 32}
    return INN(**{**parameters, "progress": False, **changed})


def pass_to(folder, *, delay=0.0, every=0.0, checkpoint=True, **changed):
    """Run a pass over this rank's blocks and save what came of it."""
    folder = Path(folder)
    stream = Blocks(rank=distributed.rank(), world_size=distributed.world_size(), delay=delay)
    kept = folder / "checkpoint" if checkpoint else None
    done = run_pass(stream, **RUN, **changed, checkpoint=kept, every=every)
    done.moments.save(folder / f"moments-{distributed.rank()}")
    rows = {f"{seed}.{layer}": rows for (seed, layer), rows in done.rows.items()}
    counted = torch.tensor([done.n_documents, done.same_document], dtype=torch.float64)
    sample = {**rows, "documents": done.documents, "counted": counted}
    save_tensors(folder / f"sample-{distributed.rank()}", sample, {})


def fit_to(folder, *, every=0.0, streamed=False, checkpoint=True, **changed):
    """Fit an INN to this rank's rows and save it."""
    _checkpoints._EVERY_SECONDS = every
    folder = Path(folder)
    kept = folder / "checkpoint" if checkpoint else None
    stream = Blocks(rank=distributed.rank(), world_size=distributed.world_size())
    if streamed:
        fitted = inn(**changed).fit_stream(stream.pairs(), checkpoint=kept)
    else:
        x, y, documents = map(torch.cat, zip(*stream.pairs(), strict=True))
        fitted = inn(**changed).fit(x, y, documents=documents, checkpoint=kept)
    fitted.save(folder / f"inn-{distributed.rank()}")


def hub_to(folder, *, every=0.0, streamed=False, checkpoint=True, pivot=None, **changed):
    """Fit a hub to this rank's rows of three views and save it."""
    _checkpoints._EVERY_SECONDS = every
    folder = Path(folder)
    hub = Hub(inn(**changed), pivot=None if pivot is None else tuple(pivot))
    kept = folder / "checkpoint" if checkpoint else None
    blocks = Blocks(rank=distributed.rank(), world_size=distributed.world_size()).seeds()
    if streamed:
        hub.fit_stream(blocks, checkpoint=kept)
    else:
        parts, documents = zip(*blocks, strict=True)
        rows = {view: torch.cat([part[view] for part in parts]) for view in parts[0]}
        hub.fit(rows, documents=torch.cat(documents), checkpoint=kept)
    hub.save(folder / f"hub-{distributed.rank()}")


def small_comparison(folder, **changed):
    """Everything that a comparison trains, in miniature."""
    small = {"n_couplings": 2, "hidden": 16, "max_steps": 12, "progress": False}
    return Comparison(
        **{
            "cells": "same-layer",
            "inn": INN(**small),
            "published": PublishedBertINN(max_steps=4, progress=False),
            "mlp": MLPMap(max_steps=6, hidden=16, progress=False),
            "hub": "consensus",
            "checkpoints": Path(folder) / "checkpoint",
            **changed,
        }
    )


def compare_to(folder, *, stores, checkpoint=True, n_jobs=1, dies_after=None):
    """Compare the seeds in stores, with a checkpoint at every step, and save the results."""
    _checkpoints._EVERY_SECONDS, _checkpoint._SHARE = 0.0, 1.0
    if dies_after is not None:
        die_after_saves(dies_after, folder)
    how = small_comparison(folder, n_jobs=n_jobs, **({} if checkpoint else {"checkpoints": None}))
    results = compare({Path(path).name: EmbeddingStore(path) for path in stores}, None, how)
    text = json.dumps(untimed(results))
    (Path(folder) / f"results-{distributed.rank()}.json").write_text(text)


def untimed(results):
    """Results but for the times in them, which no two runs share."""
    kept = {name: value for name, value in results.items() if name not in ("created", "seconds")}
    for name, time_ in (("training", "fit_seconds"), ("costs", "seconds")):
        kept[name] = [{k: v for k, v in record.items() if k != time_} for record in kept[name]]
    return kept


def die_after_saves(n, folder):
    """Kill this process right after its n-th checkpoint or finished part; leave a note of it."""
    saved = []

    def deadly(save):
        def saving(*args):
            result = save(*args)
            saved.append(1)
            if len(saved) == n:
                (Path(folder) / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return saving

    _checkpoints.Checkpoints.save = deadly(_checkpoints.Checkpoints.save)
    passes._Kept.save = deadly(passes._Kept.save)
    Part.keep = deadly(Part.keep)


def wait_for_rank(folder, *, seconds):
    """Work longer on rank 1 than the other waits elsewhere."""
    with distributed.patient():
        time.sleep(seconds * distributed.rank())
        (Path(folder) / f"done-{distributed.rank()}").touch()
    assert (Path(folder) / "done-1").exists()


JOBS = {"pass": pass_to, "fit": fit_to, "hub": hub_to, "compare": compare_to, "wait": wait_for_rank}


def run(job, folder, options):
    """Run in one process, on one thread."""
    torch.set_num_threads(1)
    JOBS[job](folder, **options)
