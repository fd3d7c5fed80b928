"""What is left out of a corpus is named and counted, and what cannot be read is an error."""

import gzip
import tracemalloc
import warnings

import pytest
from corpus_files import BAD, WRITE
from hypothesis import given
from hypothesis import strategies as st

from fastinn import Corpus
from fastinn.embed import Cursor, read_labelled
from fastinn.embed.corpus import SPLITS
from fastinn.embed.corpus.quoting import Quoting
from fastinn.embed.corpus.table import read_table


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read(corpus):
    """Texts of ``corpus`` and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return [d.text for d in corpus], [str(w.message) for w in caught]


LINES = {
    "not UTF-8": ("c.txt", b"good\nb\xffd\nalso good\n", "it is not UTF-8 at character 2"),
    "too long": ("c.txt", "good\n" + "x" * 101 + "\nalso good\n", "longer than max_characters"),
    "far too long": ("c.txt", "good\n" + "x" * 9999 + "\nalso good\n", "longer than max_char"),
    "not JSON": ("c.jsonl", '{"text": "good"}\n{"te\n{"text": "also good"}\n', "it is not JSON: "),
    "JSON of too many brackets": (
        "c.jsonl",
        '{"text": "good"}\n' + "[" * 1500 + '\n{"text": "also good"}\n',
        "it is not JSON: ",
    ),
    "half a surrogate pair": (
        "c.jsonl",
        '{"text": "good"}\n{"text": "\\ud83d"}\n{"text": "also good"}\n',
        "it is not UTF-8 at character 1",
    ),
    "no such field": (
        "c.jsonl",
        '{"text": "good"}\n{"body": "x"}\n{"text": "also good"}\n',
        "it has no text under 'text'",
    ),
    "a number": (
        "c.jsonl",
        '{"text": "good"}\n{"text": 1}\n{"text": "also good"}\n',
        "it has no text under 'text'",
    ),
    "a field too many": ("c.csv", "text\ngood\nb,c\nalso good\n", "it has 2 fields"),
    "a field too few": ("c.csv", "id,text\n1,good\n2\n3,also good\n", "it has 1 fields"),
    "a lone carriage return": ("c.csv", "text\ngood\na\rb\nalso good\n", "it is no row"),
    "a long field": (
        "c.csv",
        'text\ngood\n"' + 50 * "some, words\n" + '"\nalso good\n',
        "it is longer than",
    ),
    "a very long field": (
        "c.csv",
        'id,text\n1,good\n2,"' + 900 * 'some, ""words""\n' + '"\n3,also good\n',
        "it is longer than",
    ),
    "a field that ends in a long line": (
        "c.csv",
        'text,id\ngood,1\n"a\n' + "x" * 9999 + '",2\nalso good,3\n',
        "it is longer than",
    ),
    "a field that begins in a long line": (
        "c.csv",
        "text,id\ngood,1\n" + "x" * 9999 + ',"2\nfragment,2"\nalso good,3\n',
        "it is longer than",
    ),
    "a quote within a field of a long line": (
        "c.csv",
        'text,id\ngood,1\n5" wide' + "x" * 9999 + ",2\nalso good,3\n",
        "it is longer than",
    ),
    "a quote within a field of a long record": (
        "c.csv",
        'text,id\ngood,1\n"' + 150 * "some, words\n" + '",5" wide\nalso good,3\n',
        "it is longer than",
    ),
    "a long line in a field": (
        "c.csv",
        'id,text\n1,good\n2,"a\n' + "x" * 9999 + '\nb"\n3,also good\n',
        "it is longer than",
    ),
}


@pytest.mark.campaign("R10")
@pytest.mark.parametrize(("name", "content", "message"), LINES.values(), ids=LINES)
def test_a_bad_record_is_named_and_left_out(write, name, content, message):
    path = write(name, content)
    corpus = Corpus.from_file(path, max_characters=100)
    texts, warned = read(corpus)
    assert texts == ["good", "also good"]
    line = {"c.csv": 3}.get(name, 2)
    assert len(warned) == 1
    assert warned[0].startswith(f"{path}:{line} left out: ")
    assert message in warned[0]
    (left_out,) = corpus.reading.left_out.values()
    assert (left_out.count, left_out.places) == (1, [f"{path}:{line}"])


@pytest.mark.campaign("R10")
@pytest.mark.parametrize("kind", WRITE)
def test_bad_and_blank_records_are_counted_in_every_format(write, kind):
    pytest.importorskip("pyarrow" if kind == "parquet" else "csv")
    content = WRITE[kind](["good", BAD, "", "x" * 101, "also good"])
    corpus = Corpus.from_file(write(f"c.{kind}", content), max_characters=100)
    assert read(corpus)[0] == ["good", "also good"]
    counts = {reason: left_out.count for reason, left_out in corpus.reading.left_out.items()}
    assert counts == {"not UTF-8": 1, "blank": 1, "too long": 1}
    assert (corpus.reading.documents, corpus.reading.characters) == (2, 13)


@given(lines=st.lists(st.text('ab",', max_size=40), max_size=12), longest=st.integers(4, 40))
def test_records_end_where_they_do_however_many_are_too_long(tmp_path_factory, lines, longest):
    path = tmp_path_factory.mktemp("c") / "c.csv"
    path.write_text("\n".join(["text", *lines, ""]))
    places, expected = (
        [(row.line, row.row, row.byte) for row in read_table(str(path), "text", most, Cursor())]
        for most in (longest, 10_000)
    )
    assert places == expected


@pytest.mark.parametrize("size", [1, 2, 3])
@given(text=st.text('ab",', max_size=20), is_open=st.booleans())
def test_pieces_of_a_line_have_the_quotes_of_the_whole(size, text, is_open):
    whole, divided = Quoting(is_open), Quoting(is_open)
    whole.read(text.encode())
    for i in range(0, len(text), size):
        divided.read(text[i : i + size].encode())
    assert divided.is_open == whole.is_open


@pytest.mark.campaign("R10")
def test_a_quote_that_is_never_closed_swallows_nothing_unseen(write):
    path = write("c.csv", 'id,text\n1,good\n2,"open\n3,lost\n')
    corpus = Corpus.from_file(path)
    texts, warned = read(corpus)
    assert texts == ["good"]
    assert warned == [f"{path}:3 left out: it opens a quote that is never closed"]


@pytest.mark.campaign("R10")
def test_a_line_of_10_mb_is_left_out_by_default(write):
    path = write("c.txt", b"good\n" + b"x" * 10_000_000 + b"\nalso good")
    texts, warned = read(Corpus.from_file(path))
    assert texts == ["good", "also good"]
    assert warned == [f"{path}:2 left out: it is longer than max_characters allows"]


LONG = {
    "line": ("c.txt", b"good\n" + b"x" * 30_000_000 + b"\nalso good\n"),
    "line of a table": ("c.csv", b"text\ngood\n" + b"x" * 30_000_000 + b"\nalso good\n"),
    "field": ("c.csv", b'text\ngood\n"' + b"some words\n" * 100_000 + b'"\nalso good\n'),
}


@pytest.mark.campaign("R10")
@pytest.mark.parametrize(("name", "content"), LONG.values(), ids=LONG)
def test_what_is_too_long_is_not_held_in_memory(write, name, content):
    corpus = Corpus.from_file(write(name, content), max_characters=1000)
    tracemalloc.start()
    try:
        texts, _ = read(corpus)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert texts == ["good", "also good"]
    assert peak < len(content) / 5


def test_only_the_first_places_are_named(write):
    corpus = Corpus.from_file(write("c.txt", b"\xff\n" * 5000 + b"good\n"))
    _, warned = read(corpus)
    assert len(warned) == 3
    assert warned[-1].endswith("more of the kind are only counted")
    assert corpus.reading.left_out["not UTF-8"].count == 5000
    assert len(corpus.reading.left_out["not UTF-8"].places) == 3


def test_blank_lines_are_counted_without_a_warning(write):
    corpus = Corpus.from_file(write("c.txt", "a\n\n \nb\n"))
    assert read(corpus) == (["a", "b"], [])
    assert corpus.reading.left_out["blank"].count == 2


def test_reading_again_counts_once(write):
    corpus = Corpus.from_file(write("c.txt", b"a\n\xff\n\nb\nc\n"))
    with pytest.warns(UserWarning, match="left out"):
        documents = list(corpus)
    before = str(corpus.reading)
    for again in (corpus, corpus.head(2), corpus.head(9)):
        assert read(again)[1] == []
    list(corpus.documents(documents[1].end))
    assert str(corpus.reading) == before


def test_readings_of_shards_add_up(write):
    corpus = Corpus.from_file(write("c.txt", b"a\n\xff\n\n" * 300))
    shards = [corpus.shard(i, 3) for i in range(3)]
    for shard in shards:
        read(shard)
    for reason in ("not UTF-8", "blank"):
        assert sum(shard.reading.left_out[reason].count for shard in shards) == 300
    assert sum(shard.reading.documents for shard in shards) == 300


def test_a_shard_that_is_read_split_by_split_counts_once(write):
    """Also beside the corpus, whose beginning is read to tell what the rest takes."""
    corpus = Corpus.from_file(write("c.txt", b"a\n\xff\n\n" * 300))
    next(iter(corpus))
    for index in range(3):
        for split in SPLITS:
            read(corpus.split(split).shard(index, 3))
    assert corpus.readings.keys() == {"", "0/3", "1/3", "2/3"}
    shards = [corpus.shard(index, 3).reading for index in range(3)]
    assert sum(shard.documents for shard in shards) == 300
    assert sum(shard.left_out["not UTF-8"].count for shard in shards) == 300


def test_a_resumed_reading_names_the_right_lines(write):
    path = write("c.csv", b'id,text\n1,"a\nb"\n2,c\n3,\xff\n')
    corpus = Corpus.from_file(path)
    first = next(iter(corpus))
    with pytest.warns(UserWarning, match=r"c\.csv:5 left out"):
        list(Corpus.from_file(path).documents(first.end))


def test_reading_in_words(write):
    path = write("c.txt", b"a\n" + b"\n" * 1200 + b"\xff\nbc\n")
    corpus = Corpus.from_file(path)
    read(corpus)
    assert str(corpus.reading) == (
        f"read 2 documents of 3 characters; left out 1,200 blank ({path}:2, {path}:3, {path}:4, "
        f"...), 1 not UTF-8 ({path}:1202)"
    )
    whole = Corpus.from_texts(["a"])
    list(whole)
    assert str(whole.reading) == "read 1 documents of 1 characters; left out nothing"


ODD = {
    "byte order mark": ("c.txt", b"\xef\xbb\xbffirst\nsecond\n"),
    "byte order mark in JSON": ("c.jsonl", b'\xef\xbb\xbf{"text":"first"}\n{"text":"second"}'),
    "byte order mark in a table": ("c.csv", b"\xef\xbb\xbftext\nfirst\nsecond"),
    "carriage returns": ("c.txt", b"first\r\n\r\nsecond\r\n"),
    "no final line end": ("c.txt", b"first\nsecond"),
    "upper case ending": ("c.TXT", b"first\nsecond\n"),
    "null in JSON": ("c.jsonl", b'{"text":"first"}\n{"text":null}\n{"text":"second"}\n'),
    "blank line in a table": ("c.csv", b"id,text\n1,first\n\n2,second\n"),
    "other column bad": ("c.csv", b"id,text\n\xff,first\n2,second\n"),
}


@pytest.mark.campaign("R10")
@pytest.mark.parametrize(("name", "content"), ODD.values(), ids=ODD)
def test_odd_files_are_read(write, name, content):
    assert read(Corpus.from_file(write(name, content))) == (["first", "second"], [])


@pytest.mark.campaign("R10")
def test_nul_bytes_are_text(write):
    assert read(Corpus.from_file(write("c.txt", b"a\0b\n\0\n")))[0] == ["a\0b", "\0"]


def test_long_fields_of_tables_are_read(write):
    path = write("c.csv", f"text\n{'x' * 200_000}\n")
    assert [len(text) for text in read(Corpus.from_file(path))[0]] == [200_000]


@pytest.mark.campaign("R10")
@pytest.mark.parametrize("name", ["c.txt", "c.jsonl", "c.csv", "c.tsv", "c.txt.gz"])
def test_an_empty_file_is_nothing_among_others(write, name):
    empty = write(name, gzip.compress(b"") if name.endswith("gz") else b"")
    corpus = Corpus.from_files([empty, write("d.txt", "text\n"), empty])
    (document,) = corpus
    assert document.end == Cursor(1, 1, 1, 5)
    assert list(corpus.documents(document.end)) == []


BROKEN = {
    "UTF-16": ("c.txt", "text\n".encode("utf-16"), ValueError, "c.txt is UTF-16; convert it"),
    "a page, not JSON": ("c.jsonl", b"<html>\n", ValueError, "c.jsonl:1 is not JSON"),
    "a list": ("c.jsonl", b'\n["text"]\n', ValueError, "c.jsonl:2 has no text under 'text'"),
    "no header": ("c.csv", b"\n1,2\n", ValueError, "c.csv has no column 'text'"),
    "not compressed": ("c.txt.gz", b"text\n", OSError, "c.txt.gz cannot be read"),
    "cut": ("c.txt.gz", gzip.compress(b"text\n" * 99)[:-9], OSError, "c.txt.gz cannot be read"),
    "cut xz": ("c.txt.xz", b"\xfd7zXZ\0", OSError, "c.txt.xz cannot be read"),
}


@pytest.mark.campaign("R10")
@pytest.mark.parametrize(("name", "content", "error", "message"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_an_error_that_names_it(write, name, content, error, message):
    with pytest.raises(error, match=message.replace(".", r"\.")):
        list(Corpus.from_file(write(name, content)))


def test_files_are_tried_before_the_first_is_read(write):
    good, bad = write("a.csv", "text\ngood\n"), write("b.csv", "body\nx\n")
    with pytest.raises(ValueError, match=r"b\.csv has no column 'text'"):
        Corpus.from_files([good, bad])


def test_quotes_of_a_tsv_are_text_as_in_labelled_files(write):
    """Texts with odd quotes are common there, and one must not swallow the lines that follow."""
    texts = ['" said he', 'the "first" quote ends', "plain", '"x', 'y" z']
    path = write("c.tsv", "text\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    assert read(Corpus.from_file(path)) == (texts, [])
    assert read_labelled(path).texts == texts
