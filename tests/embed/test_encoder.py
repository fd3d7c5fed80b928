import re
import shutil

import pytest
import torch
from transformers import BertModel

from fastinn import Corpus, Encoder
from fastinn.embed import Document
from fastinn.embed.model import blocks_of


def plain_hidden_states(folder, windows, layer):
    """One window at a time through the whole model, no padding anywhere."""
    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = [model(w.ids[None], output_hidden_states=True).hidden_states for w in windows]
    return torch.cat([o[layer][0][w.content] for o, w in zip(outputs, windows, strict=True)])


@pytest.fixture
def encoder(seeds):
    return Encoder(seeds[0], layers=[0, 2, -1])


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_rows_equal_the_plain_model(seeds, encoder, texts, layer):
    windows = list(encoder.tokens.windows(Document(i, t, t) for i, t in enumerate(texts)))
    rows = encoder.encode(texts).rows[layer]
    torch.testing.assert_close(
        rows, plain_hidden_states(seeds[0], windows, layer), atol=1e-5, rtol=0
    )


def test_layers_become_non_negative(encoder, texts):
    assert encoder.layers == [0, 2, 3]
    assert list(encoder.encode(texts).rows) == [0, 2, 3]


def test_all_layers_can_be_asked_for(seeds):
    assert Encoder(seeds[0], layers="all").layers == [0, 1, 2, 3]


def test_keys_name_document_position_and_token(encoder, texts):
    keys = encoder.encode(texts).keys
    tokenizer = encoder.tokens.tokenizer
    for number, text in enumerate(texts):
        of_document = keys[keys[:, 0] == number]
        assert of_document[:, 1].tolist() == list(range(len(text.split())))
        assert tokenizer.convert_ids_to_tokens(of_document[:, 2].tolist()) == text.split()


def test_stream_equals_encode_whatever_the_block(encoder, texts, corpus):
    whole = encoder.encode(texts)
    for size in (1, 37, 10_000):
        blocks = list(encoder.stream(corpus, size))
        assert torch.equal(torch.cat([b.keys for b in blocks]), whole.keys)
        rows = torch.cat([b.rows[3] for b in blocks])
        torch.testing.assert_close(rows, whole.rows[3], atol=1e-5, rtol=0)


def test_encoding_is_not_random(encoder, texts):
    assert torch.equal(encoder.encode(texts).rows[3], encoder.encode(texts).rows[3])


def test_only_the_layers_that_are_needed_run(seeds, texts):
    encoder = Encoder(seeds[0], layers=[1])
    ran = []
    blocks_of(encoder.model.module())[1].register_forward_hook(lambda *_: ran.append(1))
    encoder.encode(texts)
    assert not ran


def test_fast_precision_is_close(seeds, encoder, texts):
    fast = Encoder(seeds[0], layers=[3], precision="fast").encode(texts).rows[3]
    exact = encoder.encode(texts).rows[3]
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).norm() / exact.norm() < 2e-2


def test_fingerprint_follows_the_weights(seeds):
    one, other = (Encoder(seed, layers=[1]) for seed in seeds)
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() == Encoder(seeds[0], layers=[2]).fingerprint()


def test_tokenizer_fingerprint_survives_use(seeds, texts):
    used, fresh = (Encoder(seed, layers=[1]) for seed in seeds)
    used.encode(texts)
    assert used.tokens.fingerprint() == fresh.tokens.fingerprint()


@pytest.mark.parametrize("layers", ["last", -1, [1.5], [[1]], None], ids=str)
def test_layers_that_are_no_numbers_are_refused(seeds, layers):
    said = f"layers is {re.escape(repr(layers))}, expected 'all' or numbers such as \\[-1\\]"
    with pytest.raises(ValueError, match=said):
        Encoder(seeds[0], layers=layers)


def test_layer_out_of_range(seeds):
    with pytest.raises(ValueError, match=r"has layers 0 \(embeddings\) to 3"):
        Encoder(seeds[0], layers=[4])


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"there is no model folder .*gone"):
        Encoder(str(tmp_path / "gone"), layers=[0])


@pytest.mark.parametrize("damage", ["truncate", "flip", "config"])
def test_damaged_folder(seeds, tmp_path, damage):

    folder = shutil.copytree(seeds[0], tmp_path / "model")
    weights = folder / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "flip":
        weights.write_bytes(b"\xff" * 64 + weights.read_bytes()[64:])
    else:
        (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Encoder(str(folder), layers=[0]).encode(["worda"])


def test_text_without_tokens(encoder):
    with pytest.raises(ValueError, match="no token in 1 texts"):
        encoder.encode([" "])


def test_one_string_is_not_a_list_of_texts(encoder):
    with pytest.raises(TypeError, match="give a list of texts"):
        encoder.encode("the map")


def test_empty_corpus(encoder):
    with pytest.raises(ValueError, match="holds no text"):
        list(encoder.stream(Corpus.from_texts([""]), 100))
