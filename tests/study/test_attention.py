"""Attention of two tiny seeds, compared head by head and layer by layer."""

import json
import math

import pytest
import torch
from interrupted import untimed
from test_checkpoints import StopError
from tiny_seeds import make_texts
from tolerances import R2_HIGH

from fastinn import Corpus
from fastinn.align import INN, LinearMap, MLPMap, PublishedBertINN
from fastinn.embed import AttentionEncoder, stream
from fastinn.metrics import linear_cka
from fastinn.study import attention
from fastinn.study.attention import LENGTH, LayerAttention, WindowLength, compare_attention
from fastinn.study.layers import Comparison

HEADS = [(layer, head) for layer in (1, 2, 3) for head in (0, 1)]


@pytest.fixture(scope="module")
def encoders(seeds):
    return {f"seed-{i}": AttentionEncoder(path) for i, path in enumerate(seeds)}


@pytest.fixture(scope="module")
def corpus():
    texts = make_texts(150)
    return Corpus.from_texts([f"{text} {i % 7}" for i, text in enumerate([*texts, *texts[::-1]])])


@pytest.fixture(scope="module")
def results(encoders, corpus):
    return compare_attention(encoders, corpus, small())


def small(**changed):
    return Comparison(
        network_layers=[-1],
        inn=INN(max_steps=5, n_couplings=2, progress=False),
        mlp=MLPMap(max_steps=5, hidden=16, progress=False),
        **changed,
    )


def test_a_comparison_of_attention_goes_on(results, encoders, corpus, tmp_path, monkeypatch):
    """What was finished of layers and heads is taken over, heads told apart as before."""
    how = small(checkpoints=tmp_path)

    def stop(*args, **kwargs):
        raise StopError

    with monkeypatch.context() as patched:
        patched.setattr(attention, "_of_length", stop)
        with pytest.raises(StopError):
            compare_attention(encoders, corpus, how)
    monkeypatch.setattr(INN, "fit", stop)
    found = compare_attention(encoders, corpus, how)
    assert untimed(found) == untimed(results)


def rows(sources, corpus, split, view):
    return torch.cat([block.rows[view] for block in stream(sources, corpus.split(split))])


def test_every_head_meets_every_head_in_both_directions(results):
    found = [
        ((r["source_layer"], r["source_head"]), (r["target_layer"], r["target_head"]))
        for r in results["heads"]["scores"]
        if r["method"] == "least squares" and r["source"] == "seed-0"
    ]
    assert sorted(found) == [(a, b) for a in HEADS for b in HEADS]
    cka = [r for r in results["heads"]["similarities"] if r["measure"] == "linear CKA"]
    assert len(cka) == len(HEADS) ** 2
    assert all("null" in r for r in cka)


@pytest.mark.parametrize("cell", [((1, 0), (1, 0)), ((1, 1), (3, 0))], ids=str)
def test_scores_of_heads_are_those_of_the_test_rows(results, encoders, corpus, cell):
    views = ("seed-0", cell[0]), ("seed-1", cell[1])
    x, y = (rows(encoders, corpus, "train", view) for view in views)
    x_test, y_test = (rows(encoders, corpus, "test", view) for view in views)
    (record,) = [
        r
        for r in results["heads"]["scores"]
        if r["method"] == "least squares"
        and (r["source"], r["source_layer"], r["source_head"]) == ("seed-0", *cell[0])
        and (r["target_layer"], r["target_head"]) == cell[1]
    ]
    assert record["r2"] == pytest.approx(LinearMap().fit(x, y).score(x_test, y_test), abs=R2_HIGH)
    (same,) = [
        r
        for r in results["heads"]["similarities"]
        if r["measure"] == "linear CKA"
        and (r["layer_a"], r["head_a"], r["layer_b"], r["head_b"]) == (*cell[0], *cell[1])
    ]
    assert same["value"] == pytest.approx(linear_cka(x_test, y_test), abs=R2_HIGH)


def test_layers_are_their_heads_side_by_side(encoders, corpus):
    joined = LayerAttention(encoders["seed-0"])
    assert joined.layers == [1, 2, 3]
    sources = {"joined": joined}
    found = rows(sources, corpus, "test", ("joined", 2))
    apart = [rows(encoders, corpus, "test", ("seed-0", (2, head))) for head in (0, 1)]
    assert torch.equal(found, torch.cat(apart, dim=1))
    assert found.shape[1] == joined.n_features == 32


def test_layers_are_compared_as_hidden_states_are(results):
    cells = {
        (r["source_layer"], r["target_layer"])
        for r in results["scores"]
        if r["method"] == "ridge" and r["source"] == "seed-1"
    }
    assert cells == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)}
    assert {r["source_layer"] for r in results["scores"] if r["method"] == "INN (two-way)"} == {3}
    assert results["of"] == "attention"
    assert results["corpus"]["windows"]["train"] > results["corpus"]["documents"]["train"]


def test_rank_deficient_rows_give_finite_scores(results):
    """Rows sum to one, and few windows reach the last position."""
    for part in (results, results["heads"]):
        assert all(math.isfinite(r["r2"]) for r in part["scores"])
        assert all(math.isfinite(r["value"]) for r in part["similarities"])


def test_the_baseline_knows_the_length_and_nothing_else(results, encoders, corpus):
    source = WindowLength(encoders["seed-0"])
    found = rows({"length": source}, corpus, "test", ("length", (0, 0)))
    lengths = (found > 0).sum(dim=1)
    assert torch.allclose(found.sum(dim=1), torch.ones(len(found)))
    assert torch.allclose(found.max(dim=1).values, 1 / lengths)
    baseline = [r for r in results["heads"]["baseline"] if r["method"] == "least squares"]
    assert {(r["target"], r["target_layer"], r["target_head"]) for r in baseline} == {
        (seed, *head) for seed in ("seed-0", "seed-1") for head in HEADS
    }
    # Random heads attend almost evenly: most of their variance is the length's.
    assert min(r["r2"] for r in baseline) > 0.5


def test_layers_stand_beside_what_their_length_explains(results, encoders, corpus):
    cells = {
        (r["method"], r["target"], r["target_layer"]): r["r2"]
        for r in results["baseline"]
        if r["source"] == LENGTH
    }
    assert len(cells) == len(results["baseline"]) == 4 * 2 * 3
    length, layer = WindowLength(encoders["seed-0"]), LayerAttention(encoders["seed-1"])
    train, test = (
        [
            rows({"one": source}, corpus, split, ("one", view))
            for source, view in ((length, (0, 0)), (layer, 2))
        ]
        for split in ("train", "test")
    )
    expected = LinearMap().fit(*train).score(*test)
    assert cells["least squares", "seed-1", 2] == pytest.approx(expected, abs=R2_HIGH)
    (mean,) = [
        r
        for r in results["baseline_means"]
        if (r["method"], r["target_layer"]) == ("least squares", 2)
    ]
    both = [cells["least squares", seed, 2] for seed in ("seed-0", "seed-1")]
    assert mean["mean"] == pytest.approx(sum(both) / 2)
    assert (mean["n_seeds"], mean["over"]) == (2, "")


def test_results_are_json(results):
    assert json.loads(json.dumps(results)) == results


def test_one_seed_is_refused(encoders, corpus):
    with pytest.raises(ValueError, match="1 seeds to compare, expected two or more"):
        compare_attention({"seed-0": encoders["seed-0"]}, corpus, Comparison(network_layers=()))


def test_hubs_and_bert_inn_are_of_layers_alone(encoders, corpus):
    how = small(hub="consensus", published=PublishedBertINN(max_steps=2, progress=False))
    found = compare_attention(encoders, corpus, how)
    methods = {record["method"] for record in found["scores"]}
    assert methods >= {"hub INN (two-way, consensus)", "BERT-INN (forward)"}
    assert "INN (two-way)" not in {record["method"] for record in found["heads"]["scores"]}
