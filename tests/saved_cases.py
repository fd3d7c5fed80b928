"""What is saved besides stores: how it is written, read, and told from another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.base import clone

from fastinn.align import CCA, INN, Hub, LinearMap, Procrustes, load_aligner
from fastinn.moments import Moments, load_checkpoint, save_checkpoint
from fastinn.study.parts import Part


def make_rows(seed=0, n=60, d=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    return x, x.flip(1).tanh() + 0.1 * torch.randn(n, d, generator=generator)


X, Y = make_rows()


class Saved(NamedTuple):
    """One kind of thing that is saved.

    ``make(seed)`` returns it, ``save(thing, folder)`` writes it, ``load(folder)`` reads it, and
    ``values(thing)`` gives the tensors that it computes.
    """

    make: Callable[[int], Any]
    save: Callable[[Any, Path], None]
    load: Callable[[Path], Any]
    values: Callable[[Any], list[torch.Tensor]]


def _aligner(aligner):
    return Saved(
        lambda seed: clone(aligner).fit(*make_rows(seed)),
        lambda fitted, folder: fitted.save(folder),
        load_aligner,
        lambda fitted: [fitted.transform(X)],
    )


def _hub(seed):
    x, y = make_rows(seed)
    return Hub(CCA()).fit({"a": x, "b": y})


def _moments(seed):
    x, y = make_rows(seed)
    return Moments({"a": 4, "b": 4}, precision="exact").update({"a": x, "b": y})


def _totals(moments):
    return [moments.mean("a"), moments.cov("a", "b"), torch.tensor(moments.count)]


def _load_checkpoint(folder):
    if (found := load_checkpoint(folder / "c.safetensors")) is None:
        raise FileNotFoundError("no file c.safetensors")
    moments, place = found
    return moments.update({"a": X, "b": Y}), place


def _load_part(folder):
    if (found := Part(folder, {"cells": "all"}).found()) is None:
        raise FileNotFoundError("no part of results")
    return found


SAVED = {
    "procrustes": _aligner(Procrustes()),
    "linear": _aligner(LinearMap()),
    "cca": _aligner(CCA()),
    "inn": _aligner(INN(max_steps=2, n_couplings=2, hidden=8, batch_size=16, progress=False)),
    "hub": Saved(
        _hub,
        lambda hub, folder: hub.save(folder),
        load_aligner,
        lambda hub: [hub.transform(X, "a", "b")],
    ),
    "moments": Saved(
        _moments,
        lambda moments, folder: moments.save(folder / "m.safetensors"),
        lambda folder: Moments.load(folder / "m.safetensors"),
        _totals,
    ),
    "checkpoint": Saved(
        lambda seed: (_moments(seed), {"row": seed}),
        lambda both, folder: save_checkpoint(folder / "c.safetensors", *both),
        _load_checkpoint,
        lambda both: [*_totals(both[0]), torch.tensor(both[1]["row"])],
    ),
    "part": Saved(
        lambda seed: {"scores": [{"r2": make_rows(seed)[0].tolist(), "layer": seed}]},
        lambda results, folder: Part(folder, {"cells": "all"}).keep(results),
        _load_part,
        lambda results: [torch.tensor(results["scores"][0][name]) for name in ("r2", "layer")],
    ),
}
