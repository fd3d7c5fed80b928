"""Training rows: what is held out, what is shuffled, what stays in memory."""

from contextlib import contextmanager
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinn.align import _sources
from fastinn.align._sources import (
    VALIDATION_ROWS,
    InMemory,
    Streamed,
    _EvenSample,
    document_numbers,
)


def numbered(n, per_document=7):
    """Rows that say their own number; documents of equal size."""
    x = torch.arange(n, dtype=torch.float64)[:, None].repeat(1, 2)
    return x, -x, torch.arange(n) // per_document


def in_memory(n, share=0.2):
    x, y, documents = numbered(n)
    return InMemory(x, y, documents, share)


def streamed(n, share=0.2, buffer_rows=64):
    parts = [r.split(50) for r in numbered(n)]
    return Streamed(list(zip(*parts, strict=True)), share, buffer_rows=buffer_rows)


SOURCES = {"memory": in_memory, "stream": streamed}


def rows_of(batches):
    return torch.cat([x[:, 0] for x, _ in batches]).long()


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
@settings(max_examples=20, deadline=None)
@given(n=st.integers(300, 700), share=st.floats(0.2, 0.6))
def test_no_document_is_on_both_sides(make, n, share):
    source = make(n, share)
    trained = rows_of(islice(source.batches(16, torch.Generator()), 2 * n // 16))
    validated = rows_of([source.validation])
    assert not set((trained // 7).tolist()) & set((validated // 7).tolist())


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_rows_stay_paired(make):
    source = make(400)
    for x, y in [source.validation, *islice(source.batches(16, torch.Generator()), 40)]:
        assert torch.equal(x, -y)


def test_buffers_are_reused_while_a_stream_trains_and_not_while_it_reads(monkeypatch):
    reuses, while_read = [], []

    @contextmanager
    def reused():
        reuses.append(True)
        yield
        reuses.pop()

    class Watched(list):
        def __iter__(self):
            for block in super().__iter__():
                while_read.append(bool(reuses))
                yield block

    monkeypatch.setattr(_sources, "reused_buffers", reused)
    parts = [rows.split(50) for rows in numbered(400)]
    source = Streamed(Watched(zip(*parts, strict=True)), 0.2, buffer_rows=64)
    assert all(reuses for _ in islice(source.batches(16, torch.Generator()), 40))
    assert while_read.count(False) == len(while_read) > 8


def test_an_epoch_in_memory_takes_each_row_once():
    source = in_memory(700)
    n = 700 - len(source.validation[0])
    epoch = rows_of(islice(source.batches(8, torch.Generator()), n // 8))
    assert len(epoch.unique()) == len(epoch) == n // 8 * 8


def test_a_stream_reaches_every_training_row_and_mixes_blocks():
    source = streamed(700)
    batches = list(islice(source.batches(8, torch.Generator()), 700))
    everything = torch.cat([rows_of(batches), rows_of([source.validation])])
    assert len(everything.unique()) == 700
    assert max(float(x[:, 0].max() - x[:, 0].min()) for x, _ in batches) > 50


def test_the_moments_are_those_of_the_training_rows():
    source = streamed(700)
    assert source.moments.count == 700 - len(source.validation[0])


def test_validation_rows_are_bounded_and_spread_evenly():
    n = 8 * VALIDATION_ROWS
    rows = rows_of([streamed(n, share=0.5).validation])
    assert VALIDATION_ROWS / 2 <= len(rows) <= VALIDATION_ROWS
    middle = float((rows < n / 2).double().mean())
    assert middle == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("n_blocks", [1, 3, 40])
def test_a_sample_holds_no_more_memory_than_its_rows(n_blocks):
    sample = _EvenSample(100)
    for _ in range(n_blocks):
        sample.add(numbered(1000)[:2])
    held = [rows for pair in sample._held for rows in pair]
    assert 50 <= len(sample.rows()[0]) <= 100
    assert sum(rows.untyped_storage().nbytes() for rows in held) <= 100 * 2 * 16


def test_fewer_rows_than_a_batch_still_train():
    source = in_memory(40)
    (x, _), *_ = islice(source.batches(1000, torch.Generator()), 1)
    assert len(x) == 40 - len(source.validation[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InMemory(*numbered(20)[:2], torch.zeros(20).long(), 0.1), "of one document"),
        (lambda: document_numbers(torch.zeros(19), numbered(20)[0]), "each of the 20 rows"),
        (lambda: streamed(50, share=1e-9), "no document fell into the validation share"),
        (lambda: streamed(50, share=1 - 1e-9), "every document fell into"),
        (lambda: Streamed([], 0.1, buffer_rows=9), "no rows to train on"),
    ],
    ids=["one document", "too few numbers", "no validation", "only validation", "empty"],
)
def test_what_cannot_be_split_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
@pytest.mark.parametrize("n", [0, 7, 200], ids=["first", "first epoch", "later epoch"])
def test_batches_go_on_from_any_place(make, n):
    source = make(400)
    batches = source.batches(8, torch.Generator().manual_seed(3))
    rows_of(islice(batches, n + 1))
    place = batches.place()
    expected = rows_of(islice(batches, 100))
    again = source.batches(8, torch.Generator())
    again.go_on(place)
    assert torch.equal(rows_of(islice(again, 100)), expected)
