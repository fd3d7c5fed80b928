"""Every family is read like the plain model, one window at a time."""

import pytest
import torch
from small_models import FAMILIES, LENGTH, TEXTS, make_family
from tolerances import HIDDEN_STATES, HIDDEN_STATES_16_BITS
from transformers import AutoModel

from fastinn import Corpus, Encoder
from fastinn.embed import Document
from fastinn.embed.packing import ATTENTION


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
    one.model.module().config._attn_implementation = ATTENTION
    assert other.model.module().config._attn_implementation != ATTENTION
    assert one.model.config._attn_implementation != ATTENTION


@pytest.mark.parametrize("max_length", [1, 2])
def test_window_without_room_for_text_is_named(folder, max_length):
    with pytest.raises(ValueError, match=r"adds 2 special tokens .* give at least 3"):
        Encoder(folder, layers=[0], max_length=max_length)


def test_stream_of_a_corpus_with_empty_documents(encoder):
    texts = ["", *TEXTS, "\x00"]
    blocks = list(encoder.stream(Corpus.from_texts(texts), 20))
    whole = encoder.encode(texts)
    assert torch.equal(torch.cat([block.keys for block in blocks]), whole.keys)
