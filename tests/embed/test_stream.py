import re
import shutil

import pytest
import torch
from small_models import TEXTS, make_family
from tiny_seeds import make_texts

import fastinn
from fastinn import Corpus, Encoder, Moments
from fastinn.embed import batches, memory, tokens
from fastinn.embed.corpus import Document
from fastinn.embed.pairing import check_keys
from fastinn.embed.tokens import batched


@pytest.fixture
def encoders(seeds):
    return {f"seed-{i}": Encoder(folder, layers=[0, 3]) for i, folder in enumerate(seeds)}


def test_views_are_paired_rows(encoders, corpus, texts):
    blocks = list(fastinn.stream(encoders, corpus, tokens_per_block=50))
    assert len(blocks) > 2
    for name, encoder in encoders.items():
        rows = torch.cat([block.rows[name, 3] for block in blocks])
        torch.testing.assert_close(rows, encoder.encode(texts).rows[3], atol=1e-5, rtol=0)


def test_stream_feeds_moments(encoders, corpus, texts):
    stream = fastinn.stream(encoders, corpus, tokens_per_block=50)
    moments = Moments(stream.n_features)
    for block in stream:
        moments.update(block.rows)
    x = encoders["seed-0"].encode(texts).rows[3].double()
    torch.testing.assert_close(moments.mean(("seed-0", 3)), x.mean(dim=0), atol=1e-6, rtol=0)
    assert moments.count == len(x)


def test_pair_yields_rows_and_documents(encoders, corpus):
    stream = fastinn.stream(encoders, corpus, tokens_per_block=50)
    pair = stream.pair(("seed-0", 3), ("seed-1", 0))
    for (x, y, documents), block in zip(pair, stream, strict=True):
        assert torch.equal(x, block.rows["seed-0", 3])
        assert torch.equal(y, block.rows["seed-1", 0])
        assert torch.equal(documents, block.keys[:, 0])


@pytest.mark.parametrize(
    ("view", "there"),
    [(("seed-0", 12), "seed-0 is read at 0, 3;"), (("seed-9", 3), "has the seeds seed-0, seed-1;")],
    ids=["layer", "seed"],
)
def test_a_view_that_is_not_there_is_named_before_anything_is_read(encoders, corpus, view, there):
    stream = fastinn.stream(encoders, corpus)
    for views in ((view, ("seed-1", 0)), (("seed-1", 0), view)):
        with pytest.raises(ValueError, match=f"no view {re.escape(str(view))}: .*{there}"):
            stream.pair(*views)


@pytest.mark.campaign("R10")
def test_other_tokenizer_is_refused(encoders, stranger, corpus):
    with pytest.raises(ValueError, match="odd and seed-0 have different tokenizers"):
        fastinn.stream(encoders | {"odd": Encoder(stranger, layers=[0])}, corpus)


def test_long_documents_are_not_tokenised_all_at_once():
    """Which takes about 126 bytes a character."""
    long, short = (Document(0, "x" * n, "") for n in (1_000_000, 1_000))
    batches = list(batched([*[long] * 5, *[short] * 70, long, long]))
    assert [len(batch) for batch in batches] == [2, 2, 64, 9]
    assert [d.text for batch in batches for d in batch] == [
        d.text for d in [*[long] * 5, *[short] * 70, long, long]
    ]


@pytest.mark.parametrize("level", ["token", "word", "sentence", "cls"])
def test_what_is_tokenised_at_once_has_no_say_in_the_blocks(seeds, corpus, level, monkeypatch):
    encoders = {"s": Encoder(seeds[0], layers=[3], level=level)}
    expected = list(fastinn.stream(encoders, corpus, tokens_per_block=50))
    monkeypatch.setattr(tokens, "CHARACTERS_AT_ONCE", 100)
    found = list(fastinn.stream(encoders, corpus, tokens_per_block=50))
    for one, other in zip(found, expected, strict=True):
        equal_blocks(one, other)


ODD = {
    "no mapping": (
        lambda encoders, corpus: ([encoders["seed-0"]], corpus),
        "sources is of type list, exp",
    ),
    "one encoder": (
        lambda encoders, corpus: (encoders["seed-0"], corpus),
        "sources is of type Encoder",
    ),
    "a folder": (
        lambda encoders, corpus: ({**encoders, "b": "path"}, corpus),
        r"seed 'b' is of type str, expected an encoder or a store; wrap it in Encoder\(...\)",
    ),
    "no corpus": (
        lambda encoders, corpus: (encoders, "wiki.txt"),
        "corpus is of type str, expected",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), ODD.values(), ids=ODD)
def test_what_cannot_be_streamed_is_named(encoders, corpus, arguments, message):
    with pytest.raises(TypeError, match=message):
        fastinn.stream(*arguments(encoders, corpus))


def test_no_encoder_is_refused(corpus):
    with pytest.raises(ValueError, match="no encoder"):
        fastinn.stream({}, corpus)


@pytest.mark.campaign("R10")
def test_first_row_that_differs_is_named():
    keys = torch.arange(12).view(4, 3)
    moved = keys.clone()
    moved[2, 1] = 99
    with pytest.raises(ValueError, match=r"row 2 is .* \(6, 7, 8\) in a and \(6, 99, 8\) in b"):
        check_keys({"a": keys, "b": moved})


@pytest.mark.campaign("R10")
def test_unequal_numbers_of_rows_are_named():
    keys = torch.arange(12).view(4, 3)
    with pytest.raises(ValueError, match="a has 4 rows and b has 3"):
        check_keys({"a": keys, "b": keys[:3]})


def equal_blocks(one, other):
    assert one.position == other.position
    assert one.places == other.places
    assert torch.equal(one.keys, other.keys)
    assert one.rows.keys() == other.rows.keys()
    assert all(torch.equal(rows, other.rows[view]) for view, rows in one.rows.items())


@pytest.mark.parametrize("level", ["token", "word", "sentence", "cls"])
@pytest.mark.parametrize("size", [1, 20, 50])
@pytest.mark.parametrize("split", [None, "train"])
def test_resumed_blocks_are_the_same_bit_for_bit(seeds, corpus, level, size, split):
    encoders = {
        str(i): Encoder(folder, layers=[0, 3], level=level) for i, folder in enumerate(seeds)
    }
    stream = fastinn.stream(
        encoders, corpus.split(split) if split else corpus, tokens_per_block=size
    )
    blocks = list(stream)
    for i, block in enumerate(blocks):
        rest = list(stream.blocks(block.position))
        assert len(rest) == len(blocks) - i - 1
        for resumed, expected in zip(rest, blocks[i + 1 :], strict=True):
            equal_blocks(resumed, expected)
    assert blocks[-1].position.row == sum(len(block.keys) for block in blocks)


@pytest.mark.parametrize("level", ["token", "word", "sentence", "cls"])
@pytest.mark.parametrize("count", [2, 3])
def test_exact_rows_do_not_depend_on_shards(seeds, level, count):
    """Bit for bit, which takes batches of the same windows."""
    encoder = Encoder(seeds[0], layers=[3], level=level, precision="exact")
    corpus = Corpus.from_texts(make_texts(300)).split("train")
    whole = rows_by_key(fastinn.stream({"s": encoder}, corpus, tokens_per_block=100))
    shards = [corpus.shard(i, count) for i in range(count)]
    found = [rows_by_key(fastinn.stream({"s": encoder}, s, tokens_per_block=100)) for s in shards]
    assert all(found)
    assert {key: row for part in found for key, row in part.items()} == whole


@pytest.mark.parametrize("level", ["token", "word", "sentence", "cls"])
def test_exact_batches_do_not_depend_on_shards(seeds, level, monkeypatch):
    """A model as small as these may round alike in batches that differ."""
    run = []

    def spy(windows, *rest):
        run.append(tuple((window.document, window.start) for window in windows))
        return padded(windows, *rest)

    encoder = Encoder(seeds[0], layers=[3], level=level, precision="exact")
    encoder.encode(make_texts(9))  # a first run tries the model, too
    padded = batches.padded
    monkeypatch.setattr(batches, "padded", spy)
    stream = fastinn.stream(
        {"s": encoder}, Corpus.from_texts(make_texts(300)), tokens_per_block=3000
    )
    list(stream)
    whole, run[:] = set(run), []
    for i in range(3):
        list(stream.shard(i, 3))
    assert set(run) == whole
    assert max(map(len, whole)) > 10


def rows_by_key(stream):
    return {
        tuple(key): row.numpy().tobytes()
        for block in stream
        for key, row in zip(block.keys.tolist(), block.rows["s", 3], strict=True)
    }


def test_blocks_are_full_but_for_a_portion(encoders, corpus):
    sizes = [len(block.keys) for block in fastinn.stream(encoders, corpus, tokens_per_block=60)]
    assert max(sizes) <= 60
    assert min(sizes[:-1]) > 60 - (60 // 4 + 14)  # a portion, and the window that ended it


def test_a_block_may_begin_inside_a_document(encoders, corpus):
    blocks = list(fastinn.stream(encoders, corpus, tokens_per_block=20))
    assert any(block.position.window for block in blocks)


def test_models_that_do_not_fit_take_turns_and_change_nothing(encoders, corpus, monkeypatch):
    stream = fastinn.stream(encoders, corpus, tokens_per_block=20)
    together = list(stream)
    held = []
    for name, encoder in encoders.items():
        encoder.release()
        spy = encoder.encode_windows
        monkeypatch.setattr(
            encoder,
            "encode_windows",
            lambda *windows, spy=spy, name=name: (
                held.append((name, [n for n, e in encoders.items() if e.model.is_loaded])),
                spy(*windows),
            )[1],
        )
    one = encoders["seed-0"]
    block = 20 * 2 * one.bytes_per_row
    assert one.model.nbytes * 2 > 6 * block
    monkeypatch.setattr(memory, "available", lambda device: 6 * block)
    for block, expected in zip(stream, together, strict=True):
        equal_blocks(block, expected)
    # Three blocks of one seed, three of the other; never both models at once.
    assert [name for name, _ in held[:6]] == ["seed-0"] * 3 + ["seed-1"] * 3
    assert all(loaded in ([], [name]) for name, loaded in held)
    assert not any(e.model.is_loaded for e in encoders.values())


def test_text_is_tokenised_once_for_seeds_that_share_a_tokenizer(encoders, corpus, monkeypatch):
    calls = []
    for name, encoder in encoders.items():
        spy = encoder.tokens.by_document
        monkeypatch.setattr(
            encoder.tokens,
            "by_document",
            lambda documents, spy=spy, name=name: (calls.append(name), spy(documents))[1],
        )
    list(fastinn.stream(encoders, corpus))
    assert calls == ["seed-0"]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Folders of two models that cut words in different ways."""
    folder = tmp_path_factory.mktemp("strangers")
    return {name: make_family(folder / name, name) for name in ("bert", "roberta")}


@pytest.mark.parametrize("level", ["word", "sentence", "cls"])
def test_different_tokenizers_are_paired_by_key(strangers, level):
    texts = [*TEXTS, "one \ufffd two"]
    encoders = {n: Encoder(f, layers=[0, 3], level=level) for n, f in strangers.items()}
    stream = fastinn.stream(encoders, Corpus.from_texts(texts), tokens_per_block=40)
    blocks = list(stream)
    assert len(blocks) > 2
    keys = torch.cat([block.keys for block in blocks])
    alone = {name: encoder.encode(texts) for name, encoder in encoders.items()}
    lacking = level == "word"  # BERT drops the sign in the last text, the bytes of RoBERTa do not
    assert stream.left_out == {"bert": 0, "roberta": int(lacking)}
    assert torch.equal(keys, alone["bert"].keys)
    of_roberta = alone["roberta"].rows[3]
    if lacking:
        of_roberta = torch.cat([of_roberta[:-2], of_roberta[-1:]])
    rows = {n: torch.cat([block.rows[n, 3] for block in blocks]) for n in encoders}
    torch.testing.assert_close(rows["bert"], alone["bert"].rows[3], atol=1e-5, rtol=0)
    torch.testing.assert_close(rows["roberta"], of_roberta, atol=1e-5, rtol=0)


def test_different_levels_are_refused(seeds, corpus):
    encoders = {lv: Encoder(seeds[0], layers=[0], level=lv) for lv in ("token", "word")}
    with pytest.raises(ValueError, match="token reads level 'token' and word reads 'word'"):
        fastinn.stream(encoders, corpus)


def test_places_are_those_of_the_documents(encoders, corpus):
    places = {document.number: document.place for document in corpus}
    for block in fastinn.stream(encoders, corpus, tokens_per_block=20):
        assert block.places == {n: places[n] for n in block.documents.unique().tolist()}


def test_stalls_are_a_share(encoders, corpus):
    stream = fastinn.stream(encoders, corpus, tokens_per_block=20)
    assert stream.stall_share == 0
    list(stream)
    assert 0 < stream.stall_share < 1


def test_a_stream_that_is_left_can_be_read_again(encoders, corpus):
    stream = fastinn.stream(encoders, corpus, tokens_per_block=20)
    first = next(iter(stream))
    equal_blocks(next(iter(stream)), first)


def test_identity_tells_texts_weights_and_rounding_apart(seeds, corpus):
    def identity(folder, text, precision="exact"):
        return fastinn.stream(
            {"seed": Encoder(folder, layers=[1], precision=precision)}, text
        ).identity()

    found = [
        identity(seeds[0], corpus),
        identity(seeds[0], corpus.head(3)),
        identity(seeds[0], corpus.head(4)),
        identity(seeds[1], corpus),
        identity(seeds[0], corpus, "fast"),
    ]
    assert len({str(each) for each in found}) == len(found)
    assert identity(seeds[0], corpus) == found[0]


def test_identity_follows_weights_that_are_replaced_in_place(seeds, corpus, tmp_path):
    folder = tmp_path / "seed"
    shutil.copytree(seeds[0], folder)
    before = fastinn.stream({"seed": Encoder(str(folder), layers=[1])}, corpus).identity()
    shutil.copytree(seeds[1], folder, dirs_exist_ok=True)
    after = fastinn.stream({"seed": Encoder(str(folder), layers=[1])}, corpus).identity()
    assert before != after
