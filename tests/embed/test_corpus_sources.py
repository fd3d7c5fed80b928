"""Corpora of folders, parquet files, data sets and remote files."""

import json
import sys

import pytest
from corpus_files import BAD, WRITE

from fastinn import Corpus
from fastinn.embed import Cursor


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def texts(corpus):
    return [document.text for document in corpus]


def test_a_folder_stands_for_its_files_in_order_of_name(write, tmp_path):
    write("b.txt", "three\n")
    write("a/2.csv", "text\ntwo\n")
    write("a/1.jsonl", '{"text": "one"}\n')
    write("a/README.md", "no text\n")
    write("a/.1.jsonl", "no text\n")
    write(".cache/0.txt", "no text\n")
    corpus = Corpus.from_file(tmp_path)
    assert texts(corpus) == ["one", "two", "three"]
    assert corpus.name == tmp_path.name
    assert [document.end.file for document in corpus] == [0, 1, 2]


@pytest.mark.parametrize("given", [".", "./", "sub/..", "../here", "link/.."])
def test_a_folder_is_called_by_its_name_however_it_is_given(write, tmp_path, monkeypatch, given):
    write("here/sub/a.txt", "one\n")
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "link").symlink_to("sub")
    assert Corpus.from_file(given).name == "here"


def test_a_link_has_a_name_of_its_own(write, tmp_path):
    """As files in caches have, which are links to what is called by its hash."""
    (tmp_path / "wiki.txt").symlink_to(write("0f3a.txt", "one\n"))
    assert Corpus.from_file(tmp_path / "wiki.txt").name == "wiki.txt"


@pytest.mark.parametrize("odd", ["\u00a0", "\n", "\x1b", "\udcff"])
def test_names_can_be_printed_whatever_files_are_called(write, odd):
    corpus = Corpus.from_file(write(f"a{odd}b.txt", "one\n"))
    assert corpus.name == "a?b.txt"
    assert texts(corpus) == ["one"]


def test_a_folder_without_text_is_named(write, tmp_path):
    write("README.md", "no text\n")
    with pytest.raises(ValueError, match="holds no file that can be read, expected one of"):
        Corpus.from_file(tmp_path)


def test_several_files_are_one_corpus(write):
    corpus = Corpus.from_files([write("b.txt", "one\n\n"), write("a.txt", "two\nthree\n")])
    assert corpus.name == "b.txt+1"
    assert [(d.number, d.text) for d in corpus] == [(0, "one"), (2, "two"), (3, "three")]


def test_no_file_at_all_is_refused():
    with pytest.raises(ValueError, match="there is no file to read; give at least one path"):
        Corpus.from_files([])


@pytest.fixture
def memory():
    """A file system behind a scheme."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/corpus", recursive=True)


@pytest.mark.parametrize("kind", WRITE)
def test_remote_files_are_read_and_resumed(memory, kind):
    pytest.importorskip("pyarrow" if kind == "parquet" else "csv")
    memory.pipe(f"/corpus/b.{kind}", WRITE[kind](["one", "two", "three"]))
    memory.pipe("/corpus/a.txt", b"zero\n")
    memory.pipe("/corpus/.hidden.txt", b"nothing\n")
    corpus = Corpus.from_file("memory://corpus")
    documents = list(corpus)
    assert [d.text for d in documents] == ["zero", "one", "two", "three"]
    for i, document in enumerate(documents):
        assert list(corpus.documents(document.end)) == documents[i + 1 :]
    assert texts(Corpus.from_file(f"memory://corpus/b.{kind}")) == ["one", "two", "three"]


def test_missing_remote_file_is_named(memory):
    memory.pipe("/corpus/a.txt", b"zero\n")
    with pytest.raises(FileNotFoundError, match=r"memory://corpus/b\.txt is not a file"):
        Corpus.from_file("memory://corpus/b.txt")


def write_table(path, columns, **how):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table(columns), path, **how)
    return path


def test_only_row_groups_behind_the_cursor_are_read(write):
    """Those in front of it may be broken: nothing looks at them."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = write("c.parquet", WRITE["parquet"]([f"text {i}" for i in range(9)]))
    corpus = Corpus.from_file(path)
    documents = list(corpus)
    first_group = parquet.ParquetFile(path).metadata.row_group(0).column(1)
    with path.open("rb+") as file:
        file.seek(first_group.dictionary_page_offset)
        file.write(bytes(20))
    assert list(corpus.documents(documents[3].end)) == documents[4:]
    with pytest.raises((ValueError, OSError), match=r"c\.parquet cannot be read"):
        list(corpus)


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
def test_every_arrow_kind_of_text_is_read(tmp_path, kind):
    pyarrow = pytest.importorskip("pyarrow")
    column = pyarrow.array(["one", None, "two", "one"])
    if kind == "dictionary":
        column = column.dictionary_encode()
    else:
        column = column.cast(getattr(pyarrow, kind)())
    corpus = Corpus.from_file(write_table(tmp_path / "c.parquet", {"text": column}))
    assert texts(corpus) == ["one", "two", "one"]
    assert corpus.reading.left_out["blank"].count == 1


TABLES = {
    "other name": ({"body": ["x"], "n": [1]}, "has no column 'text', its columns are body, n"),
    "numbers": ({"text": [1, 2]}, "column 'text' of .* holds int64, expected text"),
}


@pytest.mark.parametrize(("columns", "message"), TABLES.values(), ids=TABLES)
def test_a_parquet_file_without_the_column_is_named(tmp_path, columns, message):
    path = write_table(tmp_path / "c.parquet", columns)
    with pytest.raises(ValueError, match=message):
        Corpus.from_file(path)
    pytest.importorskip("datasets")
    with pytest.raises(ValueError, match=message):
        Corpus.from_dataset("parquet", data_files=str(path))


def test_what_is_no_parquet_file_is_named(write):
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"c\.parquet cannot be read as parquet"):
        Corpus.from_file(write("c.parquet", "text\n"))


def test_a_parquet_file_that_has_become_shorter_is_named(tmp_path):
    path = write_table(tmp_path / "c.parquet", {"text": ["one", "two"]})
    corpus = Corpus.from_file(path)
    with pytest.raises(ValueError, match=r"cannot go on in .*c\.parquet: it has 2 rows, not 3"):
        list(corpus.documents(Cursor(3, 0, 3)))


def rows(number):
    return [f"text {number}-{i}" if i % 7 else None for i in range(250 * number + 10)]


@pytest.fixture(params=["parquet", "json"])
def shards(request, tmp_path):
    """A builder of ``datasets``, and three files for it that hold 10, 260 and 510 rows."""
    pytest.importorskip("datasets")
    paths = [tmp_path / f"{i}.{request.param}" for i in range(3)]
    for number, path in enumerate(paths):
        if request.param == "parquet":
            texts = rows(number)
            numbers = list(range(len(texts)))
            write_table(path, {"n": numbers, "text": texts}, row_group_size=100)
        else:
            path.write_text("".join(json.dumps({"n": 1, "text": t}) + "\n" for t in rows(number)))
    return request.param, [str(path) for path in paths]


def test_data_sets_are_read_and_resumed(shards):
    """The shards hold the rows that the data set read as a whole does, in its order."""
    import datasets

    builder, files = shards
    corpus = Corpus.from_dataset(builder, data_files=files)
    documents = list(corpus)
    whole = datasets.load_dataset(builder, data_files=files, split="train", streaming=True)
    read = {number: row["text"] for number, row in enumerate(whole) if row["text"]}
    assert {d.number: d.text for d in documents} == read
    assert list(read.values()) == [t for number in range(3) for t in rows(number) if t]
    for i in [0, 1, 7, 8, 9, 40, 231, 232, 300, len(documents) - 1]:
        assert list(corpus.documents(documents[i].end)) == documents[i + 1 :]
    assert corpus.reading.left_out["blank"].count == 780 - len(documents)


def test_data_sets_and_files_give_the_same_documents(shards):
    builder, files = shards
    dataset = Corpus.from_dataset(builder, data_files=files)
    if builder == "parquet":
        assert dataset.fingerprint() == Corpus.from_files(files).fingerprint()
    assert dataset.name == f"{builder} train"


def test_bad_rows_of_a_data_set_are_left_out(write):
    pytest.importorskip("datasets")
    path = write("c.parquet", WRITE["parquet"](["good", BAD, "", "also good"]))
    corpus = Corpus.from_dataset("parquet", data_files=str(path))
    with pytest.warns(UserWarning, match="parquet train, shard 0:2 left out: it is not UTF-8"):
        assert texts(corpus) == ["good", "also good"]


def test_a_data_set_that_breaks_off_is_named(write):
    pytest.importorskip("datasets")
    files = write("a.json", '{"text": "good"}\n'), write("b.json", "no JSON\n")
    corpus = Corpus.from_dataset("json", data_files=[str(path) for path in files])
    with pytest.raises(ValueError, match=r"json train cannot be read: .*from_files"):
        list(corpus)


def test_a_cursor_of_more_shards_is_refused(shards):
    builder, files = shards
    with pytest.raises(ValueError, match=r"cannot go on in .* train: it has 3 shards"):
        list(Corpus.from_dataset(builder, data_files=files).documents(Cursor(9, 3)))


MISSING = {
    "pyarrow": ("arrow", lambda path: Corpus.from_file(path)),
    "datasets": ("datasets", lambda path: Corpus.from_dataset("parquet", data_files=str(path))),
}


@pytest.mark.parametrize("module", MISSING)
def test_a_missing_package_is_named(monkeypatch, write, module):
    extra, read = MISSING[module]
    path = write("c.parquet", b"")
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"takes {module}.*pip install 'fastinn\[{extra}\]'"):
        read(path)


def test_hidden_files_are_left_out_of_the_current_folder(write, tmp_path, monkeypatch):
    for name in ("seen.txt", ".hidden.txt", ".venv/lib/inside.txt", "sub/.git/inside.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    monkeypatch.chdir(tmp_path)
    for folder in (".", "./", "sub/..", str(tmp_path)):
        assert [document.text for document in Corpus.from_file(folder)] == ["seen.txt"]
