"""Entries of the results of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from fastinn.align import INN, Hub, PublishedBertINN
from fastinn.study.passes import Record, View

Results: TypeAlias = dict[str, Any]

_SCORES = ("r2", "relative_mse", "mse", "l2", "cosine", "retrieval", "round_trip", "sums")

_LAYERS = ("layer", "source_layer", "target_layer", "layer_a", "layer_b")


def score_record(
    method: str, source: View, target: View, scores: Mapping[str, Any], *, inverse: bool = False
) -> Record:
    """Return one method's held-out scores from a view into another.

    Args:
        method: What the results call it.
        source: View that is mapped.
        target: View that is predicted.
        scores: What :mod:`fastinn.metrics` found, as far as it was asked for.
        inverse: Whether the map was fitted the other way and inverted.
    """
    return {
        "method": method,
        "source": source[0],
        "target": target[0],
        "source_layer": source[1],
        "target_layer": target[1],
        "fitted": "inverse" if inverse else "direct",
        **{name: scores[name] for name in _SCORES if name in scores},
    }


def training_record(method: str, a: View, b: View, fitted: INN | Hub, round_trip: float) -> Record:
    """Return how a network between two views was trained, and how long it took."""
    history = {name: values for name, values in fitted.history_.items() if name != "seconds"}
    return {
        "method": method,
        "a": a[0],
        "b": b[0],
        "layer": a[1],
        "target_layer": b[1],
        **history,
        "best_step": fitted.best_step_,
        "round_trip": round_trip,
        "maps": 1,
        "fit_seconds": fitted.history_["seconds"][-1],
    }


def cycle_record(method: str, views: Sequence[View], error: float) -> Record:
    """Return how far rows move round three views; see :func:`fastinn.metrics.cycle_error`."""
    seeds = [seed for seed, _ in views]
    return {"method": method, "seeds": seeds, "layer": views[0][1], "cycle_error": error}


def network_name(network: INN) -> str:
    """Return what the results call a bijection that is trained."""
    kind = "BERT-INN" if isinstance(network, PublishedBertINN) else "INN"
    return f"{kind} ({network.objective})"


def costs(training: list[Record]) -> list[Record]:
    """Sum up, for each method and pair of layers, how many maps it took and how long they did."""
    found: dict[tuple[str, int, int], Record] = {}
    for record in training:
        place = {name: record[name] for name in ("method", "layer", "target_layer")}
        entry = found.setdefault(tuple(place.values()), place | {"maps": 0, "seconds": 0.0})
        entry["maps"] += record["maps"]
        entry["seconds"] += record["fit_seconds"]
    return list(found.values())


def restored(value: Any) -> Any:
    """Undo what JSON does to records: a layer that is a head of one is a tuple again."""
    if isinstance(value, list):
        return [restored(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        name: tuple(entry) if name in _LAYERS and isinstance(entry, list) else restored(entry)
        for name, entry in value.items()
    }


def is_of(method: str, family: str) -> bool:
    """Tell whether ``method`` is ``family`` or a variant of it, as "INN (two-way)" of "INN"."""
    return method == family or method.startswith(f"{family} ")


def is_one_way(method: str) -> bool:
    """Tell whether a bijection was trained in one direction only, so that its inverse is no map."""
    return method.endswith("(forward)")
