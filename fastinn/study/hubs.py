"""A hub of all seeds at one layer, beside the maps of single pairs."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from torch import Tensor

from fastinn.align import INN, Hub
from fastinn.embed.corpus import SPLITS, Split
from fastinn.study._gpu import on_gpu
from fastinn.study.held_out import HeldOut
from fastinn.study.parts import Part, Parts
from fastinn.study.passes import Pass, View, own_rows
from fastinn.study.records import Record, Results, network_name, training_record
from fastinn.study.scores import bijection_records, cycle_scored

CONSENSUS = "consensus"


def hub_results(
    views: Sequence[View],
    passes: Mapping[Split, Pass],
    inn: INN,
    common: str,
    held_out: HeldOut,
    part: Part,
) -> Results:
    """Train a hub of views of several seeds, and score every pair through it, held-out.

    Args:
        views: One view of each seed.
        passes: Rows of the views, of every split.
        inn: What is trained for each seed, unfitted.
        common: Seed whose space is the common one, or ``"consensus"``.
        held_out: What tells the test rows apart.
        part: Where the results are kept.

    Returns:
        Scores of both directions of each pair, the training record, and the error round a
        cycle of three seeds, if there are so many.
    """
    pivots = {seed: (seed, layer) for seed, layer in views}
    hub = Hub(inn, pivot=pivots.get(common))
    train, validation, test = (
        {view: on_gpu(passes[split].rows[view][own_rows(split)]) for view in views}
        for split in SPLITS
    )
    hub.fit(train, validation=validation, checkpoint=part.work("fit"))
    del train, validation  # of all seeds: much, on a GPU
    if hub.interrupted_:
        raise KeyboardInterrupt  # what is finished is kept; a hub cut short is not
    name = f"hub {network_name(inn).removesuffix(')')}, {common})"
    pairs = list(combinations(views, 2))

    def scored(number: int) -> Results:
        a, b = pairs[number]
        rows = test[a], test[b]
        return {"scores": bijection_records(name, hub.aligner(a, b), (a, b), rows, held_out)}

    parts = Parts(part.work("scores"), part.settings).divided(len(pairs), scored)
    scores = [record for found in parts for record in found["scores"]]
    worst = max(record.get("round_trip", 0.0) for record in scores)
    whole = ("all seeds", views[0][1]), (common, views[0][1])
    training = [training_record(name, *whole, hub, worst) | {"maps": len(hub.maps_)}]
    cycles = _cycle(name, hub, views, test, held_out)
    return part.finish({"scores": scores, "training": training, "cycles": cycles})


def _cycle(
    name: str,
    hub: Hub,
    views: Sequence[View],
    test: Mapping[View, Tensor],
    held_out: HeldOut,
) -> list[Record]:
    if len(views) < 3:
        return []
    a, b, c = views[:3]
    maps = [hub.aligner(*pair).transform for pair in ((a, b), (b, c), (c, a))]
    return [cycle_scored(name, (a, b, c), maps, test[a], held_out)]
