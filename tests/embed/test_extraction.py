"""Extraction into stores: equal to encoding, whoever does it and however often it is killed."""

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import extracted
import pytest
import torch
from extracted import TOKENS_PER_BLOCK, encoders_of, extract_by
from hypothesis import given
from hypothesis import strategies as st
from small_models import TEXTS, make_family
from store_cases import tree
from tiny_seeds import make_texts
from tolerances import HIDDEN_STATES

from fastinn import Corpus
from fastinn.embed import EmbeddingStore, StoreWriter, extraction
from fastinn.embed.corpus import SPLITS
from fastinn.embed.extraction import extract, share_of

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["extracted"])

LEVELS = ["token", "word", "sentence", "cls"]
MANY = make_texts(150)


def read(path):
    store = EmbeddingStore(path)
    return store.read(0, len(store))


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("level", LEVELS)
def test_a_store_holds_what_its_model_encodes(seeds, tmp_path, monkeypatch, level, n_ranks):
    encoders = encoders_of(seeds, level)
    paths = extract_by(monkeypatch, n_ranks, encoders, Corpus.from_texts(MANY), tmp_path)
    for name, encoder in encoders.items():
        found, expected = read(paths[name]), encoder.encode(MANY)
        assert torch.equal(found.keys, expected.keys)
        for layer in (0, 3):
            torch.testing.assert_close(
                found.rows[layer], expected.rows[layer], atol=HIDDEN_STATES, rtol=0
            )


@pytest.mark.parametrize("split", SPLITS)
def test_splits_of_a_store_are_those_of_the_corpus(seeds, tmp_path, split):
    corpus = Corpus.from_texts(MANY)
    path = extract(encoders_of(seeds[:1]), corpus, tmp_path)["seed-0"]
    store = EmbeddingStore(path).split(split)
    found = store.read(0, len(store)).keys[:, 0].unique().tolist()
    assert found == [document.number for document in corpus.split(split)]


@pytest.mark.parametrize("level", LEVELS)
def test_a_store_does_not_depend_on_the_seeds_beside_it(tmp_path, level):
    """The two cut words in different ways, and one has a sign that the other drops."""
    folders = [make_family(tmp_path / name, name) for name in ("bert", "roberta")]
    corpus = Corpus.from_texts([*TEXTS, "one \ufffd two"])
    encoders = encoders_of(folders, level)
    together = extract(encoders, corpus, tmp_path / "together", tokens_per_block=40)
    for name, encoder in encoders.items():
        alone = extract({name: encoder}, corpus, tmp_path / "alone", tokens_per_block=40)
        assert tree(together[name]) == tree(alone[name])


@pytest.fixture(scope="module")
def unkilled(seeds, tmp_path_factory):
    """Files of an extraction that nothing happened to."""
    folder = tmp_path_factory.mktemp("unkilled")
    finish(seeds, folder)
    files = tree(folder)
    assert sum(name.startswith("seed-1") and "layer=03" in name for name in files) > 5
    return files


def start(seeds, folder, delay=0.0):
    arguments = seeds, MANY, str(folder), delay
    process = PROCESSES.Process(target=extracted.slow_small_parts, args=arguments)
    process.start()
    return process


def finish(seeds, folder):
    process = start(seeds, folder)
    process.join(240)
    assert process.exitcode == 0


def n_parts(folder):
    return len(list(folder.glob("*/layer=03/*.safetensors")))


@pytest.mark.campaign("R1")
def test_killed_extractions_end_with_the_bytes_of_one_that_was_not(
    seeds, tmp_path, unkilled, trials
):
    chance, held = random.Random(0), 0
    for _ in trials(range(3)):
        process = start(seeds, tmp_path, delay=0.02)
        # What the kill before left uncommitted is removed first, and their number falls.
        while n_parts(tmp_path) <= held and process.is_alive():
            time.sleep(0.005)
        process.join(chance.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode < 0, "it was finished before it was killed"
        assert n_parts(tmp_path) > held
        held = n_parts(tmp_path)
    finish(seeds, tmp_path)
    assert tree(tmp_path) == unkilled


class StopError(Exception):
    """Ends an extraction in this process."""


@pytest.mark.parametrize("behind", ["seed-0", "seed-1"])
def test_writers_at_different_places_go_on(seeds, tmp_path, unkilled, monkeypatch, behind):
    monkeypatch.setattr(extraction, "StoreHeader", extracted.small_header)
    whole = StoreWriter._commit
    commits = Counter()

    def failing(writer):
        name = writer._root.name.partition("@")[0]
        commits[name] += 1
        if commits[name] == 3:
            raise StopError
        if name == behind and commits[name] == 2:
            writer._part = None  # as if the disk had lost what was not committed
            commits[name] -= 1
            return
        whole(writer)

    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "_commit", failing)
        with pytest.raises(StopError):
            run(seeds, tmp_path)
    positions = {
        name: EmbeddingStore(tmp_path / f"{name}@local", unfinished=True).journals[0].position
        for name in ("seed-0", "seed-1")
    }
    assert positions["seed-0"] != positions["seed-1"]
    run(seeds, tmp_path)
    assert tree(tmp_path) == unkilled


def run(seeds, folder, **changed):
    options = {"tokens_per_block": TOKENS_PER_BLOCK, **changed}
    return extract(encoders_of(seeds), Corpus.from_texts(MANY), folder, **options)


def test_finished_stores_are_left_alone(seeds, tmp_path, monkeypatch):
    paths = run(seeds, tmp_path)
    before = tree(tmp_path)
    monkeypatch.setattr(extraction, "TextStream", None)
    assert run(seeds, tmp_path) == paths
    assert tree(tmp_path) == before


def interrupted(seeds, folder, patch):
    """Leave an extraction behind that has committed something."""
    with patch.context() as patched:
        patched.setattr(extraction, "StoreHeader", extracted.small_header)
        patched.setattr(StoreWriter, "close", lambda writer: writer._let_go())
        run(seeds, folder)


def committed(folder):
    return {name: data for name, data in tree(folder).items() if name[-11:] != ".unfinished"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dtype": "float16"}, "has dtype 'float32', to be written is 'float16'"),
        ({"tokens_per_block": 26}, "seed-0 was begun with blocks of 25 tokens and this run has 26"),
    ],
    ids=["dtype", "block"],
)
def test_other_settings_are_refused(seeds, tmp_path, monkeypatch, changed, message):
    interrupted(seeds, tmp_path, monkeypatch)
    monkeypatch.setattr(extraction, "StoreHeader", extracted.small_header)
    before = committed(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(seeds, tmp_path, **changed)
    assert committed(tmp_path) == before


@pytest.mark.parametrize("given", [".", "a\u00a0b.txt"])
def test_a_text_is_extracted_whatever_it_is_called(seeds, tmp_path, monkeypatch, given):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("a\u00a0b.txt").write_text("\n".join(MANY[:5]))
    path = extract(encoders_of(seeds[:1]), Corpus.from_file(given), tmp_path)["seed-0"]
    assert EmbeddingStore(path).name == {".": "here"}.get(given, "a?b.txt")


def test_other_ranks_are_refused(seeds, tmp_path, monkeypatch):
    run(seeds, tmp_path)
    with pytest.raises(ValueError, match="has writers 1, to be written is 2"):
        extracted.extract_as(
            monkeypatch, 3, 4, encoders_of(seeds), Corpus.from_texts(MANY), tmp_path
        )


@given(n_seeds=st.integers(1, 30), world_size=st.integers(1, 40))
def test_every_seed_and_shard_falls_to_one_rank(n_seeds, world_size):
    seeds = [f"seed-{i}" for i in range(n_seeds)]
    shares = [share_of(seeds, rank, world_size) for rank in range(world_size)]
    (writers,) = {share.writers for share in shares}
    dealt = Counter((seed, share.writer) for share in shares for seed in share.seeds)
    assert dealt == dict.fromkeys(((s, w) for s in seeds for w in range(writers)), 1)
    (n_held,) = {len(share.seeds) for share in shares}
    fewest = min(n_seeds // g for g in range(1, n_seeds + 1) if n_seeds % g == world_size % g == 0)
    assert n_held == fewest
