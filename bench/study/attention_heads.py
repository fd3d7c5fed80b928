"""Average what ``fastinn attention`` found head by head, at the same layer of both models.

Run: ``python bench/study/attention_heads.py RESULTS.json``. Prints a JSON record a layer.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

Record = Mapping[str, Any]

_METHOD = "ridge"


def main() -> None:
    heads = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["heads"]
    print(json.dumps(head_means(heads), indent=1))


def head_means(heads: Mapping[str, Iterable[Record]]) -> list[dict[str, Any]]:
    """Return mean held-out R2 of one head from one head, a record a layer.

    Args:
        heads: What the results call ``"heads"``.

    Returns:
        ``mean`` over all pairs of heads, that of the ``best of the source heads`` for each target
        head, which is picked on the test windows, that from the ``window length`` alone, and
        ``n``, the number of target heads over all directed pairs of models.
    """
    scores = [r for r in heads["scores"] if r["method"] == _METHOD]
    lengths = [r for r in heads["baseline"] if r["method"] == _METHOD]
    layers = sorted({r["target_layer"] for r in scores})
    return [_of_layer(layer, scores, lengths) for layer in layers]


def _of_layer(layer: int, scores: Iterable[Record], lengths: Iterable[Record]) -> dict[str, Any]:
    by_target: dict[tuple[Any, ...], list[float]] = {}
    for r in scores:
        if r["source_layer"] == r["target_layer"] == layer:
            place = r["source"], r["target"], r["target_head"]
            by_target.setdefault(place, []).append(r["r2"])
    return {
        "method": _METHOD,
        "source_layer": layer,
        "target_layer": layer,
        "mean": fmean(r2 for of_target in by_target.values() for r2 in of_target),
        "best of the source heads": fmean(map(max, by_target.values())),
        "window length": fmean(r["r2"] for r in lengths if r["target_layer"] == layer),
        "n": len(by_target),
    }


if __name__ == "__main__":
    main()
