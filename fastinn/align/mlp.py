"""A free network: what a map reaches that need not be a bijection."""

from torch import Tensor, nn

from fastinn._products import products
from fastinn._types import Activation, Precision
from fastinn.align._trained import TrainedAligner
from fastinn.align.base import r2
from fastinn.align.linear import LinearMap
from fastinn.moments import Moments
from fastinn.nn._mlp import mlp


class MLPMap(TrainedAligner):
    """Least-squares map plus a multi-layer perceptron that is trained on what it leaves.

    The upper bound that bijections are held against, one direction only.

    Args:
        hidden: Width of the hidden layers; by default that of :class:`INN` for the source space.
        n_hidden: Number of hidden layers.
        activation: ``"relu"``, ``"selu"``, ``"gelu"`` (tanh form) or ``"silu"``.
        max_steps: Training steps; ``None``: as many as ``max_seconds`` allows.
        max_seconds: Time limit; the learning rate then decays by time, and results depend on it.
        batch_size: Rows a step.
        lr: Largest learning rate of Adam, of layers with at most 64 inputs; wider ones get less.
        random_state: Seed of initialisation and shuffling.
        validation: Share of the documents (or rows) that picks the checkpoint.
        progress: Show on stderr how far training has come.
        precision: Rounding of the network's products when rows are mapped or scored; ``"fast"``
            uses bfloat16 on GPUs and processors with AVX512_BF16 or AMX, ``"high"`` is the same as
            ``"exact"``.
        training_precision: The same in training steps, see :class:`INN`.

    Attributes:
        history_: See :class:`INN`; the only R2 is ``"forward_r2"``.
    """

    def __init__(
        self,
        *,
        hidden: int | None = None,
        n_hidden: int = 2,
        activation: Activation = "gelu",
        max_steps: int | None = 1000,
        max_seconds: float | None = None,
        batch_size: int = 512,
        lr: float = 3e-2,
        random_state: int = 0,
        validation: float = 0.1,
        progress: bool = True,
        precision: Precision = "exact",
        training_precision: Precision = "fast",
    ) -> None:
        self.hidden = hidden
        self.n_hidden = n_hidden
        self.activation = activation
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state
        self.validation = validation
        self.progress = progress
        self.precision = precision
        self.training_precision = training_precision

    def _build(self, d_x: int, d_y: int) -> nn.Module:
        widths = [d_x, *[self._width(d_x)] * self.n_hidden, d_y]
        return _LinearPlus(widths, self.activation, self.precision)

    def _start(self, moments: Moments) -> None:
        weight = LinearMap().from_moments(moments, "x", "y").weight_
        start = {"linear.weight": self.network_.standardised(weight).T}
        self.network_.core.load_state_dict(start, strict=False)

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        source, target = self.network_.source, self.network_.target
        return target.relative_error(self.network_.core(source(x)) - target(y))

    def _validate(self, x: Tensor, y: Tensor) -> dict[str, float]:
        return {"forward_r2": r2(y, self._transform(x))}

    def _transform(self, x: Tensor) -> Tensor:
        network = self.network_
        return self._in_batches(
            lambda rows: network.target.undo(network.core(network.source(rows))), x
        )


class _LinearPlus(nn.Module):
    """A linear layer plus a perceptron that starts at zero."""

    def __init__(self, widths: list[int], activation: Activation, precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        self.linear = nn.Linear(widths[0], widths[-1])
        nn.init.zeros_(self.linear.bias)
        self.mlp = mlp(widths, activation)

    def forward(self, x: Tensor) -> Tensor:
        with products(self.precision, x.device):
            correction = self.mlp(x)
        return self.linear(x) + correction
