"""Streams of stores against streams of the encoders that wrote them."""

import dataclasses
import json
import re

import pytest
import torch
from extracted import encoders_of, extract_by, small_header
from small_models import TEXTS, make_family
from tiny_seeds import make_texts
from tolerances import HIDDEN_STATES

import fastinn
from fastinn import Corpus
from fastinn.embed import EmbeddingStore, extraction
from fastinn.embed.corpus import SPLITS
from fastinn.embed.extraction import extract
from fastinn.embed.paired import position_of

LEVELS = ["token", "word", "sentence", "cls"]
TEXT = Corpus.from_texts(make_texts(150))


@pytest.fixture(scope="module")
def live(seeds):
    """Encoders of two seeds at every level."""
    return {level: encoders_of(seeds, level) for level in LEVELS}


@pytest.fixture(scope="module")
def stores(live, tmp_path_factory):
    """Stores of both at every level, by one writer and by three."""
    made = {}
    for level in LEVELS:
        for n in (1, 3):
            folder = tmp_path_factory.mktemp("stores")
            with pytest.MonkeyPatch.context() as patch:
                paths = extract_by(patch, n, live[level], TEXT, folder)
            made[level, n] = {name: EmbeddingStore(path) for name, path in paths.items()}
    return made


def joined(blocks):
    blocks = list(blocks)
    rows = {view: torch.cat([block.rows[view] for block in blocks]) for view in blocks[0].rows}
    return rows, torch.cat([block.keys for block in blocks])


def assert_same_rows(found, expected):
    (rows, keys), (their_rows, their_keys) = joined(found), joined(expected)
    assert torch.equal(keys, their_keys)
    assert rows.keys() == their_rows.keys()
    for view, states in rows.items():
        torch.testing.assert_close(states, their_rows[view], atol=HIDDEN_STATES, rtol=0)


def assert_same_blocks(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.position == other.position
        assert torch.equal(one.keys, other.keys)
        assert all(torch.equal(rows, other.rows[view]) for view, rows in one.rows.items())


@pytest.mark.parametrize("size", [7, 64, 10_000])
@pytest.mark.parametrize("n_writers", [1, 3])
@pytest.mark.parametrize("level", LEVELS)
def test_rows_are_those_of_the_encoders(live, stores, level, n_writers, size):
    of_stores = fastinn.stream(stores[level, n_writers], tokens_per_block=size)
    assert_same_rows(of_stores, fastinn.stream(live[level], TEXT))
    assert of_stores.left_out == {"seed-0": 0, "seed-1": 0}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("level", ["token", "word"])
def test_splits_and_shards_are_those_of_the_text(live, stores, level, split):
    of_stores = fastinn.stream(stores[level, 3]).split(split)
    of_text = fastinn.stream(live[level], TEXT).split(split)
    assert of_stores.name == of_text.name
    numbers = []
    for index in range(2):
        assert_same_rows(of_stores.shard(index, 2), of_text.shard(index, 2))
        numbers += joined(of_stores.shard(index, 2))[1][:, 0].unique().tolist()
    assert sorted(numbers) == [document.number for document in TEXT.split(split)]


@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize("level", LEVELS)
def test_resumed_blocks_are_the_same_bit_for_bit(stores, level, split):
    stream = fastinn.stream(stores[level, 3], tokens_per_block=20)
    stream = stream.split(split) if split else stream
    blocks = list(stream)
    assert len(blocks) > 2
    assert blocks[-1].position.row == sum(len(block.keys) for block in blocks)
    for i, block in enumerate(blocks):
        assert_same_blocks(stream.blocks(block.position), blocks[i + 1 :])


def test_positions_survive_json(stores):
    for block in fastinn.stream(stores["word", 1], tokens_per_block=20):
        record = json.loads(json.dumps(dataclasses.asdict(block.position)))
        assert position_of(record) == block.position


@pytest.mark.parametrize("level", ["token", "word"])
def test_an_order_that_is_drawn(stores, level):
    stream = fastinn.stream(stores[level, 3], tokens_per_block=50)
    in_order = {block.position: block for block in stream}
    assert len(in_order) > 5
    generator = torch.Generator().manual_seed(1)
    orders = []
    for _ in range(2):
        state = generator.get_state()
        drawn = list(stream.shuffled(generator))
        assert {block.position for block in drawn} == in_order.keys()
        assert len(drawn) == len(in_order)
        assert_same_blocks(drawn, [in_order[block.position] for block in drawn])
        again = torch.Generator()
        again.set_state(state)
        assert_same_blocks(stream.shuffled(again), drawn)
        orders.append([block.position.row for block in drawn])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) != orders[0]


def test_a_pair_is_shuffled_with_its_documents(stores):
    stream = fastinn.stream(stores["token", 3], tokens_per_block=50)
    views = ("seed-0", 3), ("seed-1", 0)
    generators = (torch.Generator().manual_seed(2) for _ in range(2))
    pair = stream.pair(*views).shuffled(next(generators))
    for (x, y, documents), block in zip(pair, stream.shuffled(next(generators)), strict=True):
        assert torch.equal(x, block.rows[views[0]])
        assert torch.equal(y, block.rows[views[1]])
        assert torch.equal(documents, block.keys[:, 0])


def test_encoders_read_in_order_whatever_is_drawn(live):
    stream = fastinn.stream(live["token"], TEXT, tokens_per_block=50)
    assert_same_blocks(stream.shuffled(torch.Generator()), stream)


def test_chosen_layers_are_streamed_alone(stores):
    chosen = {name: store.select([-1]) for name, store in stores["token", 3].items()}
    stream = fastinn.stream(chosen, tokens_per_block=50)
    assert stream.n_features == {("seed-0", 3): 16, ("seed-1", 3): 16}
    assert all(block.rows.keys() == stream.n_features.keys() for block in stream)


def test_the_fingerprint_is_that_of_the_rows_however_written(stores):
    prints = {
        (key, split): (stream.split(split) if split else stream).fingerprint()
        for key in (("token", 1), ("token", 3), ("word", 1))
        for stream in [fastinn.stream(stores[key])]
        for split in (None, "test")
    }
    for split in (None, "test"):
        assert prints[("token", 1), split] == prints[("token", 3), split]
    assert len(set(prints.values())) == 4


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Folders of two models that cut words in different ways."""
    folder = tmp_path_factory.mktemp("strangers")
    return [make_family(folder / name, name) for name in ("bert", "roberta")]


ODD = [*TEXTS, "one \ufffd two", "\ufffd", "three", "\ufffd"]
"""BERT drops the sign, the bytes of RoBERTa do not: some texts have rows in one of them only."""


@pytest.mark.parametrize("order", [1, -1], ids=["bert first", "roberta first"])
@pytest.mark.parametrize("size", [1, 40])
@pytest.mark.parametrize("level", ["word", "sentence", "cls"])
def test_different_tokenizers_keep_the_same_rows(strangers, tmp_path, level, size, order):
    encoders = encoders_of(strangers[::order], level)
    text = Corpus.from_texts(ODD)
    paths = extract(encoders, text, tmp_path)
    found = {name: EmbeddingStore(path) for name, path in paths.items()}
    of_stores = fastinn.stream(found, tokens_per_block=size)
    assert_same_rows(of_stores, fastinn.stream(encoders, text, tokens_per_block=size))
    blocks = list(of_stores)
    assert all(len(block.keys) for block in blocks)
    for i, block in enumerate(blocks):
        assert_same_blocks(of_stores.blocks(block.position), blocks[i + 1 :])


def test_stores_and_encoders_are_not_mixed(live, stores):
    mixed = {"live": live["token"]["seed-0"], "stored": stores["token", 1]["seed-1"]}
    with pytest.raises(ValueError, match="stored is a store and live an encoder; give all"):
        fastinn.stream(mixed, TEXT)


def test_stores_take_no_text(stores):
    with pytest.raises(ValueError, match="stores have read their corpus"):
        fastinn.stream(stores["token", 1], TEXT)


def test_encoders_need_a_text(live):
    with pytest.raises(ValueError, match="encoders need a text to read"):
        fastinn.stream(live["token"])


def test_levels_are_not_mixed(stores):
    mixed = {"a": stores["token", 1]["seed-0"], "b": stores["word", 1]["seed-1"]}
    with pytest.raises(ValueError, match="a reads level 'token' and b reads 'word'"):
        fastinn.stream(mixed)


def test_stores_of_different_lengths_are_refused(live, stores, tmp_path):
    path = extract({"seed-1": live["token"]["seed-1"]}, TEXT.head(100), tmp_path)["seed-1"]
    unequal = {"a": stores["token", 1]["seed-0"], "b": EmbeddingStore(path)}
    with pytest.raises(ValueError, match=r"a has [\d,]+ rows and b has [\d,]+; extract both"):
        list(fastinn.stream(unequal))


@pytest.mark.parametrize("level", LEVELS)
def test_stores_of_different_texts_are_refused(live, stores, tmp_path, level):
    """Whatever their keys are, and wherever the first document is that differs."""
    texts = make_texts(150)
    changed = Corpus.from_texts([*texts[:140], *texts[:139:-1]])
    path = extract({"seed-1": live[level]["seed-1"]}, changed, tmp_path)["seed-1"]
    expected = stores[level, 3]["seed-0"]
    message = f"document 140 is another text in {path} than in {expected.path}; extract both from"
    with pytest.raises(ValueError, match=re.escape(message)):
        fastinn.stream({"a": expected, "b": EmbeddingStore(path)})


def stores_of(encoders, texts, folder):
    """Stores of encoders, each of which has read texts of its own."""
    found = {}
    for (name, encoder), read in zip(encoders.items(), texts, strict=True):
        path = extract({name: encoder}, Corpus.from_texts(read), folder)[name]
        found[name] = EmbeddingStore(path)
    return found


@pytest.mark.parametrize("level", ["word", "sentence", "cls"])
def test_different_texts_of_different_tokenizers_are_refused(strangers, tmp_path, level):
    found = stores_of(encoders_of(strangers, level), [ODD, ODD[::-1]], tmp_path)
    with pytest.raises(ValueError, match=r"document 0 is another text in .*; extract both from"):
        fastinn.stream(found)


@pytest.mark.parametrize("level", ["word", "sentence", "cls"])
def test_a_store_of_more_of_the_text_is_paired(strangers, tmp_path, level):
    encoders, text = encoders_of(strangers, level), ODD[:5]
    found = stores_of(encoders, [ODD, text], tmp_path)
    assert_same_rows(fastinn.stream(found), fastinn.stream(encoders, Corpus.from_texts(text)))


@pytest.mark.parametrize("n_ranks", [1, 2])
@pytest.mark.parametrize("level", LEVELS)
def test_stores_of_one_text_are_paired_however_it_was_divided(
    live, stores, tmp_path, monkeypatch, level, n_ranks
):
    monkeypatch.setattr(extraction, "StoreHeader", small_header)
    encoder = {"seed-1": live[level]["seed-1"]}
    path = extract_by(monkeypatch, n_ranks, encoder, TEXT, tmp_path)["seed-1"]
    assert len(list(path.glob("tokens/*"))) > n_ranks
    mixed = {"seed-0": stores[level, 3]["seed-0"], "seed-1": EmbeddingStore(path)}
    assert_same_rows(fastinn.stream(mixed), fastinn.stream(live[level], TEXT))
