"""The training loop of maps that are learned step by step: rows in, best checkpoint out."""

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from fastinn.align._sources import Pair

_WARM_UP = 0.05
_GRADIENT_NORM = 1.0
_FULL_RATE_WIDTH = 64
_CHECKPOINTS = 10

# What a float32 network leaves of a bijection that it represents exactly, with a margin.
_NOTHING_LEFT = 1e-9


@dataclass(frozen=True)
class Budget:
    """How long to train: until ``max_steps`` or ``max_seconds``, whichever comes first."""

    max_steps: int
    max_seconds: float | None

    def spent(self, steps: int, seconds: float) -> float:
        """Return the share of the budget that is spent, 1 when there is none left."""
        by_time = 0.0 if self.max_seconds is None else seconds / self.max_seconds
        return max(steps / self.max_steps if self.max_steps else 1.0, by_time)


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
        progress: Show a progress bar if stderr is a terminal.

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
        progress: bool,
    ) -> None:
        self._module, self._loss = module, loss
        self._validate, self._monitor = validate, monitor
        self._budget, self._lr, self._progress = budget, lr, progress
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        groups = [{"params": [p], "scale": _width_scale(p)} for p in self._parameters]
        self._adam = torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.99), fused=True)
        self.history: dict[str, list[float]] = {}
        self.best_step = self.n_steps = self.n_skipped = 0
        self.interrupted = False
        self._least_error = math.inf
        self._best: dict[str, Tensor] = {}

    def run(self, batches: Iterator[Pair]) -> None:
        """Train, then restore the best checkpoint; Ctrl-C ends training and keeps it too."""
        self._start = time.perf_counter()
        self._checkpoint()
        try:
            self._steps(batches)
        except KeyboardInterrupt:
            self.interrupted = True
            warnings.warn(
                f"training was interrupted after {self.n_steps} of {self._budget.max_steps} steps; "
                f"the checkpoint of step {self.best_step} is kept",
                stacklevel=2,
            )
        self._module.load_state_dict(self._best)

    def _steps(self, batches: Iterator[Pair]) -> None:
        shown = self._progress and sys.stderr.isatty()
        with tqdm(total=self._budget.max_steps, disable=not shown, unit="step", leave=False) as bar:
            checkpoints = 0
            while self._least_error > _NOTHING_LEFT and (spent := self._spent()) < 1:
                self._step(*next(batches), self._lr * _rate(spent))
                bar.update()
                if self._spent() * _CHECKPOINTS >= checkpoints + 1:
                    checkpoints = math.floor(self._spent() * _CHECKPOINTS)
                    bar.set_postfix(self._checkpoint())

    def _step(self, x: Tensor, y: Tensor, lr: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] = lr * group["scale"]
        self._adam.zero_grad()
        self._loss(x, y).backward()
        norm = clip_grad_norm_(self._parameters, _GRADIENT_NORM)
        self.n_steps += 1
        if norm.isfinite():
            self._adam.step()
        else:
            self.n_skipped += 1

    def _checkpoint(self) -> dict[str, float]:
        scores = self._validate()
        error = sum(1 - score for score in scores.values())
        seconds = time.perf_counter() - self._start
        entry = {"steps": self.n_steps, "seconds": seconds, **scores, **self._monitor()}
        for name, value in entry.items():
            self.history.setdefault(name, []).append(value)
        if not self._best or error < self._least_error:
            self._least_error, self.best_step = error, self.n_steps
            self._best = {k: v.detach().clone() for k, v in self._module.state_dict().items()}
        return scores

    def _spent(self) -> float:
        return self._budget.spent(self.n_steps, time.perf_counter() - self._start)


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
