"""The training loop of maps that are learned step by step: rows in, best checkpoint out."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from fastinn import distributed
from fastinn._progress import progress
from fastinn._types import Precision
from fastinn.align._checkpoints import Checkpoints, Snapshot, named
from fastinn.align._sources import Batches, Pair
from fastinn.nn._precision import rounded

_WARM_UP = 0.05
_GRADIENT_NORM = 1.0
_FULL_RATE_WIDTH = 64
_CHECKPOINTS = 10

# What a float32 network leaves of a bijection that it represents exactly, with a margin.
_NOTHING_LEFT = 1e-9

# What a run that goes on takes over besides tensors.
_RECORDED = ("history", "best_step", "n_steps", "n_skipped", "_n_scored", "_least_error")


@dataclass(frozen=True)
class Budget:
    """How long to train: until ``max_steps`` or ``max_seconds``, whichever comes first.

    Either may be ``None``, which is no limit.
    """

    max_steps: int | None
    max_seconds: float | None

    def spent(self, steps: int, seconds: float) -> float:
        """Return the share of the budget that is spent, 1 when there is none left."""
        return max(_share(steps, self.max_steps), _share(seconds, self.max_seconds))


def _share(spent: float, limit: float | None) -> float:
    if limit is None:
        return 0.0
    return spent / limit if limit else 1.0


class Trainer:
    """Minimise a loss with Adam, and keep the parameters that validated best.

    Args:
        module: What is trained, in place.
        loss: Loss of a batch of source and target rows.
        validate: R2 of each direction on the validation rows, by name; the checkpoint with the
            largest sum wins, the untrained module takes part, and a perfect one ends training.
        monitor: What else to enter in the history at every checkpoint, by name.
        budget: When to stop; the learning rate has decayed to zero by then.
        lr: Largest learning rate, of layers with at most 64 inputs; wider ones get less.
        full_rate_steps: Beyond so many steps, ``lr`` falls with the cube root of their number.
        precision: Rounding of products in steps; what is measured keeps that of the module.
        progress: Show how far training has come.

    Attributes:
        history: Steps, seconds, each R2 and what was monitored at every checkpoint.
        best_step: Step of the checkpoint that was kept.
        n_steps: Steps that were made.
        n_skipped: Those of them left out because their gradient was not finite.
        interrupted: Whether Ctrl-C ended training early.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        validate: Callable[[], dict[str, float]],
        monitor: Callable[[], dict[str, float]],
        *,
        budget: Budget,
        lr: float,
        full_rate_steps: float,
        precision: Precision,
        progress: bool,
    ) -> None:
        self._module, self._loss, self._precision = module, loss, precision
        self._validate, self._monitor = validate, monitor
        self._budget, self._progress = budget, progress
        self._lr, self._full_rate_steps = lr, full_rate_steps
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        groups = _by_width_scale(self._parameters)
        self._adam = torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.99), fused=True)
        self.history: dict[str, list[float]] = {}
        self.best_step = self.n_steps = self.n_skipped = 0
        self.interrupted = False
        self._n_scored = 0
        self._told_seconds = 0.0
        self._least_error = math.inf
        self._best: dict[str, Tensor] = {}

    def run(self, batches: Batches, validation: Pair, kept: Checkpoints | None = None) -> None:
        """Train, then restore the best checkpoint; Ctrl-C ends training and keeps it too.

        Args:
            batches: This rank's share of every batch.
            validation: What ``validate`` scores; kept with the rest.
            kept: Where to go on from and what to write; ``None``: nowhere.
        """
        self._begin(batches, kept)
        try:
            self._steps(batches, validation, kept)
        except KeyboardInterrupt:
            if distributed.world_size() > 1:
                raise  # ranks are interrupted at different steps
            self.interrupted = True
            warnings.warn(
                f"training was interrupted after {self.n_steps} steps ({self._spent():.0%}); the "
                f"checkpoint of step {self.best_step} is kept",
                stacklevel=2,
            )
        self._module.load_state_dict(self._best)

    def _begin(self, batches: Batches, kept: Checkpoints | None) -> None:
        self._start = time.perf_counter()
        if kept is not None and kept.found is not None:
            self._go_on(kept.found)
            batches.go_on(kept.found.part("batches"))
            kept.found = None  # a copy of all there is
        else:
            self._checkpoint()

    def _steps(self, batches: Batches, validation: Pair, kept: Checkpoints | None) -> None:
        total = self._budget.max_steps if self._budget.max_seconds is None else None
        done = self.n_steps
        with progress(
            label="train",
            shown=self._progress,
            total=total,
            initial=done,
            unit=" steps",
            leave=False,
        ) as bar:
            while self._least_error > _NOTHING_LEFT and (spent := self._spent()) < 1:
                due = self._step(*next(batches), self._learning_rate(spent), kept)
                bar.update()
                if self._spent() * _CHECKPOINTS >= self._n_scored + 1:
                    self._n_scored = math.floor(self._spent() * _CHECKPOINTS)
                    bar.set_postfix(self._checkpoint(), refresh=False)
                if kept is not None and due:
                    kept.save(self.n_steps, self._snapshot(batches, validation))
        if kept is not None and self.n_steps > done:
            kept.save(self.n_steps, self._snapshot(batches, validation))

    def _learning_rate(self, spent: float) -> float:
        """Return the rate of the next step; a time limit tells how many there will be."""
        steps = self.n_steps / spent if self.n_steps else self._budget.max_steps or 1
        return self._lr * min(1.0, (self._full_rate_steps / steps) ** (1 / 3)) * _rate(spent)

    def _step(self, x: Tensor, y: Tensor, lr: float, kept: Checkpoints | None) -> bool:
        """Make a step; return whether a checkpoint is due, on every rank alike."""
        for group in self._adam.param_groups:
            group["lr"] = lr * group["scale"]
        self._adam.zero_grad()
        with rounded(self._module, self._precision):
            self._loss(x, y).backward()
        due = kept is not None and kept.interval.due()
        if distributed.world_size() > 1:
            told = [self._own_seconds(), float(due)]
            heard = distributed.average_gradients(self._parameters, len(x), told)
            self._told_seconds, due = heard[0], heard[1] > 0
        norm = clip_grad_norm_(self._parameters, _GRADIENT_NORM)
        self.n_steps += 1
        if norm.isfinite():
            self._adam.step()
        else:
            self.n_skipped += 1
        return due

    def _checkpoint(self) -> dict[str, float]:
        scores, monitored = distributed.broadcast(
            (self._validate(), self._monitor()) if distributed.is_main() else None
        )
        error = sum(1 - score for score in scores.values())
        entry = {"steps": self.n_steps, "seconds": self._seconds(), **scores, **monitored}
        for name, value in entry.items():
            self.history.setdefault(name, []).append(value)
        if not self._best or error < self._least_error:
            self._least_error, self.best_step = error, self.n_steps
            self._best = {k: v.detach().clone() for k, v in self._module.state_dict().items()}
        return scores

    def _snapshot(self, batches: Batches, validation: Pair) -> Snapshot:
        state = self._adam.state_dict()["state"]
        tensors = named(
            module=self._module.state_dict(),
            best=self._best,
            optimizer={f"{i}.{k}": v for i, entry in state.items() for k, v in entry.items()},
            batches=batches.place(),
            validation=dict(zip("xy", validation, strict=True)),
        )
        record = {name: getattr(self, name) for name in _RECORDED}
        return Snapshot(tensors, record | {"seconds": self._seconds()})

    def _go_on(self, snapshot: Snapshot) -> None:
        """Take over all but the parameters, which the module already has."""
        device = self._parameters[0].device
        self._best = {name: v.to(device) for name, v in snapshot.part("best").items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in snapshot.part("optimizer").items():
            number, _, entry = name.partition(".")
            state.setdefault(int(number), {})[entry] = value
        self._adam.load_state_dict({**self._adam.state_dict(), "state": state})
        for name in _RECORDED:
            setattr(self, name, snapshot.record[name])
        self._told_seconds = snapshot.record["seconds"]
        self._start -= self._told_seconds

    def _spent(self) -> float:
        return self._budget.spent(self.n_steps, self._seconds())

    def _seconds(self) -> float:
        """Return the time spent; under several ranks that of rank 0, so that all do the same."""
        return self._own_seconds() if distributed.world_size() == 1 else self._told_seconds

    def _own_seconds(self) -> float:
        return time.perf_counter() - self._start


def _by_width_scale(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Group parameters that learn equally fast: Adam updates a group in one call."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(_width_scale(parameter), []).append(parameter)
    return [{"params": members, "scale": scale} for scale, members in groups.items()]


def _width_scale(parameter: Tensor) -> float:
    """Learning rate of a parameter as a share of that of a narrow layer.

    A step of Adam moves every entry alike, so what it does to the output grows with the fan-in
    (Yang et al. 2022, Tensor Programs V, arXiv 2203.03466).
    """
    return min(1.0, _FULL_RATE_WIDTH / parameter.shape[-1]) if parameter.ndim > 1 else 1.0


def _rate(spent: float) -> float:
    """Learning rate as a share of the largest: linear warm-up, then a half cosine to zero."""
    if spent < _WARM_UP:
        return max(spent, _WARM_UP / 100) / _WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (spent - _WARM_UP) / (1 - _WARM_UP))
