"""BERT-INN as an aligner, beside which the INN is held."""

import math
from typing import Any, Literal, cast

from torch import Tensor

from fastinn._types import Memory, Precision
from fastinn.align.inn import INN
from fastinn.moments import Moments
from fastinn.nn import BertINN, bert_inn

_CORE = "core."


class PublishedBertINN(INN):
    """The bijection of Ren et al. trained as published: from its own draw, with no linear start.

    The network is :func:`fastinn.nn.bert_inn`: two couplings and no linear layer, so it holds
    no linear map but scalings. Its rows are standardised feature by feature, as those of
    :class:`INN`; the published code trained on raw rows, on which it does no better. Optimiser,
    checkpoints and everything else are those of :class:`INN`.

    Args:
        objective: ``"forward"``, as published, or ``"two-way"``, see :class:`INN`. With
            ``"forward"`` the inverse may be useless.
        max_steps: Training steps; ``None``: as many as ``max_seconds`` allows.
        max_seconds: Time limit; the learning rate then decays by time, and results depend on it.
        batch_size: Rows a step.
        lr: Largest learning rate of Adam, of layers with at most 64 inputs; wider ones get less.
        random_state: Seed of initialisation and shuffling.
        validation: Share of the documents (or rows) that picks the checkpoint.
        progress: Show on stderr how far training has come.
        precision: Rounding of the networks' products when rows are mapped or scored, see
            :func:`fastinn.ops.coupling_mlp`.
        training_precision: The same in training steps, see :class:`INN`.
        memory: What a training step keeps for its backward pass, see :class:`fastinn.nn.Flow`.
        cuda_graphs: See :class:`INN`.

    Attributes:
        history_: Those of :class:`INN`, as are all others.

    Source: Ren et al. 2023, All Roads Lead to Rome?, arXiv 2305.14555, section 3.
    """

    start = "identity"
    n_couplings = 2
    _full_rate_steps = math.inf

    def __init__(
        self,
        *,
        objective: Literal["two-way", "forward"] = "forward",
        max_steps: int | None = 400,
        max_seconds: float | None = None,
        batch_size: int = 256,
        lr: float = 1.5e-2,
        random_state: int = 0,
        validation: float = 0.1,
        progress: bool = True,
        precision: Precision = "exact",
        training_precision: Precision = "fast",
        memory: Memory = "store",
        cuda_graphs: bool = False,
    ) -> None:
        self.objective = objective
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

    def _build(self, d_x: int, d_y: int) -> BertINN:
        return bert_inn(d_x, precision=self.precision, memory=self.memory)

    def _start(self, moments: Moments) -> None:
        """Keep the network as it was drawn."""

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        # Both couplings share weights, which a file must not hold twice.
        tensors, attributes = super()._state()
        flow = cast(BertINN, self._flow)
        units = {name: tensor for name, tensor in tensors.items() if not name.startswith(_CORE)}
        return units | {_CORE + name: w for name, w in flow.to_published().items()}, attributes

    def _restore(self, tensors: dict[str, Tensor], attributes: dict[str, Any]) -> None:
        published = {n.removeprefix(_CORE): w for n, w in tensors.items() if n.startswith(_CORE)}
        flow = bert_inn(attributes["n_features_in_"], published=published)
        units = {name: tensor for name, tensor in tensors.items() if not name.startswith(_CORE)}
        core = {_CORE + name: tensor for name, tensor in flow.state_dict().items()}
        super()._restore(units | core, attributes)
