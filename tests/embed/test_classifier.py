import pytest
import torch
from labelled_texts import make_labelled
from small_models import TEXTS as FAMILY_TEXTS
from small_models import make_family
from tolerances import SAME_MODEL
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from fastinn.embed.classifier import Classifier

TEXTS = make_labelled(40, seed=5).texts
LAYERS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def pair(classifiers):
    return [Classifier(folder) for folder in classifiers]


def plain(folder, texts, **options):
    """Outputs of transformers' own model, a text at a time, so that nothing is padded."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt"), **options) for text in texts]


def test_logits_are_those_of_transformers(classifiers, pair):
    expected = torch.cat([out.logits for out in plain(classifiers[0], TEXTS)])
    for batch in pair[0].batches(TEXTS):
        found = pair[0].logits(batch)
        torch.testing.assert_close(found, expected[batch.places], **SAME_MODEL)


def test_states_are_of_all_tokens_at_every_layer(classifiers, pair):
    outputs = plain(classifiers[0], TEXTS, output_hidden_states=True)
    for batch in pair[0].batches(TEXTS):
        states = pair[0].states(batch, LAYERS)
        for layer in LAYERS:
            expected = torch.cat([outputs[i].hidden_states[layer][0] for i in batch.places])
            torch.testing.assert_close(states[layer], expected, **SAME_MODEL)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_model_that_takes_up_its_own_states_says_what_it_says(pair, layer):
    for batch in pair[0].batches(TEXTS):
        states = pair[0].states(batch, [layer])[layer]
        found = pair[0].resume(batch, layer, states)
        torch.testing.assert_close(found, pair[0].logits(batch), **SAME_MODEL)


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_above_pooler_and_classifier_are_the_targets(classifiers, pair, layer):
    """Their formulas by hand, without padding, from the states of the other model."""
    x, y = pair
    model = AutoModelForSequenceClassification.from_pretrained(classifiers[1]).eval()
    for text in TEXTS[:6]:
        (batch,) = x.batches([text])
        states = x.states(batch, [layer])[layer]
        with torch.no_grad():
            hidden = states[None]
            for block in model.bert.encoder.layer[layer:]:
                hidden = block(hidden)
            expected = model.classifier(torch.tanh(model.bert.pooler.dense(hidden[:, 0])))
        torch.testing.assert_close(y.resume(batch, layer, states), expected, **SAME_MODEL)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "deberta-v2"])
def test_other_families_take_up_their_own_states(tmp_path, family):
    """Heads of other kinds, and blocks that are called or answer in other ways."""
    folder = make_family(tmp_path / family, family)
    config = AutoConfig.from_pretrained(folder)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    model = Classifier(folder)
    for batch in model.batches(FAMILY_TEXTS):
        states = model.states(batch, LAYERS)
        for layer in LAYERS:
            found = model.resume(batch, layer, states[layer])
            torch.testing.assert_close(found, model.logits(batch), **SAME_MODEL)
            moved = model.resume(batch, layer, states[layer] + 1)
            assert not torch.allclose(moved, found)


def test_nothing_depends_on_what_stands_beside_it(pair):
    """A text in a padded batch and alone: padding is attended to at no layer above."""
    short, long = TEXTS[0][:5], " ".join(TEXTS[:3])
    (together,) = pair[0].batches([short, long])
    (alone,) = pair[0].batches([short])
    rows = pair[0].states(together, [1])[1]
    n = int(alone.attended.sum())
    place = together.places.tolist().index(0)
    own = rows[:n] if place == 0 else rows[-n:]
    torch.testing.assert_close(
        pair[1].resume(together, 1, rows)[place],
        pair[1].resume(alone, 1, own)[0],
        **SAME_MODEL,
    )


def test_long_texts_are_cut(pair):
    (batch,) = pair[0].batches([" ".join(TEXTS)])
    assert batch.attended.shape == (1, 16)


def test_rows_can_be_bounded(pair):
    batches = pair[0].batches(TEXTS, max_tokens=50)
    assert sum(int(batch.attended.sum()) for batch in batches) <= 50
    assert sorted(i for batch in batches for i in batch.places.tolist())[0] == 0
    assert len(pair[0].batches(TEXTS, max_tokens=1)) == 1


def test_states_of_another_shape_are_refused(pair):
    (batch,) = pair[0].batches(TEXTS[:1])
    with pytest.raises(ValueError, match=r"shape \(1, 16\), but the batch has \d+ tokens"):
        pair[0].resume(batch, 1, torch.zeros(1, 16))


def test_a_head_that_was_never_trained_is_refused(seeds):
    with pytest.raises(ValueError, match=r"no trained classifier .*`fastinn finetune`"):
        Classifier(seeds[0])


def test_a_missing_layer_is_named(pair):
    assert pair[0].layers([-1, 0]) == [0, 3]
    with pytest.raises(ValueError, match=r"layers 0 \(embeddings\) to 3"):
        pair[0].layers([4])
