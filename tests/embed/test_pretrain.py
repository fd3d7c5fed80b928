import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import BertTokenizer

from fastinn import Corpus, Encoder
from fastinn.embed.pretrain import PretrainConfig, _mask, _new_tokenizer, _read, pretrain

TINY = PretrainConfig(
    hidden=32, layers=1, heads=2, vocabulary=60, length=16, steps=600, batch=8, lr=5e-3
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    texts = [
        f"{'one two three four ' * (i % 9 + 1)}{'red green blue ' * (i % 7)}" for i in range(90)
    ]
    folder = tmp_path_factory.mktemp("trained")
    corpus = Corpus.from_texts(texts)
    return corpus, folder, pretrain(corpus, folder, n_seeds=2, config=TINY)


def test_models_beat_the_unigram_baseline(trained):
    for path in trained[2]:
        card = json.loads((path / "card.json").read_text())
        assert card["loss"] < 0.85 * card["unigram_loss"]
        assert card["accuracy"] > card["unigram_accuracy"]


def test_model_card_states_the_scores(trained):
    for path in trained[2]:
        card = json.loads((path / "card.json").read_text())
        stated = (path / "README.md").read_text()
        for name in ("loss", "unigram_loss"):
            assert f"| {card[name]:.3f} |" in stated


def test_seeds_differ_and_share_a_tokenizer(trained):
    one, other = (Encoder(str(path), layers=[1]) for path in trained[2])
    assert one.tokens.fingerprint() == other.tokens.fingerprint()
    assert one.fingerprint() != other.fingerprint()


def test_weights_are_half_precision_and_safe(trained):
    for path in trained[2]:
        assert not list(path.glob("*.bin"))
        assert json.loads((path / "config.json").read_text())["dtype"] == "float16"


def test_finished_seeds_are_kept(trained):
    corpus, folder, paths = trained
    before = [(path / "model.safetensors").stat().st_mtime_ns for path in paths]
    pretrain(corpus, folder, n_seeds=2, config=TINY)
    assert [(path / "model.safetensors").stat().st_mtime_ns for path in paths] == before


def test_masks_follow_bert():
    class Tokenizer:
        all_special_ids = (0, 1, 2, 3, 4)
        mask_token_id = 4

        def __len__(self):
            return 1000

    ids = torch.full((400, 100), 77)
    ids[:, 0] = 2
    inputs, labels = _mask(ids, Tokenizer(), 0.15, torch.Generator().manual_seed(0))
    scored = labels != -100
    assert not scored[:, 0].any()
    assert float(scored[:, 1:].float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float((inputs[scored] == 4).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((inputs[scored] == 77).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(inputs[~scored], ids[~scored])


def test_seeds_of_other_settings_or_text_are_no_siblings(trained):
    corpus, folder, _ = trained
    with pytest.raises(ValueError, match="holds another model: its steps is 600, asked for is 601"):
        pretrain(corpus, folder, n_seeds=3, config=replace(TINY, steps=601))
    with pytest.raises(ValueError, match="holds another model: its text is"):
        pretrain(Corpus.from_texts(["one two"] * 9), folder, n_seeds=3, config=TINY)
    assert not (folder / "seed-2").exists()


def test_a_run_that_was_killed_lends_its_tokenizer_to_no_other(tmp_path, trained):
    corpus, folder, _ = trained
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer")
    with pytest.raises(ValueError, match=r"tokenizer holds another .* its vocabulary is 60, asked"):
        pretrain(corpus, tmp_path, n_seeds=1, config=replace(TINY, vocabulary=61))


@pytest.mark.parametrize(("n_texts", "split"), [(6, "train"), (20, "test")])
def test_text_shorter_than_a_window_is_refused_before_training(tmp_path, n_texts, split):
    corpus = Corpus.from_texts([f"one {i}" for i in range(n_texts)])
    with pytest.raises(ValueError, match=f"/{split} has .* less than a window of 16"):
        pretrain(corpus, tmp_path, n_seeds=1, config=TINY)
    assert not list(tmp_path.iterdir())


WRONG = {
    "heads": ({"hidden": 16, "heads": 3}, "hidden is 16, which 3 heads do not divide evenly"),
    "lr": ({"lr": -1.0}, r"lr is -1.0, expected at least 0"),
    "steps": ({"steps": 0}, "steps is 0, expected at least 1"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_settings_that_cannot_be_trained_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_processes_that_begin_together_share_a_tokenizer(tmp_path, trained, monkeypatch):
    corpus, folder, _ = trained
    path = tmp_path / "tokenizer"

    def overtaken(corpus, config):
        """Make a tokenizer while another process writes its own."""
        shutil.copytree(folder / "tokenizer", path)
        return _new_tokenizer(corpus, config)

    monkeypatch.setattr("fastinn.embed.pretrain._new_tokenizer", overtaken)
    tokenizer, train, _ = _read(corpus, path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
    others = BertTokenizer.from_pretrained(folder / "tokenizer")
    assert tokenizer.get_vocab() == others.get_vocab()
    assert torch.equal(train, _read(corpus, folder / "tokenizer", TINY)[1])
