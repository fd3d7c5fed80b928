"""One pass over one split of a corpus: all that the comparison of many seeds needs of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
        moments: Of all views, mispaired ones too if they were asked for.
        same_document: Share of the mispaired rows that meet their own document, because it is
            longer than the distance by which they are moved.
        rows: A bounded sample of the rows of some views, shape ``(n, d)`` each.
        documents: Document number of each sampled row, shape ``(n,)``.
        n_documents: Number of documents read.
    """

    moments: Moments
    same_document: float
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
    mispaired: bool = False,
    storage: Path | None = None,
    label: str = "pass",
) -> Pass:
    """Read ``stream`` once.

    Args:
        stream: Rows of all seeds over one split.
        pairs: Which views' products to accumulate, see :class:`fastinn.Moments`.
        sampled: Views whose rows are kept.
        max_rows: How many rows of them at most, the first ones.
        precision: Of the products.
        mispaired: Whether to accumulate mispaired rows for null bands; doubles the products.
        storage: Folder for the totals; ``None`` keeps them in memory.
        label: What the progress bar says.

    Raises:
        ValueError: If the split holds no text.
    """
    moments = Moments(
        stream.n_features, pairs=pairs, precision=precision, mispaired=mispaired, storage=storage
    )
    sample = _Sample(tuple(sampled), max_rows)
    n_documents, last, n_same = 0, -1, 0
    for block in tqdm(stream, label, unit=" blocks", disable=None):
        moments.update(block.rows)
        n_same += _n_same_document(block.documents, len(stream.encoders))
        sample.add(block)
        numbers = block.documents.unique()
        n_documents += int((numbers > last).sum())
        last = int(numbers[-1])
    return Pass(moments, n_same / moments.n_rows, *sample.finish(), n_documents)


def _n_same_document(documents: Tensor, n_seeds: int) -> int:
    """Count the rows that meet their document when moved by the least distance of two seeds."""
    return int((documents == documents.roll(max(1, len(documents) // n_seeds))).sum())


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
