"""What the aligners that are trained on rows have in common."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from os import PathLike
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

import fastinn
from fastinn import _checks, distributed
from fastinn._allocator import reused_buffers
from fastinn._types import Array, Precision
from fastinn.align._checkpoints import Checkpoints, opened
from fastinn.align._sources import (
    Block,
    InMemory,
    Pair,
    Source,
    Streamed,
    check_repeatable,
    document_numbers,
    first_of,
    identity_of,
    identity_of_rows,
)
from fastinn.align._standard import Standard
from fastinn.align._training import Budget, Trainer
from fastinn.align.base import Aligner, plain, whole_or_not
from fastinn.moments import Moments

INFERENCE_ROWS = 16_384
BUFFER_ROWS = 131_072


class Between(nn.Module):
    """A map between standardised rows, with the units of the two spaces it connects."""

    def __init__(self, core: nn.Module, d_x: int, d_y: int) -> None:
        super().__init__()
        self.core, self.source, self.target = core, Standard(d_x), Standard(d_y)

    def standardised(self, raw_weight: Tensor) -> Tensor:
        """Give a linear map of centred raw rows, shape ``(d_x, d_y)``, in standard units."""
        # Solved from rows that may lie on another device than the network does as yet.
        weight = raw_weight.to(self.source.scale.device)
        return self.source.scale[:, None] * weight / self.target.scale


class TrainedAligner(Aligner):
    """An aligner that is a network, trained step by step from a closed-form start.

    Attributes:
        history_: Lists of equal length with one entry a checkpoint: ``"steps"``, ``"seconds"``
            and the R2 of each direction on the validation rows.
        best_step_: Step of the checkpoint that was kept; 0 is the start.
        n_steps_: Steps that were made.
        skipped_steps_: Those of them left out because their gradient was not finite.
        interrupted_: Whether Ctrl-C ended training early.
    """

    hidden: int | None = None
    max_steps: int | None
    max_seconds: float | None
    batch_size: int
    lr: float
    random_state: int
    validation: float
    progress: bool
    precision: Precision
    training_precision: Precision
    _full_rate_steps: float = math.inf

    network_: Between
    history_: dict[str, list[float]]
    best_step_: int
    n_steps_: int
    skipped_steps_: int
    interrupted_: bool

    @whole_or_not
    def fit(
        self,
        X: Array,
        Y: Array,
        *,
        documents: Array | None = None,
        validation: tuple[Array, Array] | None = None,
        checkpoint: str | PathLike[str] | None = None,
    ) -> Self:
        """Train on rows in memory.

        Under several ranks each passes rows of its own and draws its share of every batch; all
        get the same map.

        Args:
            X: Source rows, shape ``(n, d_x)``.
            Y: Target rows, shape ``(n, d_y)``; row ``i`` is the same token in both.
            documents: Integer document of each row, shape ``(n,)``. Validation rows come from
                documents of their own; without it, every row counts as a document.
            validation: Rows to validate on, instead of a share of the documents.
            checkpoint: Folder of this fit alone, which every rank can reach. What a killed fit
                left there is gone on from; on a CPU the result is the same bit for bit, unless
                ``max_seconds`` ends it, which counts the time already spent.

        Returns:
            Itself. Ctrl-C ends training early, with a warning, and keeps the best checkpoint.

        Raises:
            ValueError: If a parameter is out of range, the rows are not paired and finite, or the
                checkpoint is of other parameters or rows, or damaged.
        """
        self._check_parameters()
        x, y = _checks.paired(X, Y, ("X", "Y"))
        y = y.to(x.device)
        held_out: float | Pair = self.validation
        if validation is not None:
            of_x, of_y = _checks.paired(*validation, ("validation X", "validation Y"))
            _checks.n_features(of_x, x.shape[1], "validation X", "X has")
            _checks.n_features(of_y, y.shape[1], "validation Y", "Y has")
            held_out = of_x.to(x.device), of_y.to(x.device)
        numbers = document_numbers(documents, x)
        kept = opened(checkpoint, self._settings((x, y)), partial(identity_of_rows, x, y, numbers))
        with reused_buffers():
            return self._fit(InMemory(x, y, numbers, held_out), kept)

    @whole_or_not
    def fit_stream(
        self, blocks: Iterable[Block], *, checkpoint: str | PathLike[str] | None = None
    ) -> Self:
        """Train on rows that pass by, in memory independent of their number.

        One pass collects the moments and validation rows, each epoch takes another.

        Args:
            blocks: Can be iterated any number of times and yields ``(x, y, documents)``: rows of
                shape ``(n, d_x)`` and ``(n, d_y)``, paired, and int64 document numbers ``(n,)``.
                A hash of the document number decides what is validated on.
            checkpoint: As in :meth:`fit`. A fit that goes on reads its epoch's blocks again up to
                the last batch; one killed in its first pass begins anew.

        Returns:
            Itself, as :meth:`fit`.

        Raises:
            ValueError: If a parameter is out of range, blocks can be iterated only once or one is
                not paired and finite, or the checkpoint is of other parameters or widths, or
                damaged.
        """
        self._check_parameters()
        check_repeatable(blocks)
        kept, validation = None, None
        if checkpoint is not None or distributed.world_size() > 1:
            x, y, _ = first_of(blocks)
            kept = opened(checkpoint, self._settings((x, y)), partial(identity_of, blocks))
            validation = None if kept is None else kept.validation(x.device)
        source = Streamed(blocks, self.validation, buffer_rows=BUFFER_ROWS, validation=validation)
        return self._fit(source, kept)

    @abstractmethod
    def _build(self, d_x: int, d_y: int) -> nn.Module:
        """Return the untrained network between standardised rows."""

    @abstractmethod
    def _start(self, moments: Moments) -> None:
        """Set the network to its closed-form start."""

    @abstractmethod
    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what training minimises, of one batch."""

    @abstractmethod
    def _validate(self, x: Tensor, y: Tensor) -> dict[str, float]:
        """Return the R2 of each direction that is trained."""

    def _monitor(self, x: Tensor) -> Callable[[], dict[str, float]]:
        """Return what measures the network at every checkpoint besides its R2."""
        return dict

    def _fit(self, source: Source, kept: Checkpoints | None = None) -> Self:
        x, y = source.validation
        if kept is None or kept.found is None:
            self._begin(x.shape[1], y.shape[1], source.moments)
        else:
            self._initialise(x.shape[1], y.shape[1])
            kept.restore(self.network_, source.validation)
        self.network_.to(x.device)
        distributed.same_parameters(self.network_)
        trainer = self._trainer(
            self.network_, self._loss, lambda: self._validate(x, y), self._monitor(x)
        )
        for name, value in self._run(trainer, source, kept).items():
            setattr(self, name, value)
        return self

    def _trainer(
        self,
        module: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        validate: Callable[[], dict[str, float]],
        monitor: Callable[[], dict[str, float]],
        *,
        rate: float = 1.0,
    ) -> Trainer:
        """Return what trains ``module`` by the parameters of this aligner.

        Args:
            module: See :class:`Trainer`, as for the next three.
            loss: Likewise.
            validate: Likewise.
            monitor: Likewise.
            rate: Learning rate as a share of that of this aligner.
        """
        return Trainer(
            module,
            loss,
            validate,
            monitor,
            budget=Budget(self.max_steps, self.max_seconds),
            lr=rate * self.lr,
            full_rate_steps=self._full_rate_steps,
            precision=self.training_precision,
            progress=self.progress,
        )

    def _run(self, trainer: Trainer, source: Source, kept: Checkpoints | None) -> dict[str, Any]:
        """Train, and return the fitted attributes that say how it went."""
        share = distributed.share_of(self.batch_size)
        trainer.run(source.batches(share, self._generator()), source.validation, kept)
        return {
            "history_": trainer.history,
            "best_step_": trainer.best_step,
            "n_steps_": trainer.n_steps,
            "skipped_steps_": trainer.n_skipped,
            "interrupted_": trainer.interrupted,
        }

    def _settings(self, rows: Pair) -> dict[str, Any]:
        """Return all that decides about the result but the values of the rows."""
        params = {k: v for k, v in plain(self.get_params()).items() if k != "progress"}
        data = {"widths": [r.shape[1] for r in rows], "dtypes": [str(r.dtype) for r in rows]}
        return {"class": type(self).__name__, "fastinn": fastinn.__version__, **params, **data}

    def _begin(self, d_x: int, d_y: int, moments: Moments) -> None:
        """Become what training starts from."""
        self._initialise(d_x, d_y)
        self.network_.source.fit(moments, "x")
        self.network_.target.fit(moments, "y")
        self._start(moments)

    def _width(self, d: int) -> int:
        """Return how wide the hidden layers for a space of ``d`` features are.

        By default, the wider, the more they learn in the same time, up to what weights cost in
        memory; in layers narrower than 64 all time goes into overhead.
        """
        return self.hidden or max(64, min(12 * d, 4 * d + 1024))

    def _initialise(self, d_x: int, d_y: int) -> None:
        self.n_features_in_, self.n_features_out_ = d_x, d_y
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.random_state)
            self.network_ = Between(self._build(d_x, d_y), d_x, d_y)

    def _in_batches(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Apply ``function`` of the network to a bounded number of rows at a time.

        Without gradients, and where the rows are: the network follows them.
        """
        self.network_.to(rows.device)
        with torch.no_grad():
            return torch.cat([function(part) for part in rows.split(INFERENCE_ROWS)])

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.random_state)

    def _check_parameters(self) -> None:
        for name, minimum in (("batch_size", 1), ("lr", 0)):
            _checks.at_least(getattr(self, name), minimum, name)
        for name, minimum in (("hidden", 1), ("max_steps", 0), ("max_seconds", 0)):
            if getattr(self, name) is not None:
                _checks.at_least(getattr(self, name), minimum, name)
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("max_steps and max_seconds are both None; give one, to end training")
        for name in ("precision", "training_precision"):
            _checks.one_of(getattr(self, name), get_args(Precision), name)
        if not 0 < self.validation < 1:
            raise ValueError(f"validation is {self.validation}, expected a share in (0, 1)")
        if self.batch_size < distributed.world_size():
            raise ValueError(
                f"batch_size is {self.batch_size}, which {distributed.world_size()} ranks cannot "
                "share; raise it or start fewer ranks"
            )

    def _saved_params(self) -> dict[str, Any]:
        params = super()._saved_params()
        if "hidden" in params:  # by number: the default of a later version may be another
            params["hidden"] = self._width(self.n_features_in_)
        return params

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        _, attributes = super()._state()
        del attributes["network_"]
        return self.network_.state_dict(), attributes

    def _restore(self, tensors: dict[str, Tensor], attributes: dict[str, Any]) -> None:
        widths = attributes["n_features_in_"], attributes["n_features_out_"]
        self._check_shapes(tensors, *widths)
        self._initialise(*widths)
        self.network_.load_state_dict(tensors)
        super()._restore({}, attributes)

    def _check_shapes(self, tensors: dict[str, Tensor], d_x: int, d_y: int) -> None:
        """Raise ``ValueError`` unless the network that is described has these tensors.

        Its layers and widths are those of a file, and must not cost more memory than the file.
        """
        if max(getattr(self, name, 0) for name in ("n_couplings", "n_hidden")) <= len(tensors):
            with torch.device("meta"):
                self._initialise(d_x, d_y)
            expected = {name: t.shape for name, t in self.network_.state_dict().items()}
            if expected == {name: t.shape for name, t in tensors.items()}:
                return
        raise ValueError(f"the tensors are not those of {type(self).__name__} of these sizes")
