"""A hub of all seeds at one layer, beside the maps of single pairs."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from fastinn.align import INN, Hub
from fastinn.embed.corpus import Split
from fastinn.metrics import cycle_error
from fastinn.study.passes import Pass, View
from fastinn.study.records import (
    Record,
    Results,
    cycle_record,
    network_name,
    training_record,
)
from fastinn.study.scores import bijection_records

CONSENSUS = "consensus"


def hub_results(
    views: Sequence[View],
    passes: Mapping[Split, Pass],
    inn: INN,
    common: str,
    *,
    n_candidates: int,
) -> Results:
    """Train a hub of views of several seeds, and score every pair through it, held-out.

    Args:
        views: One view of each seed.
        passes: Rows of the views, of every split.
        inn: What is trained for each seed, unfitted.
        common: Seed whose space is the common one, or ``"consensus"``.
        n_candidates: See :func:`fastinn.metrics.retrieval_accuracy`.

    Returns:
        Scores of both directions of each pair, the training record, and the error round a
        cycle of three seeds, if there are so many.
    """
    pivots = {seed: (seed, layer) for seed, layer in views}
    hub = Hub(inn, pivot=pivots.get(common))
    train, validation, test = (
        {view: passes[split].rows[view].numpy() for view in views}
        for split in ("train", "validation", "test")
    )
    hub.fit(train, validation=validation)
    if hub.interrupted_:
        raise KeyboardInterrupt  # what is finished is kept; a hub cut short is not
    name = f"hub {network_name(inn).removesuffix(')')}, {common})"
    scores = [
        record
        for a, b in combinations(views, 2)
        for record in bijection_records(
            name, hub.aligner(a, b), (a, b), (test[a], test[b]), n_candidates
        )
    ]
    worst = max(record.get("round_trip", 0.0) for record in scores)
    whole = ("all seeds", views[0][1]), (common, views[0][1])
    training = [training_record(name, *whole, hub, worst) | {"maps": len(hub.maps_)}]
    return {"scores": scores, "training": training, "cycles": _cycle(name, hub, views, test)}


def _cycle(
    name: str, hub: Hub, views: Sequence[View], test: Mapping[View, np.ndarray]
) -> list[Record]:
    if len(views) < 3:
        return []
    a, b, c = views[:3]
    maps = [hub.aligner(*pair).transform for pair in ((a, b), (b, c), (c, a))]
    return [cycle_record(name, (a, b, c), cycle_error(maps, test[a]))]
