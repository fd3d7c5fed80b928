import json
import shutil
from dataclasses import replace

import pytest
import torch
from labelled_texts import make_labelled
from safetensors.torch import load_file
from store_cases import tree
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from fastinn import Encoder
from fastinn.embed import finetune as module
from fastinn.embed.classifier import Classifier
from fastinn.embed.finetune import FinetuneConfig, finetune
from fastinn.embed.labelled import Labelled

QUICK = FinetuneConfig(epochs=2, batch=16, lr=5e-3, precision="exact")
DATA = make_labelled(80)


def card(folder):
    return json.loads((folder / "card.json").read_text())


def test_the_classifier_learns_what_it_is_taught(classifiers):
    unseen = make_labelled(100, seed=9)
    for folder in classifiers:
        model = Classifier(folder)
        predicted = [model.classes[i] for i in model.predict(unseen.texts)]
        right = sum(a == b for a, b in zip(predicted, unseen.labels, strict=True))
        assert right > 90


def test_the_folder_is_a_plain_transformers_model(classifiers):
    model = AutoModelForSequenceClassification.from_pretrained(classifiers[0])
    assert model.config.label2id == {"bad": 0, "good": 1}
    assert AutoTokenizer.from_pretrained(classifiers[0]).is_fast
    assert Encoder(classifiers[0], layers=[-1]).n_layers == 3


def test_the_card_tells_the_scores_beside_the_commonest_class(tmp_path, seeds):
    found = card(finetune(seeds[0], DATA, tmp_path / "a", config=QUICK))
    assert found["train_rows"] + found["validation_rows"] == len(DATA)
    assert len(found["history"]) == QUICK.epochs
    best = found["history"][found["best_epoch"] - 1]
    assert best["accuracy"] == found["accuracy"] == max(e["accuracy"] for e in found["history"])
    assert 0.5 <= found["majority_accuracy"] < 1
    assert found["classes"] == ["bad", "good"]


def test_the_epoch_that_was_kept_is_the_one_that_was_scored(tmp_path, seeds):
    held_out = make_labelled(60, seed=3)
    folder = finetune(seeds[0], DATA, tmp_path / "a", config=QUICK, validation=held_out)
    model = Classifier(str(folder))
    predicted = [model.classes[i] for i in model.predict(held_out.texts)]
    right = sum(a == b for a, b in zip(predicted, held_out.labels, strict=True))
    assert right / len(held_out) == card(folder)["accuracy"]


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_training_follows_the_seed(tmp_path, seeds):
    """The pooler and the classifier that the checkpoint lacks included."""
    one, same = (
        weights(finetune(seeds[0], DATA, tmp_path / name, config=QUICK)) for name in ("a", "b")
    )
    other = weights(finetune(seeds[0], DATA, tmp_path / "c", config=replace(QUICK, seed=1)))
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name in ("bert.pooler.dense.weight", "classifier.weight"):
        assert not torch.equal(one[name], other[name])


def test_everything_is_trained(tmp_path, seeds):
    before = weights(finetune(seeds[0], DATA, tmp_path / "a", config=replace(QUICK, lr=0.0)))
    after = weights(finetune(seeds[0], DATA, tmp_path / "b", config=QUICK))
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert not still


def test_a_finished_folder_is_kept_and_another_run_refused(tmp_path, seeds):
    folder = finetune(seeds[0], DATA, tmp_path / "a", config=QUICK)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    finetune(seeds[0], DATA, folder, config=QUICK)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds another model: its epochs is 2, asked for is 3"):
        finetune(seeds[0], DATA, folder, config=replace(QUICK, epochs=3))
    relabelled = replace(DATA, labels=DATA.labels[::-1])
    with pytest.raises(ValueError, match="holds another model: its text is"):
        finetune(seeds[0], relabelled, folder, config=QUICK)


@pytest.fixture
def pretrained(tmp_path, seeds):
    """Folder of a model that nobody may replace."""
    return shutil.copytree(seeds[0], tmp_path / "pretrained")


@pytest.mark.parametrize("folder", ["pretrained", "link", "link/../pretrained"])
def test_a_model_is_not_replaced_by_its_own_classifier(tmp_path, pretrained, folder):
    (tmp_path / "link").symlink_to(pretrained)
    before = tree(pretrained)
    with pytest.raises(ValueError, match="is the folder of the model itself, whose weights"):
        finetune(str(pretrained), DATA, tmp_path / folder, config=QUICK)
    assert tree(pretrained) == before


def test_a_model_that_was_not_made_here_is_not_replaced(seeds, pretrained):
    before = tree(pretrained)
    with pytest.raises(ValueError, match="holds a model that no training here has made and that"):
        finetune(seeds[1], DATA, pretrained, config=QUICK)
    assert tree(pretrained) == before


class KilledError(Exception):
    """Ends a training."""


def kill(*_):
    raise KilledError


def kill_behind_the_config(network, folder):
    network.config.save_pretrained(folder)
    raise KilledError


KILLS = {
    "config alone": (PreTrainedModel, "save_pretrained", kill_behind_the_config),
    "no card": (module, "save_card", kill),
}


@pytest.mark.parametrize(("where", "name", "killed"), KILLS.values(), ids=KILLS)
def test_a_training_that_was_killed_is_run_again(tmp_path, seeds, monkeypatch, where, name, killed):
    folder = tmp_path / "a"
    with monkeypatch.context() as patched:
        patched.setattr(where, name, killed)
        with pytest.raises(KilledError):
            finetune(seeds[0], DATA, folder, config=QUICK)
    assert (folder / "config.json").exists()
    finetune(seeds[0], DATA, folder, config=QUICK)
    assert card(folder)["model"] == seeds[0]
    assert not list(folder.glob("*unfinished*"))


MISTAKES = {
    "one class": (Labelled("a.tsv", ["x", "y"] * 20, ["1"] * 40), None, "has the labels '1'"),
    "strange label": (DATA, Labelled("v.tsv", ["x"], ["ugly"]), "v.tsv has the label 'ugly'"),
    "nothing aside": (Labelled("a.tsv", ["x", "x"], ["1", "2"]), None, "was set aside"),
}


@pytest.mark.parametrize(("data", "held_out", "message"), MISTAKES.values(), ids=MISTAKES)
def test_data_that_cannot_be_trained_on_is_refused(tmp_path, seeds, data, held_out, message):
    with pytest.raises(ValueError, match=message):
        finetune(seeds[0], data, tmp_path / "a", config=QUICK, validation=held_out)
    assert not (tmp_path / "a").exists()


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no model folder ./gone"):
        finetune("./gone", DATA, tmp_path / "a", config=QUICK)
