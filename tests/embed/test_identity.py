"""What a run goes on with: the same text, whatever it is called."""

import pytest
from tiny_seeds import make_texts

import fastinn
from fastinn import Corpus, Encoder
from fastinn.align import MLPMap
from fastinn.embed.corpus import identity
from fastinn.embed.extraction import extract
from fastinn.study.passes import run_pass


def file_of(folder, content):
    folder.mkdir()
    (folder / "corpus.txt").write_text(content)
    return folder / "corpus.txt"


LONG = "a line\n" * 400_000


@pytest.mark.parametrize(
    "other",
    ["x" + LONG[1:], LONG[:-2] + "x\n", LONG[:1_400_000] + "x" + LONG[1_400_001:], LONG + "more\n"],
    ids=["first", "last", "middle", "longer"],
)
def test_a_changed_file_is_another_text(tmp_path, other):
    one, copy, changed = (
        Corpus.from_file(file_of(tmp_path / name, content)).identity()
        for name, content in (("one", LONG), ("copy", LONG), ("changed", other))
    )
    assert len(LONG) > identity._WHOLE
    assert copy == one
    assert changed != one


def test_column_and_length_of_documents_count(tmp_path):
    path = file_of(tmp_path / "f", "text\n")
    found = [
        Corpus.from_file(path, **options).identity()
        for options in ({}, {"column": "other"}, {"max_characters": 10})
    ]
    assert len(set(found)) == 3


def test_narrowings_share_an_identity():
    corpus = Corpus.from_texts(make_texts(20))
    assert corpus.split("train").shard(0, 2).head(3).identity() == corpus.identity()
    assert Corpus.from_texts([*make_texts(19), "other"]).identity() != corpus.identity()
    assert Corpus.from_texts(["ab", "c"]).identity() != Corpus.from_texts(["a", "bc"]).identity()


def test_a_changed_remote_file_is_another_text():
    import fsspec

    files = fsspec.filesystem("memory")
    found = []
    for content in (b"one\n", b"two, longer\n"):
        files.pipe("/identity/corpus.txt", content)
        found += [Corpus.from_file("memory://identity/corpus.txt").identity() for _ in range(2)]
    assert found[0] == found[1] != found[2] == found[3]


def test_a_changed_data_set_is_another_text(tmp_path):
    pytest.importorskip("datasets")
    found = []
    for name in ("one", "other"):
        path = file_of(tmp_path / name, f"{name}\n")
        found += [Corpus.from_dataset("text", data_files=str(path)).identity() for _ in range(2)]
    assert found[0] == found[1] != found[2] == found[3]


@pytest.fixture
def texts(tmp_path):
    """Two files of one name, the second of which differs in one word."""
    lines = [f"{text} {i % 7}" for i, text in enumerate(make_texts(60))]
    first = file_of(tmp_path / "first", "\n".join(lines))
    return first, file_of(tmp_path / "second", "\n".join([*lines[:-1], "wordb"]))


def streams(seeds, texts):
    encoders = {f"seed-{i}": Encoder(seed, layers=[3]) for i, seed in enumerate(seeds)}
    return [fastinn.stream(encoders, Corpus.from_file(path)) for path in texts]


REFUSED = "was made with text content='1 files, .* and this run has text content='1 files, "


def test_a_pass_over_another_text_is_refused(seeds, texts, tmp_path):
    first, second = streams(seeds, texts)
    run_pass(first, pairs="all", checkpoint=tmp_path / "kept")
    with pytest.raises(ValueError, match=REFUSED):
        run_pass(second, pairs="all", checkpoint=tmp_path / "kept")


def test_a_fit_to_another_text_is_refused(seeds, texts, tmp_path):
    pairs = [s.pair(("seed-0", 3), ("seed-1", 3)) for s in streams(seeds, texts)]
    options = {"max_steps": 2, "hidden": 8, "batch_size": 16, "validation": 0.3, "progress": False}
    MLPMap(**options).fit_stream(pairs[0], checkpoint=tmp_path / "kept")
    with pytest.raises(ValueError, match=REFUSED):
        MLPMap(**options).fit_stream(pairs[1], checkpoint=tmp_path / "kept")


def test_a_store_of_another_text_is_refused(seeds, texts, tmp_path):
    encoders = {"seed-0": Encoder(seeds[0], layers=[3])}
    corpora = [Corpus.from_file(path) for path in texts]
    extract(encoders, corpora[0], tmp_path / "kept")
    extract(encoders, corpora[0], tmp_path / "kept")
    message = r"store of seed-0 was begun with the text 1 files, .* and corpus.txt is now 1 files, "
    with pytest.raises(ValueError, match=message):
        extract(encoders, corpora[1], tmp_path / "kept")


def test_stores_of_another_text_are_others(seeds, texts, tmp_path):
    found = []
    for i, path in enumerate(texts):
        encoders = {"seed-0": Encoder(seeds[0], layers=[3])}
        paths = extract(encoders, Corpus.from_file(path), tmp_path / str(i))
        found.append(fastinn.stream({n: fastinn.EmbeddingStore(p) for n, p in paths.items()}))
    one, other = (stream.identity() for stream in found)
    assert one.pop("content of stores") != other.pop("content of stores")
    assert one == other
