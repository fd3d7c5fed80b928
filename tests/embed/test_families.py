"""Every family is read like the plain model, one window at a time."""

import json
import re
import shutil
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import FAMILIES, LENGTH, TEXTS, make_family, word_pieces
from tolerances import HIDDEN_STATES, HIDDEN_STATES_16_BITS
from transformers import AutoConfig, AutoModel, AutoTokenizer

from fastinn import Corpus, Encoder
from fastinn.embed import Document
from fastinn.embed.packing import packed_attention
from fastinn.embed.tokens import Tokens


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return make_family(tmp_path_factory.mktemp("family") / request.param, request.param)


@pytest.fixture(scope="module")
def encoder(folder):
    return Encoder(folder, layers="all", device="cpu")


def windows_of(encoder):
    return list(encoder.tokens.windows(Document(i, t, t) for i, t in enumerate(TEXTS)))


def test_all_layers_equal_the_plain_model(folder, encoder):
    model = AutoModel.from_pretrained(folder).eval()
    windows = windows_of(encoder)
    with torch.no_grad():
        states = [model(w.ids[None], output_hidden_states=True).hidden_states for w in windows]
    for layer, rows in encoder.encode_windows(windows).rows.items():
        plain = [s[layer][0][w.content] for s, w in zip(states, windows, strict=True)]
        torch.testing.assert_close(rows, torch.cat(plain), atol=HIDDEN_STATES, rtol=0)


def test_windows_take_every_position_and_no_more(encoder):
    assert encoder.tokens.max_length == LENGTH
    assert max(len(window.ids) for window in windows_of(encoder)) == LENGTH


def test_documents_without_tokens_leave_no_row(encoder):
    encoded = encoder.encode(["", "a b c", "", "a"])
    assert set(encoded.keys[:, 0].tolist()) == {1, 3}
    with pytest.raises(ValueError, match="no token in 2 texts"):
        encoder.encode(["", ""])


def test_special_tokens_written_in_a_text_are_read(encoder):
    tokenizer = encoder.tokens.tokenizer
    encoded = encoder.encode([tokenizer.sep_token])
    assert all(torch.isfinite(rows).all() for rows in encoded.rows.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_fast_is_close_to_exact(folder, encoder, dtype):
    fast = Encoder(folder, layers="all", device="cpu", precision="fast", fast_dtype=dtype)
    assert (fast.dtype, encoder.dtype) == (dtype, torch.float32)
    exact = encoder.encode(TEXTS).rows
    for layer, rows in fast.encode(TEXTS).rows.items():
        error = (rows - exact[layer]).norm() / exact[layer].norm()
        assert rows.dtype == torch.float32
        assert 0 < error < HIDDEN_STATES_16_BITS[dtype]


def test_weights_are_loaded_when_needed_and_let_go(folder):
    encoder = Encoder(folder, layers=[-1], device="cpu")
    assert not encoder.model.is_loaded
    first = encoder.encode(TEXTS).rows[3]
    assert encoder.model.is_loaded
    module = encoder.model.module()
    assert encoder.model.nbytes == sum(p.nbytes for p in module.parameters())
    encoder.release()
    assert not encoder.model.is_loaded
    assert torch.equal(encoder.encode(TEXTS).rows[3], first)


def test_fingerprint_is_that_of_the_weights_whatever_the_precision(folder, encoder):
    fast = Encoder(folder, layers=[0], device="cpu", precision="fast")
    assert fast.fingerprint() == encoder.fingerprint()


def test_models_share_no_config(folder):
    one, other = (Encoder(folder, layers=[1], device="cpu") for _ in range(2))
    chosen = packed_attention()
    one.model.module().config._attn_implementation = chosen
    assert other.model.module().config._attn_implementation != chosen
    assert one.model.config._attn_implementation != chosen


@pytest.mark.parametrize("max_length", [1, 2])
def test_window_without_room_for_text_is_named(folder, max_length):
    with pytest.raises(ValueError, match=r"adds 2 special tokens .* give at least 3"):
        Encoder(folder, layers=[0], max_length=max_length)


def test_stream_of_a_corpus_with_empty_documents(encoder):
    texts = ["", *TEXTS, "\x00"]
    blocks = list(encoder.stream(Corpus.from_texts(texts), 20))
    whole = encoder.encode(texts)
    assert torch.equal(torch.cat([block.keys for block in blocks]), whole.keys)


def test_windows_are_cut_at_their_end_whatever_the_tokenizer_says(folder, tmp_path):
    left = AutoTokenizer.from_pretrained(folder)
    left.truncation_side = "left"
    left.save_pretrained(tmp_path)
    right, found = (Tokens(str(f), max_length=LENGTH) for f in (folder, tmp_path))
    assert found.fingerprint() == right.fingerprint()
    documents = [Document(i, text, text) for i, text in enumerate(TEXTS)]
    for one, other in zip(right.windows(documents), found.windows(documents), strict=True):
        assert torch.equal(one.ids, other.ids)


UNREADABLE = {
    "mixes all positions": (
        "fnet",
        {"intermediate_size": 64},
        "reads a text otherwise beside a longer one",
    ),
    "convolves over padding": (
        "convbert",
        {"num_attention_heads": 4, "embedding_size": 32},
        "reads a text otherwise beside a longer one",
    ),
    "pads within": (
        "longformer",
        {"num_attention_heads": 4, "attention_window": 10, "max_position_embeddings": LENGTH + 2},
        "has positions .* and its input has",
    ),
    "layers in several lists": (
        "xlm",
        {"emb_dim": 32, "n_layers": 3, "n_heads": 4},
        "XLMModel has no list of layers",
    ),
    "relative positions alone": (
        "t5",
        {"d_model": 32, "num_layers": 3, "num_heads": 4, "d_ff": 64},
        "names no longest window",
    ),
}


@pytest.mark.parametrize(("family", "options", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_model_that_would_be_read_wrongly_is_refused(tmp_path, family, options, message):
    tokenizer = word_pieces()
    tokenizer.save_pretrained(tmp_path)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": LENGTH}
    shape = options if "d_model" in options else shape | options
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        Encoder(str(tmp_path), layers="all", device="cpu").encode(TEXTS)


def test_weights_that_are_missing_are_named_and_not_drawn_at_random(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    first = min(name for name in weights if not name.startswith("pooler."))
    del weights[first]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    encoder = Encoder(str(tmp_path), layers=[-1], device="cpu")
    with pytest.raises(ValueError, match=f"lacks 1 of its weights \\({re.escape(first)} is not"):
        encoder.encode(TEXTS)


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_code_of_a_repository_is_never_run(folder, tmp_path, part, monkeypatch):
    """Whoever would say yes is not asked; a tokenizer is read as what its file says."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    kept = json.loads((tmp_path / part).read_text())
    names = {"AutoConfig": "code.Own", "AutoTokenizer": [None, "code.Own"]}
    kept |= {"auto_map": names, "model_type": "own", "tokenizer_class": "Own"}
    (tmp_path / part).write_text(json.dumps(kept))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refused = pytest.raises(ValueError, match="cannot be loaded")
    with refused if part == "config.json" else nullcontext():
        Encoder(str(tmp_path), layers=[-1])
    assert not (tmp_path / "ran").exists()


def test_a_broken_tokenizer_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=f"model {tmp_path} cannot be loaded"):
        Encoder(str(tmp_path), layers=[-1])
