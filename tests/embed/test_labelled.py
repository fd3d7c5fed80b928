import csv
import json

import pytest

from fastinn.embed.labelled import read_labelled

EXPECTED = (["one, two", 'say "three'], ["0", "1"])
FILES = {
    "tsv": ("a.tsv", 'one, two\t0\nsay "three\t1\n'),
    "tsv, header": ("a.tsv", 'label\ttext\n0\tone, two\n1\tsay "three\n'),
    "tsv, more columns": ("a.tsv", 'text\tplace\tlabel\none, two\tx\t0\nsay "three\ty\t1\n'),
    "tsv, blank lines, \\r\\n": ("a.tsv", '\r\none, two\t0\r\n\r\nsay "three\t1\r\n'),
    "csv": ("a.csv", '"one, two",0\n"say ""three",1\n'),
    "csv, header": ("a.csv", 'text,label\n"one, two",0\n"say ""three",1\n'),
    "jsonl": (
        "a.jsonl",
        '{"text": "one, two", "label": 0}\n\n{"label": "1", "text": "say \\"three"}\n',
    ),
}


@pytest.mark.parametrize(("name", "content"), FILES.values(), ids=FILES)
def test_texts_and_labels_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    found = read_labelled(tmp_path / name)
    assert (found.texts, found.labels) == EXPECTED
    assert found.name == name


def test_columns_can_be_named(tmp_path):
    (tmp_path / "a.tsv").write_text("sentence\tclass\nfine\tgood\n")
    found = read_labelled(tmp_path / "a.tsv", text="sentence", label="class")
    assert (found.texts, found.labels) == (["fine"], ["good"])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["10", "9", "10", "2"], ["2", "9", "10"]), (["b", "a", "2"], ["2", "a", "b"])],
    ids=["numbers", "names"],
)
def test_classes_are_in_order(tmp_path, labels, classes):
    rows = [json.dumps({"text": "x", "label": label}) for label in labels]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert read_labelled(tmp_path / "a.jsonl").classes() == classes


MISTAKES = {
    "empty": ("a.tsv", b"", "holds no rows"),
    "header alone": ("a.tsv", b"text\tlabel\n", "holds no rows"),
    "unknown ending": ("a.xml", b"x", r"ends in '.xml', expected one of .tsv, .csv, .jsonl"),
    "no text column": ("a.tsv", b"sentence\tlabel\nx\t1\n", "no column 'text', its first line"),
    "three columns": ("a.tsv", b"a\tb\tc\n", "3 columns and no header that names 'text'"),
    "short row": ("a.tsv", b"x\t1\ny\n", "a.tsv:2 has 1 columns, but the first line has 2"),
    "blank text": ("a.tsv", b"x\t1\n \t0\n", "a.tsv:2 has no text"),
    "blank label": ("a.tsv", b"x\t1\ny\t \n", "a.tsv:2 has no label"),
    "not UTF-8": ("a.tsv", b"x\t1\n\xff\t0\n", "a.tsv:2 is not UTF-8"),
    "not JSON": ("a.jsonl", b'{"text": "x", "label": 1}\n{', "a.jsonl:2 is not JSON"),
    "JSON list": ("a.jsonl", b"[1]", "a.jsonl:1 has no text under 'text'"),
    "fraction": ("a.jsonl", b'{"text": "x", "label": 0.5}', "a.jsonl:1 has no string or whole"),
    "true": ("a.jsonl", b'{"text": "x", "label": true}', "a.jsonl:1 has no string or whole"),
    "csv, an open quote": ("a.csv", b'label,text\n1,x\n0,"open\n1,y\n', "a.csv:3 is no csv"),
    "csv, a lost quote": ("a.csv", b'label,text\n0,"open\n1,"y"\n0,z\n', "a.csv:2 is no csv"),
    "csv over two lines": ("a.csv", b'"x\ny",1\nz\n', "a.csv:3 has 1 columns"),
}


@pytest.mark.parametrize(("name", "content", "message"), MISTAKES.values(), ids=MISTAKES)
def test_bad_files_are_refused_by_name_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_labelled(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.tsv is not a file"):
        read_labelled(tmp_path / "gone.tsv")


def test_a_long_text_is_read_whatever_was_read_before(tmp_path):
    (tmp_path / "a.csv").write_text(f"text,label\n{'x' * 140_000},1\n")
    before = csv.field_size_limit(131_072)
    try:
        assert len(read_labelled(tmp_path / "a.csv").texts[0]) == 140_000
    finally:
        csv.field_size_limit(before)
