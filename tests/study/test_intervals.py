"""Intervals over documents and seeds of the results of a comparison."""

import itertools

import numpy as np
import pytest
import torch

from fastinn.align import INN
from fastinn.study.held_out import HeldOut
from fastinn.study.intervals import Errors
from fastinn.study.resamples import Resamples, r2_interval
from fastinn.study.scores import bijection_records
from fastinn.study.strata import Stratum

SEEDS = ["s0", "s1", "s2", "s3", "s4"]
N_DOCUMENTS, ROWS_EACH, WIDTH = 40, 6, 3


def held_out(n_documents=N_DOCUMENTS):
    return HeldOut(np.repeat(np.arange(n_documents), ROWS_EACH), n_documents)


def scored(method, source, target, noise, *, seed=0, layer=3):
    """A score record of predictions that are off by ``noise``, more in some documents."""
    rng = np.random.default_rng([seed, SEEDS.index(source), SEEDS.index(target)])
    true = rng.normal(size=(N_DOCUMENTS * ROWS_EACH, WIDTH))
    spread = np.repeat(rng.uniform(0.2, 1.8, size=N_DOCUMENTS), ROWS_EACH)[:, None]
    predicted = true + noise * spread * rng.normal(size=true.shape)
    sums = held_out().sums(true, predicted)
    error, deviation = (sum(column) for column in sums["documents"])
    place = {"source": source, "target": target, "source_layer": layer, "target_layer": layer}
    score = {"r2": 1 - error / deviation, "sums": sums}
    return {"method": method, **place, "fitted": "direct", **score}


def summarised(records, seeds=SEEDS):
    errors = Errors(seeds, held_out())
    results = errors.taken({"scores": records})
    return results | errors.summaries(results)


def found(records, **wanted):
    (record,) = [r for r in records if wanted.items() <= r.items()]
    return record


def test_sums_give_the_r2_and_rows_of_a_document_stay_together():
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 240, WIDTH))
    error, deviation = held_out().sums(true, predicted)["documents"]
    assert sum(deviation) == pytest.approx(((true - true.mean(axis=0)) ** 2).sum())
    np.testing.assert_allclose(
        error, ((true - predicted) ** 2).sum(axis=1).reshape(40, -1).sum(axis=1)
    )


def test_the_interval_of_a_pair_is_that_of_its_documents():
    """The delta method's standard error of a ratio, 1.96 on each side."""
    record = scored("INN", "s0", "s1", 0.5)
    error, deviation = map(np.array, record["sums"]["documents"])
    ratio = error.sum() / deviation.sum()
    margin = 1.96 * np.sqrt(((error - ratio * deviation) ** 2).sum()) / deviation.sum()
    (kept,) = summarised([record])["scores"]
    assert "sums" not in kept
    assert kept["r2_high"] - kept["r2_low"] == pytest.approx(2 * margin, rel=0.1)
    assert kept["r2_low"] < kept["r2"] < kept["r2_high"]


def test_two_seeds_vary_with_the_documents_only():
    results = summarised([scored("INN", "s0", "s1", 0.5)], seeds=["s0", "s1"])
    mean = found(results["means"], direction="both")
    (pair,) = results["scores"]
    assert mean["over"] == "documents"
    assert (mean["low"], mean["high"]) == pytest.approx((pair["r2_low"], pair["r2_high"]))
    assert (mean["n_pairs"], mean["n_seeds"], mean["n_documents"]) == (1, 2, N_DOCUMENTS)


def test_seeds_that_differ_widen_the_interval():
    """With documents fixed, the mean over pairs still varies with which seeds there are."""
    noise = {seed: 0.1 + 0.15 * place for place, seed in enumerate(SEEDS)}
    records = [scored("INN", a, b, noise[a]) for a, b in itertools.permutations(SEEDS, 2)]
    alone = [{k: v for k, v in record.items() if k != "sums"} for record in records]
    equal = [scored("INN", a, b, 0.4) for a, b in itertools.permutations(SEEDS, 2)]
    both, seeds, documents = (
        found(summarised(r)["means"], direction="both") for r in (records, alone, equal)
    )
    assert (both["over"], seeds["over"]) == ("documents and seeds", "seeds")
    width = {k: r["high"] - r["low"] for k, r in zip("bsd", (both, seeds, documents), strict=True)}
    assert width["b"] >= 0.98 * width["s"] > 2 * width["d"]
    assert both["mean"] == pytest.approx(np.mean([r["r2"] for r in records]))


def test_a_seed_is_no_pair_with_itself():
    """A pair weighs as often as its seeds are drawn, one times the other."""
    resamples = Resamples(1, n=4000)
    sides = tuple(itertools.combinations("abcd", 2))
    values = np.eye(6)
    weights = np.stack([resamples.mean(row[:, None], sides) for row in values])
    assert weights.shape[1] < 4000  # resamples of one seed alone are left out
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    # Of four draws: all seeds once, one twice beside two others, or no more than two of them.
    assert {tuple(np.sort(w).round(3)) for w in weights.T} == {
        (0.167, 0.167, 0.167, 0.167, 0.167, 0.167),
        (0.0, 0.0, 0.0, 0.2, 0.4, 0.4),
        (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    }


def test_intervals_over_four_seeds_cover_the_truth_nearly_as_often_as_they_say():
    """Pairs share seeds, whose means percentiles alone would cover in three cases of four."""
    sides = tuple(itertools.combinations(SEEDS[:4], 2))
    place = {"measure": "CKA", "layer_a": 0, "layer_b": 0}
    errors, covered, plain = Errors(SEEDS, held_out(1)), 0, 0
    for effects in np.random.default_rng(5).normal(size=(500, 4)):
        of_seed = dict(zip(SEEDS, effects, strict=False))
        values = [{"a": a, "b": b, "value": of_seed[a] + of_seed[b], **place} for a, b in sides]
        (mean,) = errors.summaries({"similarities": values})["similarity_means"]
        covered += mean["low"] <= 0 <= mean["high"]
        resampled = Resamples(1).mean(np.array([[v["value"]] for v in values]), sides)
        plain += np.quantile(resampled, 0.025) <= 0 <= np.quantile(resampled, 0.975)
    assert 0.9 < covered / 500 < 0.98
    assert 0.7 < plain / 500 < 0.8


def test_three_seeds_vary_with_the_documents_only():
    records = [scored("INN", a, b, 0.5) for a, b in itertools.permutations(SEEDS[:3], 2)]
    mean = found(summarised(records)["means"], direction="both")
    assert (mean["over"], mean["n_seeds"]) == ("documents", 3)


def test_directions_are_told_apart():
    records = [
        scored("INN", a, b, 0.2 if a < b else 0.6) for a, b in itertools.permutations(SEEDS, 2)
    ]
    means = summarised(records)["means"]
    forward, backward, both = (found(means, direction=d) for d in ("forward", "backward", "both"))
    assert (forward["n_pairs"], backward["n_pairs"], both["n_pairs"]) == (10, 10, 20)
    assert both["mean"] == pytest.approx((forward["mean"] + backward["mean"]) / 2)
    assert forward["low"] > backward["high"]


def test_strata_leave_out_the_inverse_of_a_map_that_was_trained_one_way():
    pairs = list(itertools.combinations(SEEDS, 2))
    there = [scored("INN (forward)", a, b, 0.2) for a, b in pairs]
    back = [scored("INN (forward)", b, a, 5.0) | {"fitted": "inverse"} for a, b in pairs]
    for record in (*there, *back):
        record["sums"]["frequency"] = {"all": record["sums"]["documents"]}
    groups = held_out().groups
    strata = {"frequency": Stratum(("all",), np.zeros_like(groups))}
    errors = Errors(SEEDS, HeldOut(groups, N_DOCUMENTS, strata))
    results = errors.taken({"scores": [*there, *back]})
    (stratum,) = errors.summaries(results)["strata"]
    assert stratum["n_pairs"] == len(pairs)
    assert stratum["mean"] > 0.8


def test_differences_are_paired():
    """Two methods that err on the same documents differ more surely than either is known."""
    pairs = list(itertools.permutations(SEEDS, 2))
    records = [
        scored(method, a, b, noise)
        for method, noise in (("INN (two-way)", 0.50), ("MLP (free)", 0.48))
        for a, b in pairs
    ]
    results = summarised(records)
    inn = found(results["means"], method="INN (two-way)", direction="both")
    gap = found(results["differences"], method="INN (two-way)", direction="both")
    assert gap["minus"] == "MLP (free)"
    assert gap["high"] < 0
    assert gap["high"] - gap["low"] < 0.5 * (inn["high"] - inn["low"])
    assert {r["direction"] for r in results["differences"]} == {"forward", "backward", "both"}


def test_a_difference_takes_the_pairs_that_both_have():
    records = [scored("INN", a, b, 0.5) for a, b in itertools.permutations(SEEDS, 2)]
    records.append(scored("MLP", "s0", "s1", 0.4))
    gap = found(summarised(records)["differences"], direction="both")
    assert gap["n_pairs"] == 1


def test_a_score_that_is_not_finite_is_left_out():
    records = [scored("INN", a, b, 0.5) for a, b in itertools.permutations(SEEDS[:3], 2)]
    lost = {**records[0], "r2": float("nan")}
    means = summarised([lost, *records[1:]])["means"]
    assert found(means, direction="both")["n_pairs"] == 5
    assert np.isfinite(found(means, direction="both")["low"])


def test_an_inverse_that_overflows_has_no_score():
    """A bijection that was trained one way may send rows back beyond what float32 holds."""
    x = torch.randn(N_DOCUMENTS * ROWS_EACH, WIDTH)
    fitted = INN(max_steps=0, start="identity", progress=False).fit(x, x)
    fitted.network_.source.scale.mul_(1e38)
    there, back = bijection_records(
        "INN (forward)", fitted, (("s0", 1), ("s1", 1)), (x, 1e3 * x), held_out()
    )
    assert (back["r2"], back["fitted"], "sums" in back) == (None, "inverse", False)
    results = summarised([there, back])
    assert found(results["means"], direction="both")["n_pairs"] == 1


def test_many_documents_are_drawn_in_groups():
    numbers = np.repeat(np.arange(1000) * 7, 2)
    keys = np.stack([numbers, np.tile([0, 1], 1000), np.zeros(2000, int)], axis=1)
    passes = {name: _Keys(keys) for name in ("train", "test")}
    found = HeldOut.of(passes, "token", 10)
    assert (found.n_groups, found.n_documents) == (256, 1000)
    sizes = np.bincount(found.groups)
    assert sizes.max() - sizes.min() <= 2
    assert (np.diff(found.groups) >= 0).all()


class _Keys:
    """As much of a pass as the grouping of its rows looks at."""

    def __init__(self, keys):
        self.keys = torch.from_numpy(keys)


def test_a_difference_is_on_the_rows_that_both_were_scored_on():
    """Closed forms are scored on all rows by their moments, and networks on some."""
    pairs = list(itertools.permutations(SEEDS, 2))
    on_all = [scored("least squares", a, b, 0.5) | {"r2": 0.1} for a, b in pairs]
    records = [*on_all, *(scored("INN", a, b, 0.5) for a, b in pairs)]
    results = summarised(records)
    assert found(results["means"], method="least squares", direction="both")["mean"] < 0.2
    gap = found(results["differences"], direction="both")
    assert gap["mean"] == pytest.approx(0, abs=1e-12)
    assert gap["low"] <= 0 <= gap["high"]


def test_a_difference_leaves_out_pairs_of_which_one_has_no_rows():
    records = [scored("INN", a, b, 0.5) for a, b in itertools.permutations(SEEDS, 2)]
    others = [scored("MLP", a, b, 0.5) for a, b in itertools.permutations(SEEDS, 2)]
    del others[0]["sums"]
    gap = found(summarised([*records, *others])["differences"], direction="both")
    assert gap["n_pairs"] == len(records) - 1


def test_one_document_has_no_interval():
    whole = HeldOut(np.zeros(N_DOCUMENTS * ROWS_EACH, int), 1)
    errors = Errors(["s0", "s1"], whole)
    rng = np.random.default_rng(0)
    true, noise = rng.normal(size=(2, N_DOCUMENTS * ROWS_EACH, WIDTH))
    record = scored("INN", "s0", "s1", 0.5) | {"sums": whole.sums(true, true + noise)}
    cycle = {"method": "INN", "cycle_error": 0.1, "sums": whole.sums(true, true + noise)}
    results = errors.taken({"scores": [record], "cycles": [cycle]})
    assert not {"r2_low", "low", "sums"} & (results["scores"][0].keys() | results["cycles"][0])
    mean = found(errors.summaries(results)["means"], direction="both")
    assert "low" not in mean
    assert mean["over"] == ""
    assert r2_interval(true, true + noise, whole.groups).named("r2").keys() == {"r2"}


@pytest.mark.parametrize("dtype", [torch.int64, torch.bfloat16, torch.float32])
def test_rows_of_any_kind_have_an_interval(dtype):
    true = torch.arange(60).reshape(20, 3)
    documents = np.arange(20) // 2
    expected = r2_interval(true.double(), true.flip(1).double(), documents)
    assert r2_interval(true.to(dtype), true.flip(1).to(dtype), documents) == expected
