"""Sanity check: does each method recover a bijection that is known to exist?"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fastinn import _checks
from fastinn._progress import progress as bar
from fastinn._types import Array
from fastinn.align._sources import document_numbers, held_out_rows
from fastinn.align.base import Aligner, Bijection
from fastinn.align.cca import CCA
from fastinn.align.inn import INN
from fastinn.align.linear import LinearMap
from fastinn.align.mlp import MLPMap
from fastinn.align.procrustes import Procrustes
from fastinn.align.published import PublishedBertINN
from fastinn.nn import BertINN, Flow, InvertibleLinear, bert_inn
from fastinn.study.resamples import r2_interval
from fastinn.study.significance import Interval

HiddenBijection = Literal["bert-inn", "mixed", "rotation", "identity"]
Direction = Literal["x->y", "y->x"]

STRENGTHS = (1.0, 1.18)

_WITH_STRENGTH = ("bert-inn", "mixed")

# The hidden weights must not be those that a network draws from the same seed to start from.
_HIDDEN_SEED_OFFSET = 1_000_003
_TEST_SHARE = 0.2
_FEWEST_DOCUMENTS = 3
_BATCH_ROWS = 16_384


@dataclass(frozen=True)
class Recovery:
    """How well one method recovers one hidden bijection ``y = f(x)``, on held-out documents.

    Attributes:
        bijection: The hidden bijection ``f``.
        strength: How far it is from linear; ``None`` for one that is linear.
        method: Class name of the aligner.
        direction: Which rows are predicted from which.
        r2: Variance-weighted R2.
        relative_mse: Mean squared error over the variance, ``1 - r2``.
        low: Lower end of its 95 % bootstrap interval over the held-out documents; ``None`` if
            that is a single one.
        high: Upper end, likewise.
    """

    bijection: HiddenBijection
    strength: float | None
    method: str
    direction: Direction
    r2: float
    relative_mse: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class _Rows:
    """Training and held-out rows of both spaces, and their documents."""

    x: Tensor
    y: Tensor
    documents: Tensor
    x_test: Tensor
    y_test: Tensor
    documents_test: Tensor

    def reversed(self) -> "_Rows":
        return replace(self, x=self.y, y=self.x, x_test=self.y_test, y_test=self.x_test)


def sanity_check(
    x: Array,
    *,
    documents: Array | None = None,
    bijections: Sequence[HiddenBijection] = get_args(HiddenBijection),
    strengths: Sequence[float] = STRENGTHS,
    inn: INN | None = None,
    published: PublishedBertINN | None = None,
    mlp: MLPMap | None = None,
    random_state: int = 0,
    progress: bool = True,
) -> list[Recovery]:
    """Hide a bijection in data, and let each method find it in both directions.

    The hidden ``f`` acts on standardised rows. A fifth of the documents are held out.

    Args:
        x: Rows, shape ``(n, d)``.
        documents: Integer document of each row, shape ``(n,)``; ``None``: each row is its own.
        bijections: Which ``f`` to hide: a random BERT-INN; two of them with a rotation between,
            mixed; a random rotation; the identity.
        strengths: Gains on the weights of the BERT-INNs; each is hidden once. At 1, the published
            initialisation, a BERT-INN is nearly linear; at 1.18 linear maps leave 5 to 10 % of the
            variance, at 2 a quarter.
        inn: The INN to train.
        published: The BERT-INN to train, of the family that one hidden bijection is from.
        mlp: The free network to train.
        random_state: Seed of the hidden bijections.
        progress: Show on stderr how far it has come.

    Returns:
        One entry a bijection, strength, method and direction.

    Raises:
        ValueError: If a bijection is unknown, there is no strength or one is not positive, the
            rows are not finite, or of fewer than three documents.
    """
    for bijection in bijections:
        _checks.one_of(bijection, get_args(HiddenBijection), "bijection")
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths is {list(strengths)}, expected one positive number or more")
    rows = _standardised(_checks.rows(x))
    numbers = document_numbers(documents, rows)
    _check_documents(len(numbers.unique()))
    methods = (
        Procrustes(),
        CCA(),
        LinearMap(),
        mlp or MLPMap(progress=progress),
        published or thorough_published().set_params(progress=progress),
        inn or thorough_inn().set_params(progress=progress),
    )
    found: list[Recovery] = []
    for what, strength in _settings(bijections, strengths):
        split = _split(rows, numbers, _hidden(what, rows.shape[1], strength, random_state))
        for method in bar(methods, what, shown=progress):
            found += [
                _recovery(what, strength, method, direction, r2)
                for direction, r2 in _recovered(method, split)
            ]
    return found


def _check_documents(n: int) -> None:
    if n < _FEWEST_DOCUMENTS:
        raise ValueError(
            f"the rows are of {n} documents, expected {_FEWEST_DOCUMENTS} or more: some to train, "
            "validate and test on each; read more documents, and rows enough to hold them"
        )


def thorough_inn() -> INN:
    """Return the INN that is trained by default: a hidden bijection leaves no noise."""
    return INN(max_steps=1500)


def thorough_published() -> PublishedBertINN:
    """Return the BERT-INN that is trained by default, on the error of both directions."""
    return PublishedBertINN(objective="two-way", max_steps=1000, batch_size=512)


def _settings(
    bijections: Sequence[HiddenBijection], strengths: Sequence[float]
) -> Iterator[tuple[HiddenBijection, float | None]]:
    """Yield each bijection, those that have a strength once with each."""
    for bijection in bijections:
        for strength in strengths if bijection in _WITH_STRENGTH else (None,):
            yield bijection, strength


def _recovery(
    what: HiddenBijection, strength: float | None, method: Aligner, way: Direction, r2: Interval
) -> Recovery:
    low, high = (None if math.isnan(end) else 1 - end for end in (r2.high, r2.low))
    return Recovery(what, strength, type(method).__name__, way, r2.mean, 1 - r2.mean, low, high)


def _recovered(method: Aligner, rows: _Rows) -> Iterator[tuple[Direction, Interval]]:
    """Yield the R2 of each direction; a bijection is fitted once, others once a direction."""
    yield "x->y", _scored(rows, _fitted(method, rows).transform)
    back = rows.reversed()
    if isinstance(method, Bijection):
        yield "y->x", _scored(back, method.inverse_transform)
    else:
        yield "y->x", _scored(back, _fitted(method, back).transform)


def _scored(rows: _Rows, transform: Callable[[Tensor], Tensor]) -> Interval:
    return r2_interval(rows.y_test, transform(rows.x_test), rows.documents_test.numpy())


def _fitted(method: Aligner, rows: _Rows) -> Aligner:
    if isinstance(method, INN | MLPMap):
        return method.fit(rows.x, rows.y, documents=rows.documents)
    return method.fit(rows.x, rows.y)


def _split(x: Tensor, documents: Tensor, hidden: nn.Module) -> _Rows:
    hidden.to(x.device)
    with torch.no_grad():
        y = torch.cat([hidden(part)[0] for part in x.split(_BATCH_ROWS)])
    test = held_out_rows(documents, _TEST_SHARE)
    return _Rows(x[~test], y[~test], documents[~test], x[test], y[test], documents[test])


def _standardised(rows: Tensor) -> Tensor:
    rows = rows.float()
    return (rows - rows.mean(dim=0)) / rows.std(dim=0).clamp(min=torch.finfo(rows.dtype).tiny)


def _hidden(kind: HiddenBijection, d: int, strength: float | None, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed + _HIDDEN_SEED_OFFSET)
        if strength is None:
            return InvertibleLinear(d, weight=torch.eye(d) if kind == "identity" else None)
        first = _strengthened(bert_inn(d), strength)
        if kind == "bert-inn":
            return first
        return Flow(first, InvertibleLinear(d), _strengthened(bert_inn(d), strength))


def _strengthened(flow: BertINN, strength: float) -> BertINN:
    weights = {
        key: tensor * strength if key.endswith("weight") else tensor
        for key, tensor in flow.to_published().items()
    }
    return bert_inn(weights["shift.2.bias"].numel(), published=weights)
