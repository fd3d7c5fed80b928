import json
from collections import Counter
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from joblib import Parallel

from fastinn import Encoder, stream
from fastinn.align import CCA, INN, LinearMap, MLPMap, Procrustes, PublishedBertINN
from fastinn.metrics import row_scores
from fastinn.moments import _storage
from fastinn.study import networks
from fastinn.study.layers import Comparison, compare

ROW_SCORES = {"l2", "cosine", "retrieval"}
ONE_WAY = {"least squares", "ridge", "MLP (free)"}
BIJECTIONS = {"Procrustes", "CCA map", "INN (two-way)"}


def rows(encoders, corpus, split):
    blocks = list(stream(encoders, corpus.split(split)))
    return {view: torch.cat([b.rows[view] for b in blocks]) for view in blocks[0].rows}


def record(results, **wanted):
    found = [r for r in results["scores"] if wanted.items() <= r.items()]
    assert len(found) == 1
    return found[0]


def test_every_cell_is_scored_in_both_directions(results):
    cells = Counter((r["method"], r["source"], r["target"]) for r in results["scores"])
    for method in ("Procrustes", "CCA map", "least squares", "ridge"):
        assert cells[method, "seed-0", "seed-1"] == cells[method, "seed-1", "seed-0"] == 16
    for method in ("INN (two-way)", "MLP (free)"):
        assert cells[method, "seed-0", "seed-1"] == cells[method, "seed-1", "seed-0"] == 1


def test_bijections_are_scored_by_their_inverse_and_others_by_a_second_map(results):
    backward = [r for r in results["scores"] if r["source"] == "seed-1"]
    assert {r["method"] for r in backward if r["fitted"] == "inverse"} == BIJECTIONS
    assert {r["method"] for r in backward if r["fitted"] == "direct"} == ONE_WAY


@pytest.mark.parametrize("cell", [(0, 0), (1, 3), (3, 1)], ids=str)
def test_scores_are_those_of_the_test_rows(results, encoders, corpus, cell):
    """The cell (i, j) is trained for itself: neither (i, i) nor (j, i) is reported in its place."""
    train, test = (rows(encoders, corpus, split) for split in ("train", "test"))
    a, b = ("seed-0", cell[0]), ("seed-1", cell[1])
    fitted = LinearMap().fit(train[a], train[b])
    found = record(
        results,
        method="least squares",
        source="seed-0",
        target="seed-1",
        source_layer=cell[0],
        target_layer=cell[1],
    )
    assert found["r2"] == pytest.approx(fitted.score(test[a], test[b]), abs=1e-4)


@pytest.mark.parametrize("inverse", [False, True], ids=["map", "inverse"])
@pytest.mark.parametrize("method", ["CCA map", "Procrustes"])
def test_bijections_are_scored_on_rows(results, encoders, corpus, method, inverse):
    train, test = (rows(encoders, corpus, split) for split in ("train", "test"))
    a, b = ("seed-0", 3), ("seed-1", 3)
    fitted = {"CCA map": CCA(), "Procrustes": Procrustes()}[method].fit(train[a], train[b])
    source, target = (b, a) if inverse else (a, b)
    predicted = (fitted.inverse_transform if inverse else fitted.transform)(test[source])
    expected = row_scores(test[target], predicted)
    places = dict(zip(("source", "target"), (source[0], target[0]), strict=True))
    found = record(results, method=method, source_layer=3, target_layer=3, **places)
    for name in ("l2", "cosine", "r2"):
        assert found[name] == pytest.approx(expected[name], abs=1e-3)
    assert ("round_trip" in found) is not inverse


def test_row_scores_are_there_where_rows_are_held(results):
    for found in results["scores"]:
        held = found["source_layer"] == found["target_layer"] == 3
        assert (found.keys() >= ROW_SCORES) is held
        assert ("round_trip" in found) is (
            held and found["fitted"] == "direct" and found["method"] in BIJECTIONS
        )


def test_ridge_on_rows_is_the_one_that_was_chosen(results, encoders, corpus):
    train, validation, test = (
        rows(encoders, corpus, split) for split in ("train", "validation", "test")
    )
    a, b = ("seed-1", 3), ("seed-0", 3)
    ridge = LinearMap(ridge="validation")
    ridge.fit(train[a], train[b], validation=(validation[a], validation[b]))
    found = record(results, method="ridge", source="seed-1", source_layer=3, target_layer=3)
    expected = row_scores(test[b], ridge.transform(test[a]))
    assert found["l2"] == pytest.approx(expected["l2"], rel=1e-3)


def test_spectrum_is_beside_its_null(results, encoders, corpus):
    train = rows(encoders, corpus, "train")
    expected = CCA().fit(train["seed-0", 3], train["seed-1", 3]).correlations_
    found = torch.tensor(results["spectra"][0]["correlations"], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    (band,) = results["null_bands"]
    assert band["layer"] == 3
    assert found.mean() > max(band["high"])


def test_every_similarity_has_a_null(results):
    for found in results["similarities"]:
        if found["measure"] == "mean CCA" and found["layer_a"] == found["layer_b"]:
            assert found["value"] > found["null"] + 0.1
        assert abs(found["null"]) < 0.2 or found["measure"] == "linear CKA"


def test_splits_share_no_document(results):
    assert sum(results["corpus"]["documents"].values()) == 120
    assert all(n > 0 for n in results["corpus"]["documents"].values())


def test_results_are_json_and_say_what_was_run(results):
    assert json.loads(json.dumps(results)) == results
    assert results["models"][0]["weights_hash"] != results["models"][1]["weights_hash"]
    assert results["training"][0]["round_trip"] < 1e-3


def test_networks_at_a_cell_are_trained_for_each_directed_pair(encoders, corpus, quick):
    how = replace(quick, cells="same-layer", network_layers=[-1, (1, -1)])
    found = compare(encoders, corpus, how)
    cells = Counter(
        (r["source"], r["source_layer"], r["target"], r["target_layer"], r["fitted"])
        for r in found["scores"]
        if r["method"] == "INN (two-way)"
    )
    one, other = "seed-0", "seed-1"
    assert cells == Counter(
        [
            *[(one, 3, other, 3, "direct"), (other, 3, one, 3, "inverse")],
            *[(one, 1, other, 3, "direct"), (other, 3, one, 1, "inverse")],
            *[(other, 1, one, 3, "direct"), (one, 3, other, 1, "inverse")],
        ]
    )
    assert [s["layer"] for s in found["spectra"]] == [3]
    assert {(t["layer"], t["target_layer"]) for t in found["training"]} == {(3, 3), (1, 3)}
    free = [r for r in found["scores"] if r["method"] == "MLP (free)"]
    assert Counter((r["source_layer"], r["target_layer"]) for r in free) == {
        (3, 3): 2,
        (1, 3): 2,
        (3, 1): 2,
    }


@pytest.fixture(scope="module", params=["consensus", "seed-1"])
def with_hub(request, three_seeds, corpus, quick):
    how = replace(
        quick, cells="same-layer", hub=request.param, published=PublishedBertINN(max_steps=5)
    )
    return request.param, compare(three_seeds, corpus, how)


def test_a_hub_scores_every_directed_pair(with_hub):
    common, found = with_hub
    scores = [r for r in found["scores"] if r["method"] == f"hub INN (two-way, {common})"]
    assert Counter((r["source"], r["target"]) for r in scores) == Counter(
        permutations(["seed-0", "seed-1", "seed-2"], 2)
    )
    assert {(r["source_layer"], r["target_layer"]) for r in scores} == {(3, 3)}
    assert all(r.keys() >= ROW_SCORES for r in scores)
    assert all(r["round_trip"] < 1e-4 for r in scores if r["fitted"] == "direct")


def test_only_the_hub_closes_a_cycle(with_hub):
    common, found = with_hub
    errors = {entry["method"]: entry["cycle_error"] for entry in found["cycles"]}
    assert errors[f"hub INN (two-way, {common})"] < 1e-4
    assert errors["INN (two-way)"] > 1e-2
    assert {tuple(entry["seeds"]) for entry in found["cycles"]} == {("seed-0", "seed-1", "seed-2")}


def test_the_cost_of_a_hub_is_counted(with_hub):
    common, found = with_hub
    maps = {entry["method"]: entry["maps"] for entry in found["costs"]}
    hub = 3 if common == "consensus" else 2
    assert maps == {
        "INN (two-way)": 3,
        "BERT-INN (forward)": 3,
        f"hub INN (two-way, {common})": hub,
    }
    assert all(entry["seconds"] > 0 for entry in found["costs"])


def test_an_unknown_hub_is_refused(encoders, corpus):
    with pytest.raises(ValueError, match="hub is 'seed-9', expected 'consensus' or one of"):
        compare(encoders, corpus, Comparison(hub="seed-9"))


def test_the_published_protocol():
    how = Comparison(inn=INN(max_steps=7), mlp=MLPMap(max_steps=3), n_jobs=2).as_published()
    assert (how.inn.objective, how.inn.max_steps) == ("forward", 7)
    assert how.published.objective == "forward"
    assert (how.max_rows, how.mlp.max_steps, how.n_jobs) == (1600, 3, 2)


def test_same_layer_cells_only(encoders, corpus):
    found = compare(encoders, corpus, Comparison(cells="same-layer", network_layers=()))
    assert {r["source_layer"] - r["target_layer"] for r in found["scores"]} == {0}
    assert "training" not in found


def test_pairs_of_networks_are_drawn_to_their_end(encoders, corpus, quick, monkeypatch):
    """Joblib warns of what it takes for abandoned, and kills the processes that made it."""
    drawn = []

    def parallel(**options):
        def call(tasks):
            yield from Parallel(**options)(tasks)
            drawn.append("to its end")

        return call

    monkeypatch.setattr(networks, "Parallel", parallel)
    compare(encoders, corpus, quick)
    assert drawn == ["to its end"]


def test_ctrl_c_keeps_what_is_finished(encoders, corpus, quick, monkeypatch):
    """A network cut short is not reported; the linear family before it is."""

    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(INN, "_loss", interrupted)
    kept = {}
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        compare(encoders, corpus, quick, save=kept.update)
    assert {r["method"] for r in kept["scores"]} == {
        "Procrustes",
        "CCA map",
        "least squares",
        "ridge",
    }


def test_seeds_of_other_widths_are_refused_before_anything_is_read(encoders, corpus, monkeypatch):
    class Wide:
        layers, n_layers, n_features = encoders["seed-0"].layers, 3, 24

    monkeypatch.setattr("fastinn.study.layers.stream", None)
    with pytest.raises(
        ValueError, match=r"seed-0 has 16 features and wide has 24: .*fastinn align"
    ):
        compare({"seed-0": encoders["seed-0"], "wide": Wide()}, corpus, Comparison())


def test_a_layer_that_is_named_twice_is_one_hub(encoders, corpus, quick):
    how = replace(quick, cells="same-layer", network_layers=[3, -1], hub="consensus")
    trained = [r["method"] for r in compare(encoders, corpus, how)["training"]]
    assert Counter(trained)["hub INN (two-way, consensus)"] == 1


def test_every_layer_has_a_null_band_of_its_own(encoders, corpus, quick):
    how = replace(quick, cells="same-layer", network_layers=[1, 3])
    bands = {band["layer"]: band for band in compare(encoders, corpus, how)["null_bands"]}
    assert bands.keys() == {1, 3}
    assert bands[1]["high"] != bands[3]["high"]


def test_pwcca_does_not_depend_on_the_order_of_the_seeds(encoders, corpus, quick):
    how = replace(quick, cells="all", network_layers=[])
    turned = dict(reversed(encoders.items()))
    there, back = (
        {
            frozenset([(r["a"], r["layer_a"]), (r["b"], r["layer_b"])]): (r["value"], r["null"])
            for r in compare(seeds, corpus, how)["similarities"]
            if r["measure"] == "PWCCA"
        }
        for seeds in (encoders, turned)
    )
    assert len(there) == 16
    for pair, (value, null) in there.items():
        assert value == pytest.approx(back[pair][0], abs=1e-6)
        assert null == pytest.approx(back[pair][1], abs=0.05)  # moved the other way


def test_one_seed_is_refused(encoders, corpus):
    with pytest.raises(ValueError, match="1 seeds to compare, expected two or more"):
        compare({"seed-0": encoders["seed-0"]}, corpus, Comparison())


def test_layer_that_is_not_read_is_refused(seeds, corpus):
    encoders = {str(i): Encoder(folder, layers=[1]) for i, folder in enumerate(seeds)}
    with pytest.raises(ValueError, match=r"layer 3 of 0, whose layers \[1\] are read"):
        compare(encoders, corpus, Comparison(network_layers=[-1]))


def test_moments_that_do_not_fit_are_refused_first(encoders, corpus, monkeypatch):
    monkeypatch.setattr(_storage, "free_bytes", lambda: 100_000)
    with pytest.raises(ValueError, match=r"the moments need .* this machine has"):
        compare(encoders, corpus, Comparison())


def test_moments_on_disk_give_the_same_scores(encoders, corpus, tmp_path):
    how = Comparison(cells="same-layer", network_layers=())
    kept = compare(encoders, corpus, replace(how, storage=tmp_path))
    assert kept["scores"] == compare(encoders, corpus, how)["scores"]
    assert not list(tmp_path.iterdir())


def test_rows_that_meet_their_own_document_are_counted(results):
    assert set(results["corpus"]["null_same_document"]) == {"train", "test"}
    assert results["corpus"]["null_same_document"]["train"] == 0


def test_pairs_with_rows_have_intervals_by_documents(results):
    for found in results["scores"]:
        held = found["source_layer"] == found["target_layer"] == 3
        assert ("r2_low" in found) is held
        if held:
            assert found["r2_low"] < found["r2"] < found["r2_high"]


def test_every_cell_has_a_mean_over_pairs(results):
    means = [r for r in results["means"] if r["method"] == "ridge"]
    assert len(means) == 16 * 3
    last = [r for r in means if (r["source_layer"], r["target_layer"]) == (3, 3)]
    assert {r["over"] for r in last} == {"documents"}
    assert {r["over"] for r in means if r not in last} == {""}
    assert {(r["method"], r["minus"]) for r in results["differences"]} == {
        ("INN (two-way)", "MLP (free)"),
        ("INN (two-way)", "least squares"),
    }


def test_a_hub_is_set_against_single_pairs(with_hub):
    common, found = with_hub
    name = f"hub INN (two-way, {common})"
    gaps = {r["direction"]: r for r in found["differences"] if r["method"] == name}
    assert set(gaps) == {"forward", "backward", "both"}
    assert gaps["both"]["minus"] == "INN (two-way)"
    assert gaps["both"]["over"] == "documents"  # of three seeds
    assert all(entry["low"] <= entry["high"] for entry in found["cycles"])
