"""Which layers the headline of a comparison is of."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastinn.study.records import is_of

Results = Mapping[str, Any]
Record = Mapping[str, Any]
Cell = tuple[Any, Any]

_NETWORKS = ("INN", "BERT-INN", "hub INN", "MLP")


def is_network(method: str) -> bool:
    """Tell whether a method is trained step by step, which happens at chosen layers only."""
    return any(is_of(method, family) for family in _NETWORKS)


def last_layers(scores: Iterable[Record]) -> dict[str, int]:
    """Return the last layer scored of every model, in order of appearance."""
    layers: dict[str, int] = {}
    for record in scores:
        for side in ("source", "target"):
            name, layer = record[side], record[f"{side}_layer"]
            layers[name] = max(layer, layers.get(name, layer))
    return layers


def headline_layers(results: Results) -> dict[str, int]:
    """Return the layer of every model that the headline is of.

    That is the last one; where networks were trained at other layers only, the last of theirs.
    """
    scores = results.get("scores", [])
    last = last_layers(scores)
    trained = [record for record in scores if is_network(record["method"])]
    same = [r["source_layer"] for r in trained if r["source_layer"] == r["target_layer"]]
    if same and not any(is_at(record, last) for record in trained):
        return dict.fromkeys(last, max(same))
    return last


def headline_place(results: Results) -> str:
    """Name those layers."""
    layers = headline_layers(results)
    depths = {model["name"]: model["n_layers"] for model in results.get("models", [])}
    if all(layer == depths.get(name) for name, layer in layers.items()):
        return "the last layer"
    numbers = dict.fromkeys(layers.values())  # several of models of different depths
    return f"layer{'s' if len(numbers) > 1 else ''} {' and '.join(map(str, numbers))}"


def is_at(record: Record, layers: Mapping[str, int]) -> bool:
    """Tell whether a score is of these layers of its two models."""
    return all(record[f"{side}_layer"] == layers[record[side]] for side in ("source", "target"))


def cell_of(record: Record) -> Cell:
    """Return the pair of layers that a record is of."""
    return record["source_layer"], record["target_layer"]
