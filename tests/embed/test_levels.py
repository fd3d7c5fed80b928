"""Rows of words and documents against means taken one by one."""

from itertools import pairwise

import pytest
import torch
from small_models import TEXTS, make_family
from tolerances import HIDDEN_STATE_MEANS, HIDDEN_STATES
from transformers import AutoModel

from fastinn import Corpus, Encoder
from fastinn.embed.words import words

LONGEST_WINDOW = 11


@pytest.fixture(scope="module", params=["bert", "roberta"])
def folder(request, tmp_path_factory):
    return make_family(tmp_path_factory.mktemp("level") / request.param, request.param)


def encoder(folder, level, layers=(0, -1)):
    return Encoder(folder, layers=layers, level=level, max_length=LONGEST_WINDOW, device="cpu")


def token_rows(folder, layer):
    """States of each document's tokens, and the characters that they cover."""
    reader = encoder(folder, "token")
    encoded = reader.encode(TEXTS)
    for number, text in enumerate(TEXTS):
        found = reader.tokens.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        rows = encoded.rows[layer][encoded.keys[:, 0] == number]
        assert len(rows) == len(found["offset_mapping"])
        yield rows, found["offset_mapping"]


@pytest.mark.parametrize("layer", [0, 3])
def test_a_word_is_the_mean_of_the_tokens_that_share_characters_with_it(folder, layer):
    encoded = encoder(folder, "word").encode(TEXTS)
    expected, keys = [], []
    for number, (rows, offsets) in enumerate(token_rows(folder, layer)):
        found, marks = words(TEXTS[number])
        for word, (start, end) in enumerate(found.tolist()):
            inside = [i for i, (a, b) in enumerate(offsets) if max(a, start) < min(b, end)]
            expected.append(rows[inside].double().mean(dim=0))
            keys.append([number, word, int(marks[word])])
    assert encoded.keys.tolist() == keys
    close = {"atol": HIDDEN_STATE_MEANS, "rtol": HIDDEN_STATE_MEANS}
    torch.testing.assert_close(encoded.rows[layer].double(), torch.stack(expected), **close)


def test_words_are_cut_by_windows_in_these_texts(folder):
    """The case that the test above must not miss."""
    reader = encoder(folder, "word")
    by_document = reader.tokens.by_document(list(Corpus.from_texts(TEXTS)))
    neighbours = [pair for windows in by_document for pair in pairwise(windows)]
    assert any(a.words[-1, 1] == b.words[0, 1] for a, b in neighbours)
    for windows in by_document:
        assert [window.last for window in windows] == [False] * (len(windows) - 1) + [True]


@pytest.mark.parametrize("layer", [0, 3])
def test_a_sentence_is_the_mean_of_its_tokens(folder, layer):
    encoded = encoder(folder, "sentence").encode(["", *TEXTS])
    expected = [rows.double().mean(dim=0) for rows, _ in token_rows(folder, layer)]
    assert encoded.keys.tolist() == [[number + 1, 0, 0] for number in range(len(TEXTS))]
    close = {"atol": HIDDEN_STATE_MEANS, "rtol": HIDDEN_STATE_MEANS}
    torch.testing.assert_close(encoded.rows[layer].double(), torch.stack(expected), **close)


def test_cls_is_the_first_state_of_the_first_window(folder):
    reader = encoder(folder, "cls")
    encoded = reader.encode(TEXTS)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = [
            model(windows[0].ids[None]).last_hidden_state[0, 0]
            for windows in reader.tokens.by_document(list(Corpus.from_texts(TEXTS)))
        ]
    assert encoded.keys.tolist() == [[number, 0, 0] for number in range(len(TEXTS))]
    torch.testing.assert_close(encoded.rows[3], torch.stack(expected), atol=HIDDEN_STATES, rtol=0)


def test_words_that_no_token_covers_are_left_out(tmp_path):
    folder = make_family(tmp_path / "bert", "bert")  # whose normaliser drops the middle sign
    keys = encoder(folder, "word").encode(["one \ufffd two"]).keys
    assert keys[:, 1].tolist() == [0, 2]


@pytest.mark.parametrize("level", ["word", "sentence", "cls"])
def test_blocks_hold_whole_documents(folder, level):
    reader = encoder(folder, level)
    blocks = list(reader.stream(Corpus.from_texts(TEXTS), 1))
    assert [block.keys[:, 0].unique().tolist() for block in blocks] == [[i] for i in range(7)]
    whole = reader.encode(TEXTS)
    assert torch.equal(torch.cat([block.keys for block in blocks]), whole.keys)


def test_no_windows_give_no_rows(folder):
    for level in ("token", "word", "sentence", "cls"):
        encoded = encoder(folder, level).encode_windows([])
        assert encoded.keys.shape == (0, 3)
        assert encoded.rows[3].shape == (0, 32)


def test_unknown_level_is_named(folder):
    with pytest.raises(ValueError, match="'line', expected one of 'token', 'word'"):
        encoder(folder, "line")
