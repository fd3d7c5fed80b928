"""Moments of every split in files, for closed forms that are solved later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fastinn import distributed
from fastinn._types import Precision
from fastinn.embed import Stream
from fastinn.embed.corpus import SPLITS, Split
from fastinn.embed.stream import Readable, views_of
from fastinn.moments import Moments, MomentsSize, Pairs
from fastinn.study.passes import run_pass

Cells = Literal["all", "same-layer"]

PAIRS: Mapping[str, Pairs] = {"all": "across-seeds", "same-layer": "within-layer"}
"""The covariances that cells need; those of one seed's layers with each other never."""

WITH_NULL: tuple[Split, ...] = ("train", "test")
"""A null is found in the training rows and read off the test rows."""


def accumulated_size(
    sources: Mapping[str, Readable], cells: str, *, null: bool = True
) -> MomentsSize:
    """Return what the moments of all splits will take, before anything is read."""
    n_features = views_of(sources)
    sizes = [
        Moments.estimate(n_features, pairs=PAIRS[cells], mispaired=null and split in WITH_NULL)
        for split in SPLITS
    ]
    return sum(sizes, MomentsSize(0, 0))


def accumulate(
    text: Stream,
    folder: Path,
    *,
    cells: str = "same-layer",
    null: bool = True,
    precision: Precision = "high",
    storage: Path | None = None,
    checkpoints: Path | None = None,
    every: float = 60.0,
) -> dict[str, Any]:
    """Read each split once and write its moments to ``<split>.safetensors``.

    Under several ranks each reads its shard of the text, and rank 0 writes.

    Args:
        text: Rows of all seeds.
        folder: Where the moments go; :meth:`Moments.load` reads them.
        cells: Pairs of layers, ``"same-layer"`` or ``"all"``; always across seeds.
        null: Whether to accumulate mispaired rows of the training and test split.
        precision: Of the products.
        storage: Folder for the totals; ``None`` keeps them in memory.
        checkpoints: Folder from which a killed run goes on; ``None``: none.
        every: Seconds between two checkpoints at least.

    Returns:
        What was read, as JSON can hold it.
    """
    splits = {}
    for split in SPLITS:
        done = run_pass(
            text.split(split).shard(distributed.rank(), distributed.world_size()),
            pairs=PAIRS[cells],
            precision=precision,
            mispaired=null and split in WITH_NULL,
            storage=storage,
            label=f"read {split}",
            checkpoint=None if checkpoints is None else checkpoints / split,
            every=every,
        )
        if distributed.is_main():
            done.moments.save(folder / f"{split}.safetensors")
        splits[split] = {"documents": done.n_documents, "rows": done.moments.n_rows}
    return {"splits": splits, "cells": cells, "precision": precision, **text.identity()}
