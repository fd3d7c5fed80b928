"""What the heads of two models tell of each other, averaged."""

import itertools

import pytest
from study.attention_heads import head_means


def record(source, target, r2, layer=1, heads=(0, 0), method="ridge"):
    place = {"source": source, "target": target, "source_layer": layer, "target_layer": layer}
    return {"method": method, **place, "source_head": heads[0], "target_head": heads[1], "r2": r2}


def test_heads_of_the_same_layer_are_averaged_over_pairs():
    r2 = {(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.5, (1, 1): 0.4}
    scores = [
        record(*pair, r2[heads], heads=heads)
        for pair in (("a", "b"), ("b", "a"))
        for heads in itertools.product(range(2), repeat=2)
    ]
    other_layer = record("a", "b", 0.9) | {"source_layer": 0}
    other_method = record("a", "b", 0.9, method="Procrustes")
    lengths = [
        record("window length", model, level, layer=layer)
        for model, level in (("a", 0.3), ("b", 0.1))
        for layer in (1, 2)
    ]
    heads = {"scores": [*scores, other_layer, other_method], "baseline": lengths}
    (found,) = head_means(heads)
    assert found["mean"] == pytest.approx(0.3)
    assert found["best of the source heads"] == pytest.approx(0.45)
    assert found["window length"] == pytest.approx(0.2)
    assert (found["target_layer"], found["n"]) == (1, 4)
