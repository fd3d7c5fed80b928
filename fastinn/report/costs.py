"""What maps cost: how many there are, how long they train, what a hub loses, how cycles close."""

from collections.abc import Iterator
from typing import Any

from fastinn.report.tables import Record, Results
from fastinn.study.records import is_of


def cost_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Yield, for each trained bijection and pair of layers, its cost.

    Yields:
        ``method``, ``layers``, ``maps``, ``seconds``, and as far as results hold them ``cycle``
        (record of the error round three seeds) and ``lost`` (record of the R2 that a hub has
        less than single maps).
    """
    for record in results.get("costs", []):
        layers = record["layer"], record["target_layer"]
        yield {
            "method": record["method"],
            "layers": f"{layers[0]}" if layers[0] == layers[1] else f"{layers[0]} to {layers[1]}",
            "maps": record["maps"],
            "seconds": record["seconds"],
            "cycle": _cycle(results, record["method"], layers),
            "lost": _lost(results, record["method"], layers),
        }


def _cycle(results: Results, method: str, layers: tuple[Any, Any]) -> Record | None:
    wanted = {"method": method, "layer": layers[0]}
    found = (r for r in results.get("cycles", []) if wanted.items() <= r.items())
    return next(found, None) if layers[0] == layers[1] else None


def _lost(results: Results, method: str, layers: tuple[Any, Any]) -> Record | None:
    """Turn the difference of a hub and single maps round."""
    if not is_of(method, "hub INN"):
        return None
    wanted = {"method": method, "direction": "both"}
    wanted |= dict(zip(("source_layer", "target_layer"), layers, strict=True))
    for record in results.get("differences", []):
        if wanted.items() <= record.items():
            ends = {"low": -record["high"], "high": -record["low"]} if "low" in record else {}
            return {"mean": -record["mean"], **ends}
    return None
