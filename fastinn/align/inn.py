"""A learned bijection that starts as a closed-form linear one."""

import math
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from fastinn import _checks
from fastinn._types import Activation, Kept, Memory, Precision
from fastinn.align._checkpoints import Checkpoints
from fastinn.align._sources import Source
from fastinn.align._standard import Standard
from fastinn.align._trained import INFERENCE_ROWS, TrainedAligner
from fastinn.align.base import Bijection, r2
from fastinn.align.cca import CCA
from fastinn.align.linear import LinearMap
from fastinn.align.moment import MomentAligner
from fastinn.align.procrustes import Procrustes
from fastinn.moments import Moments
from fastinn.nn import AffineCoupling, Flow, GraphedFlow, InvertibleLinear
from fastinn.nn._round_trip import RoundTripGuard

Start = Literal["cca", "linear", "procrustes", "identity"]

_STARTS: dict[Start, type[MomentAligner]] = {
    "cca": CCA,
    "linear": LinearMap,
    "procrustes": Procrustes,
}

# Largest ratio of a gain of the start to the median gain. Keeps the condition of the linear
# layer at 1e4 or less, so that a round trip in float32 is good to 1e-3 at worst.
_GAIN_RATIO = 100.0

# Largest round trip that needs no warning. Rows that come back with another last bit can round
# to another 16-bit operand, so "fast" products cannot do better than some roundings of 2^-8.
_ROUND_TRIP: dict[Precision, float] = {"exact": 1e-3, "high": 1e-3, "fast": 1e-2}

# How many rows it is measured on at a checkpoint.
_ROUND_TRIP_ROWS = 1024


class INN(TrainedAligner, Bijection):
    r"""Bijection trained in both directions at once.

    .. math::
        f(x) = \mu_y + D_y\, B_K \circ \dots \circ B_1(W D_x^{-1} (x - \mu_x)), \qquad
        B_k = Q_k^\top \circ C_k' \circ C_k \circ Q_k

    with diagonal scales :math:`D`, fixed random rotations :math:`Q_k`, pairs of affine couplings
    that start as the identity, of which :math:`C_k` moves one half of the features and
    :math:`C_k'` the other, and a learned matrix :math:`W`, so that training starts at a
    closed-form linear bijection and the checkpoint that is kept, chosen on validation rows with
    the start among them, is no worse there.

    Args:
        objective: ``"two-way"`` minimises the relative squared error of the map and of its
            inverse; ``"forward"`` that of the map only, whose inverse may then be useless.
        start: ``"cca"`` (canonical map), ``"linear"`` (least squares), ``"procrustes"`` or
            ``"identity"``. Gains far from the median are clipped to make it a bijection.
        n_couplings: Number of couplings, two a rotation; an odd one has a rotation of its own.
        hidden: Width of their sub-networks; by default ``12 * d`` up to 128 features and
            ``4 * d + 1024`` beyond, at least 64.
        n_hidden: Number of hidden layers of their sub-networks.
        activation: ``"relu"``, ``"selu"``, ``"gelu"`` (tanh form) or ``"silu"``.
        clamp: Bound of the log-scale of each coupling.
        max_steps: Training steps; ``None``: as many as ``max_seconds`` allows.
        max_seconds: Time limit; the learning rate then decays by time, and results depend on it.
        batch_size: Rows a step.
        lr: Largest learning rate of Adam, of layers with at most 64 inputs; wider ones get less,
            and so do trainings of more than 1000 steps, by the cube root of their number.
        random_state: Seed of initialisation and shuffling.
        validation: Share of the documents (or rows) that picks the checkpoint.
        progress: Show on stderr how far training has come.
        precision: Rounding of the sub-networks' products when rows are mapped or scored, see
            :func:`fastinn.ops.coupling_mlp`. Rotations and linear layer are never rounded to 16
            bits, see :class:`fastinn.nn.InvertibleLinear`.
        training_precision: The same in training steps. ``"fast"`` makes them about twice as fast
            on processors with AVX512_BF16 or AMX, for maps that are as accurate.
        memory: What a training step keeps for its backward pass, see :class:`fastinn.nn.Flow`.
        cuda_graphs: Map full blocks of 16,384 rows by CUDA graphs where rows are on a GPU, see
            :class:`fastinn.nn.GraphedFlow`.

    Warns:
        RuntimeWarning: Once, if the round trip is beyond 1e-3 at a checkpoint (1e-2 with ``"fast"``
            products); it names the layer in which the error grows most.

    Attributes:
        history_: Lists of equal length with one entry a checkpoint: ``"steps"``, ``"seconds"``,
            ``"forward_r2"``, with the two-way objective ``"inverse_r2"``, and ``"round_trip"``,
            the error of the flow's inverse on some validation rows, see
            :func:`fastinn.nn.round_trip`.
        best_step_: Step of the checkpoint that was kept; 0 is the start.
        n_steps_: Steps that were made.
        skipped_steps_: Those of them left out because their gradient was not finite.
        interrupted_: Whether Ctrl-C ended training early.
        round_trip_: Largest error of ``inverse_transform(transform(x))`` on the validation rows,
            in standard deviations of the feature.
    """

    round_trip_: float

    # At the full rate a long two-way training is carried away by rows that come back from far
    # outside: 12,000 steps of 2.5e-2 ended at R2 -35 one way, of 1.2e-2 at 0.85 both ways.
    _full_rate_steps: float = 1000

    def __init__(
        self,
        *,
        objective: Literal["two-way", "forward"] = "two-way",
        start: Start = "cca",
        n_couplings: int = 8,
        hidden: int | None = None,
        n_hidden: int = 1,
        activation: Activation = "gelu",
        clamp: float = 1.0,
        max_steps: int | None = 1000,
        max_seconds: float | None = None,
        batch_size: int = 512,
        lr: float = 2.5e-2,
        random_state: int = 0,
        validation: float = 0.1,
        progress: bool = True,
        precision: Precision = "exact",
        training_precision: Precision = "fast",
        memory: Memory = "store",
        cuda_graphs: bool = False,
    ) -> None:
        self.objective = objective
        self.start = start
        self.n_couplings = n_couplings
        self.hidden = hidden
        self.n_hidden = n_hidden
        self.activation = activation
        self.clamp = clamp
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state
        self.validation = validation
        self.progress = progress
        self.precision = precision
        self.training_precision = training_precision
        self.memory = memory
        self.cuda_graphs = cuda_graphs

    def _fit(self, source: Source, kept: Checkpoints | None = None) -> "INN":
        d_x, d_y = (rows.shape[1] for rows in source.validation)
        if d_x != d_y:
            raise ValueError(
                f"X has {d_x} features and Y has {d_y}: a bijection needs equally many; "
                "LinearMap and MLPMap do not"
            )
        super()._fit(source, kept)
        self.round_trip_ = self._round_trip(source.validation[0])
        return self

    def _build(self, d_x: int, d_y: int) -> Flow:
        # Only the rotation between two couplings is applied: Q_k^T and the next Q are one product.
        layers: list[nn.Module] = [self._linear(d_x, weight=torch.eye(d_x))]
        for place in range(self.n_couplings):
            layers.append(self._coupling(d_x, "last" if place % 2 else "first"))
            if place % 2 or place == self.n_couplings - 1:
                layers.append(self._linear(d_x, orthogonal=True))
        return Flow(*layers, memory=self.memory)

    def _linear(self, d: int, **kind: Any) -> InvertibleLinear:
        return InvertibleLinear(d, precision=self.precision, **kind)

    def _coupling(self, d: int, kept: Kept) -> AffineCoupling:
        return AffineCoupling(
            d,
            self._width(d),
            kept=kept,
            n_hidden=self.n_hidden,
            activation=self.activation,
            clamp=self.clamp,
            precision=self.precision,
            memory=self.memory,
        )

    def _start(self, moments: Moments) -> None:
        flow = self._flow
        start = _bounded(self.network_.standardised(self._start_weight(moments)))
        with torch.no_grad():
            # All other layers together are a rotation as yet, which the first one undoes.
            rotation, _ = flow(torch.eye(len(start)))
            flow.layers[0].load_state_dict({"weight": rotation.double() @ start.T}, strict=False)

    def _start_weight(self, moments: Moments) -> Tensor:
        if self.start == "identity":
            return torch.eye(moments.n_features["x"], dtype=torch.float64)
        return _STARTS[self.start]().from_moments(moments, "x", "y").weight_

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        flow, source, target = self._flow, self.network_.source, self.network_.target
        x, y = source(x), target(y)
        error = target.relative_error(flow(x)[0] - y)
        if self.objective == "two-way":
            error = error + source.relative_error(flow.inverse(y)[0] - x)
        return error

    def _validate(self, x: Tensor, y: Tensor) -> dict[str, float]:
        scores = {"forward_r2": r2(y, self._transform(x))}
        if self.objective == "two-way":
            scores["inverse_r2"] = r2(x, self._inverse_transform(y))
        return scores

    def _monitor(self, x: Tensor) -> Callable[[], dict[str, float]]:
        guard = RoundTripGuard(self._flow, _ROUND_TRIP[self.precision])
        sample = self.network_.source(x[:: math.ceil(len(x) / _ROUND_TRIP_ROWS)])
        return lambda: {"round_trip": guard.check(sample)}

    def _round_trip(self, x: Tensor) -> float:
        error = self._inverse_transform(self._transform(x)) - x
        return float((error / self.network_.source.scale).abs().max())

    def _transform(self, x: Tensor) -> Tensor:
        return self._map(x, self.network_.source, self.network_.target, inverse=False)

    def _inverse_transform(self, y: Tensor) -> Tensor:
        return self._map(y, self.network_.target, self.network_.source, inverse=True)

    @property
    def _flow(self) -> Flow:
        return cast(Flow, self.network_.core)

    def _map(
        self, rows: Tensor, origin: Standard, destination: Standard, *, inverse: bool
    ) -> Tensor:
        def mapped(part: Tensor) -> Tensor:
            # A last block of any other size would come once.
            graphed = self.cuda_graphs and len(part) == INFERENCE_ROWS
            flow = self._graphed if graphed else self._flow
            return destination.undo((flow.inverse if inverse else flow)(origin(part))[0])

        return self._in_batches(mapped, rows)

    def _initialise(self, d_x: int, d_y: int) -> None:
        super()._initialise(d_x, d_y)
        self._graphed = GraphedFlow(self._flow)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _checks.one_of(self.memory, get_args(Memory), "memory")
        _checks.one_of(self.objective, ("two-way", "forward"), "objective")
        _checks.one_of(self.start, (*_STARTS, "identity"), "start")
        _checks.at_least(self.n_couplings, 0, "n_couplings")


def _bounded(weight: Tensor) -> Tensor:
    """Clip the gains of a square map around their median; null directions get the lower bound."""
    u, gains, vh = torch.linalg.svd(weight)
    middle = gains[gains > gains[0] * torch.finfo(gains.dtype).eps * len(gains)].median()
    return u * gains.clamp(middle / _GAIN_RATIO, middle * _GAIN_RATIO) @ vh
