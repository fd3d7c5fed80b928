import pytest
import torch
from small_models import LENGTH, TEXTS, make_family
from tolerances import HIDDEN_STATES
from transformers import AutoModel

import fastinn
from fastinn import Corpus
from fastinn.embed import AttentionEncoder, attention


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert", "deberta-v2"])
def folder(request, tmp_path_factory):
    return make_family(tmp_path_factory.mktemp("attention") / request.param, request.param)


@pytest.fixture
def encoder(folder):
    return AttentionEncoder(folder, device="cpu")


def test_rows_are_mean_probabilities_of_the_plain_model(folder, encoder):
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    windows = [w for d in encoder.tokens.by_document(list(Corpus.from_texts(TEXTS))) for w in d]
    encoded = encoder.encode(TEXTS)
    assert list(encoded.rows) == [(layer, head) for layer in (1, 2, 3) for head in range(4)]
    for i, window in enumerate(windows):
        with torch.no_grad():
            plain = model(window.ids[None], output_attentions=True).attentions
        for (layer, head), rows in encoded.rows.items():
            expected = torch.zeros(LENGTH)
            expected[: len(window.ids)] = plain[layer - 1][0, head].mean(dim=0)
            torch.testing.assert_close(rows[i], expected, atol=HIDDEN_STATES, rtol=0)


def test_rows_sum_to_one(encoder):
    for rows in encoder.encode(TEXTS).rows.values():
        torch.testing.assert_close(rows.sum(dim=1), torch.ones(len(rows)), atol=1e-5, rtol=0)


def test_keys_name_document_and_first_token(encoder):
    keys = encoder.encode(["a", TEXTS[3]]).keys
    assert keys[:, 0].tolist() == [0] + [1] * (len(keys) - 1)
    assert keys[:, 1].tolist() == [0, *range(0, (len(keys) - 1) * (LENGTH - 2), LENGTH - 2)]


def test_chosen_layers_and_small_batches_change_nothing(folder, encoder, monkeypatch):
    whole = encoder.encode(TEXTS).rows
    monkeypatch.setattr(attention, "_PROBABILITIES_AT_ONCE", 1)
    for (layer, head), rows in AttentionEncoder(folder, layers=[-1]).encode(TEXTS).rows.items():
        assert layer == 3
        torch.testing.assert_close(rows, whole[3, head], atol=HIDDEN_STATES, rtol=0)


def test_heads_can_be_streamed_and_resumed(folder, encoder):
    sources = {"a": encoder, "b": AttentionEncoder(folder, device="cpu", layers=[2])}
    stream = fastinn.stream(sources, Corpus.from_texts(TEXTS), tokens_per_block=30)
    assert stream.n_features["b", (2, 1)] == LENGTH
    blocks = list(stream)
    one, other = (blocks[0].rows[name, (2, 1)] for name in sources)
    torch.testing.assert_close(one, other, atol=HIDDEN_STATES, rtol=0)
    resumed = next(stream.blocks(blocks[0].position))
    assert torch.equal(resumed.rows["a", (3, 0)], blocks[1].rows["a", (3, 0)])


def test_embeddings_have_no_heads(folder):
    with pytest.raises(ValueError, match=r"layers is \[0\], but .* has layers 1 to 3"):
        AttentionEncoder(folder, layers=[0])
