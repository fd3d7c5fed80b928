"""Stitching on two tiny classifiers that a made labelled set teaches in seconds."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from labelled_texts import make_labelled
from safetensors.torch import load_file, save_file
from tiny_seeds import make_texts

from fastinn import Corpus, Encoder
from fastinn.align import INN, LinearMap, MLPMap, Procrustes
from fastinn.embed.classifier import Classifier
from fastinn.embed.labelled import Labelled
from fastinn.study.layers import Comparison, compare
from fastinn.study.stitching import NO_MAP, Stitching, default_methods, stitch

DATA = make_labelled(120, seed=11)
TEXT = make_labelled(300, seed=12).texts


@pytest.fixture(scope="module")
def pair(classifiers):
    return [Classifier(folder) for folder in classifiers]


@pytest.fixture(scope="module")
def how():
    return Stitching(
        methods=default_methods(
            inn=INN(max_steps=60, n_couplings=2, progress=False),
            mlp=MLPMap(max_steps=20, hidden=16, progress=False),
        )
    )


@pytest.fixture(scope="module")
def results(pair, how):
    return stitch(*pair, DATA, Corpus.from_texts(TEXT), how)["stitching"]


def score(results, method, layer, name="accuracy"):
    (found,) = [r[name] for r in results["scores"] if (r["method"], r["layer"]) == (method, layer)]
    return found["mean"] if isinstance(found, dict) else found


def test_every_method_is_scored_at_every_layer(results, how):
    cells = {(r["method"], r["layer"]) for r in results["scores"]}
    assert cells == {(method, layer) for method in how.methods for layer in range(4)}


def test_networks_say_which_step_was_kept(results):
    """Step 0 is the linear start: what such a network carries, a linear map does."""
    inn, mlp = (score(results, name, 1, "best_step") for name in ("INN (two-way)", "MLP (free)"))
    assert 0 <= inn <= score(results, "INN (two-way)", 1, "steps") == 60
    assert 0 <= mlp <= score(results, "MLP (free)", 1, "steps") == 20
    assert score(results, "MLP (free)", 1, "skipped_steps") == 0
    assert not any("best_step" in r for r in results["scores"] if r["method"] == "CCA map")


def test_models_of_other_widths_are_refused_before_they_are_read(pair, monkeypatch):
    monkeypatch.setattr(type(pair[1]), "n_features", property(lambda c: 8 if c is pair[1] else 9))
    monkeypatch.setattr(type(pair[1]), "predict", lambda *_: pytest.fail("texts were read"))
    message = r"9 features and .* 8, and no map, Procrustes, INN \(two-way\) cannot map"
    with pytest.raises(ValueError, match=message):
        stitch(*pair, DATA, Corpus.from_texts(TEXT), Stitching())


def test_a_model_stitched_to_itself_is_itself(pair):
    found = stitch(
        pair[0], pair[0], DATA, Corpus.from_texts(TEXT), Stitching(methods={NO_MAP: None})
    )["stitching"]
    for record in found["scores"]:
        assert record["agreement"]["mean"] == record["kept"]["mean"] == record["r2"] == 1


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("method", ["least squares", "INN (two-way)"])
def test_a_fitted_map_keeps_what_no_map_loses(results, method, layer):
    assert score(results, method, layer, "r2") > score(results, NO_MAP, layer, "r2")
    ends = [score(results, method, layer, f"r2_{end}") for end in ("low", "high")]
    assert ends[0] < score(results, method, layer, "r2") < ends[1]
    assert score(results, method, layer, "kept") > 0.9


@pytest.mark.parametrize("part", ["classifier", "bert.pooler.dense"])
def test_the_head_is_the_targets(classifiers, pair, tmp_path, part):
    """Turn the sign of the target's pooler or classifier: the answers turn with it.

    With the source's own in their place, nothing would change.
    """
    turned = _with_sign_turned(classifiers[1], part, tmp_path / "turned")
    how = Stitching(layers=[1, -1], methods={"least squares": LinearMap()})
    noisy = Labelled("noisy.tsv", DATA.texts, ["good"] * 10 + DATA.labels[10:])
    right, wrong = (
        stitch(pair[0], target, noisy, Corpus.from_texts(TEXT), how)["stitching"]
        for target in (pair[1], Classifier(str(turned)))
    )
    for layer in (1, 3):
        accuracy = score(right, "least squares", layer)
        assert accuracy > 0.8
        assert score(wrong, "least squares", layer) < 0.2
        assert score(wrong, "least squares", layer, "agreement") > 0.9


def _with_sign_turned(folder, part, turned):
    shutil.copytree(folder, turned)
    weights = load_file(turned / "model.safetensors")
    weights |= {name: -tensor for name, tensor in weights.items() if name.startswith(part)}
    save_file(weights, turned / "model.safetensors", metadata={"format": "pt"})
    return turned


def test_own_scores_and_the_commonest_class_stand_beside(results, pair):
    truth = [pair[1].classes.index(label) for label in DATA.labels]
    own = pair[1].predict(DATA.texts)
    right = float((own == torch.tensor(truth)).double().mean())
    assert results["own"]["target"]["accuracy"]["mean"] == pytest.approx(right)
    assert results["own"]["target"]["agreement"]["mean"] == 1
    assert results["baseline"]["accuracy"] == 0.5
    for record in [*results["own"].values(), *results["scores"]]:
        for name in ("accuracy", "agreement", "kept"):
            assert record[name]["low"] <= record[name]["mean"] <= record[name]["high"]


def test_maps_see_special_tokens_and_no_scored_text(pair, monkeypatch):
    """Rows are those of all tokens of the texts that are not scored on."""
    seen = {}

    def record(self, X, Y):
        seen["rows"] = len(X)
        return fit(self, X, Y)

    fit = Procrustes.fit
    monkeypatch.setattr(Procrustes, "fit", record)
    corpus = Corpus.from_texts([*TEXT, *DATA.texts])
    how = Stitching(layers=[2], methods={"Procrustes": Procrustes()})
    found = stitch(*pair, DATA, corpus, how)["stitching"]
    kept = [d.text for d in corpus.split("train") if d.text not in DATA.texts]
    n_tokens = sum(min(16, len(text.split()) + 2) for text in kept)
    assert seen["rows"] == found["corpus"]["rows"]["train"] == n_tokens


def test_rows_are_bounded(pair):
    how = Stitching(layers=[0], methods={NO_MAP: None}, max_rows=160)
    rows = stitch(*pair, DATA, Corpus.from_texts(TEXT), how)["stitching"]["corpus"]["rows"]
    assert rows["train"] <= 160
    assert rows["validation"] <= 20


def test_results_are_json_and_saved_after_each_layer(pair):
    saved = []
    how = Stitching(layers=[0, 2], methods={"least squares": LinearMap()})
    results = stitch(
        *pair, DATA, Corpus.from_texts(TEXT), how, save=lambda r: saved.append(json.dumps(r))
    )
    assert [len(json.loads(text)["stitching"]["scores"]) for text in saved] == [1, 2]
    assert json.loads(saved[-1]) == results
    assert [model["name"] for model in results["models"]] == ["tuned-0", "tuned-1"]


def test_stitching_is_deterministic(pair, how):
    names = ("ridge", "INN (two-way)")
    short = replace(how, layers=[2], methods={name: how.methods[name] for name in names})
    one, same = (stitch(*pair, DATA, Corpus.from_texts(TEXT), short) for _ in range(2))
    assert one["stitching"] == same["stitching"]


def test_ctrl_c_leaves_the_layer_out(pair, how, monkeypatch):
    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(INN, "_loss", interrupted)
    saved = []
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        stitch(*pair, DATA, Corpus.from_texts(TEXT), replace(how, layers=[1]), save=saved.append)
    assert not saved


def test_models_that_do_not_fit_are_refused(pair, classifiers, tmp_path, stranger):
    from fastinn.embed.finetune import FinetuneConfig, finetune

    config = FinetuneConfig(epochs=1, precision="exact")
    other = finetune(stranger, make_labelled(60), tmp_path / "other", config=config)
    with pytest.raises(ValueError, match="different tokenizers"):
        stitch(pair[0], Classifier(str(other)), DATA, Corpus.from_texts(TEXT), Stitching())


def test_labels_and_text_that_do_not_fit_are_refused(pair):
    opposite = {"bad": "good", "good": "bad"}
    wrong = Labelled("w.tsv", DATA.texts[:9], [opposite[label] for label in DATA.labels[:9]])
    with pytest.raises(ValueError, match=r"right on none of the 9 texts of w.tsv"):
        stitch(*pair, wrong, Corpus.from_texts(TEXT), Stitching())
    strange = Labelled("d.tsv", ["x"], ["ugly"])
    with pytest.raises(ValueError, match=r"d.tsv has the label 'ugly', but the classes of"):
        stitch(*pair, strange, Corpus.from_texts(TEXT), Stitching())
    with pytest.raises(ValueError, match="no text is left to fit maps on"):
        stitch(*pair, DATA, Corpus.from_texts(DATA.texts), Stitching())


def test_fine_tuned_models_are_compared_as_the_others_are(classifiers, seeds):
    """Before and after: the same layers, the same text, other states at all but the first."""
    corpus = Corpus.from_texts(make_texts(60))
    how = Comparison(cells="same-layer", network_layers=())
    before, after = (
        compare({f"m{i}": Encoder(path, layers="all") for i, path in enumerate(paths)}, corpus, how)
        for paths in (seeds, classifiers)
    )
    cells = [
        {(r["method"], r["source_layer"]): r["r2"] for r in found["scores"]}
        for found in (before, after)
    ]
    assert cells[0].keys() == cells[1].keys()
    assert cells[0]["least squares", 3] != cells[1]["least squares", 3]
