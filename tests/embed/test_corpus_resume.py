"""Reading goes on from any document with exactly the rest, whatever was narrowed."""

import bz2
import contextlib
import gzip
import lzma
from itertools import chain

import pytest
from corpus_files import BAD, WRITE
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fastinn import Corpus
from fastinn.embed import Cursor
from fastinn.embed.corpus import BEGINNING, SPLITS

pytestmark = pytest.mark.filterwarnings("ignore:.*left out")

settings = hypothesis_settings(max_examples=60, deadline=None)

WORDS = st.text(alphabet="ab \t\",'\\{é😀\0\x85\u2028", max_size=8)
SEVERAL_LINES = st.lists(WORDS, min_size=1, max_size=3).map("\n".join)


def records_of(kind):
    """Texts, blank ones and ones that are not UTF-8; of several lines where the format can."""
    without_tabs = WORDS.map(lambda text: text.replace("\t", " "))
    text = {"txt": WORDS, "tsv": without_tabs}.get(kind, SEVERAL_LINES)
    return st.lists(st.one_of(text, st.just(""), st.just(BAD)), max_size=12)


def expected(records):
    return [r for r in records if isinstance(r, str) and r.strip()]


def read(corpus, start=BEGINNING):
    """Documents behind ``start``; a corpus without any text gives none."""
    with contextlib.suppress(ValueError):
        return list(corpus.documents(start))
    return []


def goes_on_from_anywhere(corpus):
    whole = read(corpus)
    for i, document in enumerate(whole):
        assert read(corpus, document.end) == whole[i + 1 :]
    return whole


def write(folder, kind, parts, **how):
    pytest.importorskip("pyarrow" if kind == "parquet" else "csv")
    paths = [folder / f"{i}.{kind}" for i in range(len(parts))]
    for path, records in zip(paths, parts, strict=True):
        path.write_bytes(WRITE[kind](records, **how))
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.parametrize("kind", WRITE)
@settings
@given(data=st.data(), eol=st.sampled_from(["\n", "\r\n"]), final=st.booleans())
def test_every_cursor_gives_the_rest(folder, kind, data, eol, final):
    first = ["start"]  # a first record that is bad is an error
    parts = data.draw(st.lists(records_of(kind).map(lambda r: first + r), min_size=1, max_size=3))
    corpus = Corpus.from_files(write(folder, kind, parts, eol=eol, final=final))
    documents = goes_on_from_anywhere(corpus)
    records = [r for part in parts for r in part]
    assert [d.text for d in documents] == expected(records)
    if final or kind != "txt":  # an empty record at the end of a text without an end is no line
        assert [records[d.number] for d in documents] == expected(records)


NARROWINGS = {
    "split": lambda c: c.split("train"),
    "head": lambda c: c.head(70),
    "shard": lambda c: c.shard(1, 2),
    "split of a head": lambda c: c.head(200).split("train"),
    "head of a split": lambda c: c.split("train").head(90),
    "shard of a head of a split": lambda c: c.split("train").head(150).shard(0, 2),
    "head of a shard of a shard": lambda c: c.shard(0, 2).shard(1, 2).head(20),
}


@pytest.mark.parametrize("narrow", NARROWINGS.values(), ids=NARROWINGS)
def test_narrowed_corpora_go_on_too(narrow):
    texts = [f"text {i}" if i % 5 else "" for i in range(400)]
    assert len(goes_on_from_anywhere(narrow(Corpus.from_texts(texts)))) > 10


def test_a_narrowed_corpus_goes_on_from_a_cursor_of_the_whole():
    corpus = Corpus.from_texts([f"text {i}" for i in range(300)])
    cursor = list(corpus)[99].end
    for narrow in NARROWINGS.values():
        narrowed = narrow(corpus)
        rest = [d for d in narrowed if d.number > 99]
        assert list(narrowed.documents(cursor)) == rest


@settings
@given(n=st.integers(0, 700), count=st.integers(1, 9))
def test_shards_share_no_document_and_lose_none(n, count):
    corpus = Corpus.from_texts([f"text {i}" for i in range(n)])
    shards = [[d.number for d in corpus.shard(i, count)] for i in range(count)]
    assert sorted(chain(*shards)) == list(range(n))
    assert all(shard == sorted(shard) for shard in shards)
    assert max(map(len, shards)) - min(map(len, shards)) <= 64


@settings
@given(count=st.integers(1, 4), inner=st.integers(1, 4))
def test_shards_of_shards_share_no_document_and_lose_none(count, inner):
    corpus = Corpus.from_texts([f"text {i}" for i in range(1500)])
    found = [
        d.number
        for i in range(count)
        for j in range(inner)
        for d in corpus.shard(i, count).shard(j, inner)
    ]
    assert sorted(found) == list(range(1500))


@settings
@given(split=st.sampled_from(list(SPLITS)), index=st.integers(0, 2), start=st.integers(0, 500))
def test_splits_shards_and_resuming_commute(split, index, start):
    corpus = Corpus.from_texts([f"text {i}" for i in range(500)])
    cursor = Cursor(start, row=start)
    one = read(corpus.split(split).shard(index, 3), cursor)
    assert one == read(corpus.shard(index, 3).split(split), cursor)
    assert one == [d for d in read(corpus.split(split).shard(index, 3)) if d.number >= start]


@pytest.mark.parametrize("index", [-1, 3])
def test_unknown_shard_is_named(index):
    with pytest.raises(ValueError, match=f"shard {index} of 3 does not exist, expected 0 to 2"):
        Corpus.from_texts(["a"]).shard(index, 3)


def test_fingerprints_of_narrowed_corpora_differ():
    corpus = Corpus.from_texts([f"text {i}" for i in range(300)])
    parts = [corpus, corpus.head(100), corpus.split("test"), corpus.shard(0, 2), corpus.shard(1, 2)]
    assert len({part.fingerprint() for part in parts}) == 5
    assert (
        corpus.head(100).fingerprint()
        == Corpus.from_texts(d.text for d in corpus.head(100)).fingerprint()
    )


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed_files_go_on_too(tmp_path, kind, ending, compress):
    path = tmp_path / f"c.{kind}.{ending}"
    path.write_bytes(compress(WRITE[kind](["one", "two", "", "three"])))
    documents = goes_on_from_anywhere(Corpus.from_file(path))
    assert [d.text for d in documents] == ["one", "two", "three"]


def test_resuming_does_not_read_what_is_behind(tmp_path):
    """What is in front of the cursor may be anything: it is not looked at."""
    path = tmp_path / "c.txt"
    path.write_text("one\ntwo\nthree\n")
    corpus = Corpus.from_file(path)
    second = list(corpus)[1]
    path.write_bytes(b"\xff\n\xff\xff\xff\xff\xff\nthree\n")
    assert [d.text for d in corpus.documents(second.end)] == ["three"]


CHANGED = {
    "shorter": ("one\n", "no line ends at byte 8"),
    "other lines": ("one and two\nthree\n", "no line ends at byte 8"),
}


@pytest.mark.parametrize(("content", "message"), CHANGED.values(), ids=CHANGED)
def test_a_file_that_has_changed_is_named(tmp_path, content, message):
    path = tmp_path / "c.txt"
    path.write_text("one\ntwo\nthree\n")
    corpus = Corpus.from_file(path)
    second = list(corpus)[1]
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"cannot go on in .*c\.txt: {message}"):
        list(corpus.documents(second.end))


def test_a_cursor_of_more_files_is_refused(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("one\n")
    with pytest.raises(ValueError, match=r"cannot go on in c\.txt: it has 1 file"):
        list(Corpus.from_file(path).documents(Cursor(number=9, file=1)))
