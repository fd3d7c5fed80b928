"""What a corpus takes, told from its beginning, against what it takes."""

import gzip
import re

import pytest
from extracted import encoders_of
from tiny_seeds import make_texts

from fastinn import Corpus
from fastinn.cli import _plan
from fastinn.embed import estimate, memory
from fastinn.embed.estimate import Workload, check_memory, duration, workload
from fastinn.embed.extraction import extract


@pytest.fixture(scope="module")
def encoders(seeds):
    return encoders_of(seeds)


def n_tokens_of(corpus, encoders):
    windows = next(iter(encoders.values())).tokens.windows(corpus)
    return sum(window.n_tokens for window in windows)


def test_a_short_corpus_is_counted(encoders):
    corpus = Corpus.from_texts(make_texts(100))
    work = workload(encoders, corpus)
    assert work.n_tokens == n_tokens_of(corpus, encoders)
    assert work.counted == 1
    assert work.row_bytes == 2 * 2 * 16 * 4
    weights = sum(w.numel() for e in encoders.values() for w in e.model.module().parameters())
    assert work.model_bytes == 4 * weights
    assert work.seconds > 0
    assert str(work).startswith(f"{work.n_tokens:,} tokens, about ")


def test_stores_take_what_their_rows_do():
    work = Workload(9, 1_000, 1.0, 0.0, row_bytes=256, model_bytes=10**9)
    assert [work.stored_bytes(d) for d in ("float32", "float16", "bfloat16")] == [
        256_000,
        128_000,
        128_000,
    ]


@pytest.fixture
def long_file(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("\n".join(make_texts(4_000)))
    return path


class Clock:
    """Time that passes by a second whenever one looks."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def counting_ends_early(monkeypatch):
    """Count some 400 documents, for which one looks twice each."""
    monkeypatch.setattr(estimate, "time", Clock())
    monkeypatch.setattr(estimate, "_COUNTED_SECONDS", 400.0)


@pytest.mark.usefixtures("counting_ends_early")
def test_a_long_file_is_extrapolated(encoders, long_file):
    corpus = Corpus.from_file(long_file)
    work = workload(encoders, corpus)
    assert 0.05 < work.counted < 0.15
    assert work.n_tokens == pytest.approx(n_tokens_of(corpus, encoders), rel=0.03)
    assert str(work).startswith(f"about {work.n_tokens:,} tokens")


@pytest.mark.usefixtures("counting_ends_early")
@pytest.mark.parametrize("narrowed", ["head", "compressed"])
def test_what_has_no_known_length_is_at_least(encoders, long_file, narrowed):
    if narrowed == "head":
        corpus = Corpus.from_file(long_file).head(3_000)
    else:
        packed = long_file.with_suffix(".txt.gz")
        packed.write_bytes(gzip.compress(long_file.read_bytes()))
        corpus = Corpus.from_file(packed)
    work = workload(encoders, corpus)
    assert work.counted is None
    assert 0 < work.n_tokens < 0.2 * n_tokens_of(corpus, encoders)
    assert str(work).startswith(f"at least {work.n_tokens:,} tokens")


def test_a_short_head_is_counted(encoders, long_file):
    corpus = Corpus.from_file(long_file).head(40)
    work = workload(encoders, corpus)
    assert (work.n_tokens, work.counted) == (n_tokens_of(corpus, encoders), 1)


def test_no_text_is_said(encoders, tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="holds no text"):
        workload(encoders, Corpus.from_file(tmp_path / "blank.txt"))


def test_blocks_that_memory_does_not_hold_are_refused_with_some_that_it_does(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 10**9)
    with pytest.raises(ValueError, match=r"16,384 tokens takes 1\.6 GB and 1\.0 GB") as said:
        check_memory(100_000, 16_384)
    fits = int(re.search(r"--tokens-per-block (\d+)", str(said.value)).group(1))
    assert fits == 5_000
    check_memory(100_000, fits)


@pytest.fixture
def disk(monkeypatch):
    """A disk that has a thousand bytes left."""

    class Usage:
        free = 1_000

    monkeypatch.setattr(_plan.shutil, "disk_usage", lambda folder: Usage)


@pytest.mark.usefixtures("disk")
def test_stores_that_a_disk_does_not_hold_are_refused(tmp_path, capsys):
    work = Workload(10, 10, 1.0, 0.0, row_bytes=101, model_bytes=0)
    with pytest.raises(ValueError, match=r"give --out on a larger disk, fewer --layers or --dtype"):
        _plan.announce_stores(work, "float32", [], tmp_path, as_json=False)
    _plan.announce_stores(work, "bfloat16", [], tmp_path, as_json=False)
    assert "Stores to write" in capsys.readouterr().out


@pytest.mark.usefixtures("disk")
def test_what_is_written_already_needs_no_room(tmp_path, encoders):
    corpus = Corpus.from_texts(make_texts(10))
    paths = extract(encoders, corpus, tmp_path)
    work = workload(encoders, corpus)
    with pytest.raises(ValueError, match="more and"):
        _plan.announce_stores(work, "float32", [tmp_path / "gone"], tmp_path, as_json=True)
    _plan.announce_stores(work, "float32", paths.values(), tmp_path, as_json=True)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "about 0 seconds"),
        (119, "about 119 seconds"),
        (121, "about 2 minutes"),
        (7_200, "about 2 hours"),
        (10**6, "about 12 days"),
    ],
)
def test_durations_are_said_in_round_numbers(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize("level", ["token", "word", "sentence", "cls"])
def test_rows_are_counted_at_every_level(seeds, level):
    texts = make_texts(100)
    read = encoders_of(seeds, level)
    work = workload(read, Corpus.from_texts(texts))
    assert work.n_rows == len(read["seed-0"].encode(texts).keys)
    assert work.n_tokens == sum(len(text.split()) for text in texts)


def test_blocks_that_are_held_at_once_count(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 10**9)
    check_memory(100_000, 5_000)
    with pytest.raises(ValueError, match=r"4 are held at once, takes 0\.5 GB and 1\.0 GB"):
        check_memory(100_000, 5_000, n_blocks=4)


@pytest.mark.parametrize(("free", "kept"), [(10**9, 2), (0, 0)])
def test_models_that_do_not_fit_together_are_let_go_again(seeds, monkeypatch, free, kept):
    encoders = encoders_of(seeds)
    monkeypatch.setattr(memory, "available", lambda device: free)
    workload(encoders, Corpus.from_texts(make_texts(9)))
    assert sum(encoder.model.is_loaded for encoder in encoders.values()) == kept
