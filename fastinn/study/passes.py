"""One pass over one split of a corpus: all that the comparison of many seeds needs of it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from fastinn._types import Precision
from fastinn.embed.stream import Block, Stream
from fastinn.moments import Moments, Pairs

View = tuple[str, int]


@dataclass(frozen=True)
class Pass:
    """What one split of the corpus left behind.

    Attributes:
        moments: Of all views.
        null: Of the views of each layer with every seed's rows moved by another distance, so that
            no row meets its own token: what any statistic gives where nothing is shared.
        rows: A bounded sample of the rows of some views, shape ``(n, d)`` each.
        documents: Document number of each sampled row, shape ``(n,)``.
        n_documents: Number of documents read.
    """

    moments: Moments
    null: Moments
    rows: dict[View, Tensor]
    documents: Tensor
    n_documents: int


def run_pass(
    stream: Stream,
    *,
    pairs: Pairs,
    sampled: Iterable[View] = (),
    max_rows: int = 0,
    precision: Precision = "high",
    label: str = "pass",
) -> Pass:
    """Read ``stream`` once.

    Args:
        stream: Rows of all seeds over one split.
        pairs: Which views' products to accumulate, see :class:`fastinn.Moments`.
        sampled: Views whose rows are kept.
        max_rows: How many rows of them at most, the first ones.
        precision: Of the products.
        label: What the progress bar says.

    Raises:
        ValueError: If the split holds no text.
    """
    moments = Moments(stream.n_features, pairs=pairs, precision=precision)
    null = Moments(stream.n_features, pairs="within-layer", precision=precision)
    sample = _Sample(tuple(sampled), max_rows)
    n_documents, last = 0, -1
    for block in tqdm(stream, label, unit=" blocks", disable=None):
        moments.update(block.rows)
        null.update(_mispaired(block.rows))
        sample.add(block)
        numbers = block.documents.unique()
        n_documents += int((numbers > last).sum())
        last = int(numbers[-1])
    return Pass(moments, null, *sample.finish(), n_documents)


def _mispaired(rows: dict[View, Tensor]) -> dict[View, Tensor]:
    """Roll the rows of each seed by its own distance, the distances as far apart as can be."""
    seeds = list(dict.fromkeys(seed for seed, _ in rows))
    stride = max(1, len(next(iter(rows.values()))) // len(seeds))
    return {view: x.roll(seeds.index(view[0]) * stride, dims=0) for view, x in rows.items()}


class _Sample:
    """The first rows of some views, up to a number."""

    def __init__(self, views: tuple[View, ...], max_rows: int) -> None:
        self._room = max_rows
        self._rows: dict[View, list[Tensor]] = {view: [] for view in views}
        self._documents: list[Tensor] = []

    def add(self, block: Block) -> None:
        for view, held in self._rows.items():
            held.append(block.rows[view][: self._room])
        self._documents.append(block.documents[: self._room])
        self._room -= len(self._documents[-1])

    def finish(self) -> tuple[dict[View, Tensor], Tensor]:
        rows = {view: torch.cat(held) for view, held in self._rows.items()}
        return rows, torch.cat(self._documents)
