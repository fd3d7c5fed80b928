"""The learning rate: how it begins, how it ends, and what is left of it in a long training."""

import math

import pytest
import torch
from torch import nn

from fastinn.align._training import Budget, Trainer

LR = 0.1


def rates(monkeypatch, steps, full_rate_steps=math.inf, max_seconds=None):
    """Return the learning rate of every step of a training of as many."""
    module, found = nn.Linear(2, 2), []
    trainer = Trainer(
        module,
        lambda x, y: (module(x) - y).square().mean(),
        lambda: {"forward_r2": 0.0},
        dict,
        budget=Budget(steps, max_seconds),
        lr=LR,
        full_rate_steps=full_rate_steps,
        precision="exact",
        progress=False,
    )
    step = trainer._step
    monkeypatch.setattr(
        trainer, "_step", lambda x, y, lr, kept: found.append(lr) or step(x, y, lr, kept)
    )
    rows = torch.ones(4, 2)
    trainer.run(iter(lambda: (rows, rows), None), (rows, rows))
    assert len(found) == trainer.n_steps
    return found


@pytest.mark.parametrize("full_rate_steps", [math.inf, 10])
def test_warms_up_and_decays(monkeypatch, full_rate_steps):
    found = rates(monkeypatch, 200, full_rate_steps)
    largest = found.index(max(found))
    assert largest == 10
    assert found[:largest] == sorted(found[:largest])
    assert found[largest:] == sorted(found[largest:], reverse=True)
    assert 0 < found[-1] < 1e-3 * max(found)


def test_long_trainings_have_a_lower_rate(monkeypatch):
    assert max(rates(monkeypatch, 160, 20)) == pytest.approx(LR / 2)
    assert max(rates(monkeypatch, 20, 20)) == pytest.approx(LR)


def test_a_time_limit_counts_the_steps_that_it_leaves_time_for(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) / 4)
    found = rates(monkeypatch, None, 20, max_seconds=200)
    assert len(found) < 400
    assert max(found) == pytest.approx(LR * (20 / len(found)) ** (1 / 3), rel=0.1)
