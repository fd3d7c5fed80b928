import json
import warnings

import pytest

from fastinn import Corpus
from fastinn.embed.corpus import SPLITS
from fastinn.embed.python_docs import documents

FILES = {
    "c.txt": "first\n\nsecond\n",
    "c.jsonl": '{"text": "first"}\n\n{"text": "second", "other": 1}\n',
    "c.csv": 'id,text\n1,first\n2,"second"\n',
    "c.tsv": "text\tlabel\nfirst\t0\nsecond\t1\n",
}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_documents(write, name):
    corpus = Corpus.from_file(write(name, FILES[name]))
    assert [document.text for document in corpus] == ["first", "second"]


def test_a_corpus_can_be_read_again(write):
    corpus = Corpus.from_file(write("c.txt", FILES["c.txt"]))
    assert list(corpus) == list(corpus)


def test_splits_share_no_document_and_lose_none():
    corpus = Corpus.from_texts([f"text {i}" for i in range(500)])
    parts = [{d.number for d in corpus.split(split)} for split in SPLITS]
    assert sum(map(len, parts)) == 500
    assert set.union(*parts) == set(range(500))
    assert 0.6 < len(parts[0]) / 500 < 0.8


def test_equal_texts_share_a_split():
    corpus = Corpus.from_texts([f"text {i % 50}" for i in range(500)])
    train = {d.text for d in corpus.split("train")}
    assert train.isdisjoint(d.text for d in corpus.split("test"))


def test_head_and_split_apply_in_order():
    corpus = Corpus.from_texts([f"text {i}" for i in range(100)])
    assert len(list(corpus.split("test").head(5))) == 5
    assert {d.number for s in SPLITS for d in corpus.head(30).split(s)} == set(range(30))


def test_fingerprint_follows_the_text():
    one, other = Corpus.from_texts(["a", "b"]), Corpus.from_texts(["a", "c"])
    assert one.fingerprint() == Corpus.from_texts(["a", "b"]).fingerprint()
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.campaign("R10")
def test_a_line_that_is_not_utf8_is_named(write):
    path = write("c.txt", b"good\n\xff\xfe bad\nalso good\n")
    with pytest.warns(UserWarning, match=r"c\.txt:2 left out"):
        texts = [document.text for document in Corpus.from_file(path)]
    assert texts == ["good", "also good"]


BAD = {
    "empty": ("c.txt", "", "holds no text"),
    "blank": ("c.txt", " \n\n", "holds no text"),
    "ending": ("c.doc", "text", "'.doc', expected one of .txt"),
    "json": ("c.jsonl", "{text}\n", r"c\.jsonl:1 is not JSON"),
    "field": ("c.jsonl", json.dumps({"body": "x"}), r"c\.jsonl:1 has no text under 'text'"),
    "column": ("c.csv", "a,b\n1,2\n", "no column 'text', its first line names a, b"),
}


@pytest.mark.campaign("R10")
@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_bad_files_are_named(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        list(Corpus.from_file(write(name, content)))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt is not a file"):
        Corpus.from_file(tmp_path / "nothing.txt")


def test_split_that_no_document_falls_into_is_named():
    with pytest.raises(ValueError, match=r"texts/test holds no text; give .* more documents"):
        list(Corpus.from_texts(["one"]).split("test"))


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="'dev', expected one of 'train'"):
        Corpus.from_texts(["a"]).split("dev")


@pytest.fixture(scope="module")
def python_docs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return list(documents())


def test_python_docs_is_a_real_corpus(python_docs):
    assert sum(len(text) for _, text in python_docs) > 1_000_000
    assert len({name for name, _ in python_docs}) == len(python_docs)


def test_python_docs_repeats_no_paragraph(python_docs):
    paragraphs = [
        " ".join(p.lower().split()) for _, text in python_docs for p in text.split("\n\n")
    ]
    assert len(set(paragraphs)) == len(paragraphs)
