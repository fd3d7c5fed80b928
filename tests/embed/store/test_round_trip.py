import re

import pytest
import torch
from safetensors import safe_open
from store_cases import (
    LAYERS,
    WIDTH,
    lay_out,
    make_blocks,
    make_header,
    make_rows,
    place_of,
    same,
    tree,
    write,
    write_all,
)

import fastinn
from fastinn.embed import EmbeddingStore, Encoded, StoreWriter
from fastinn.embed.corpus.narrowing import Shard
from fastinn.embed.store import verify


def test_rows_come_back_in_reading_order(store, whole):
    assert same(EmbeddingStore(store).read(0, len(whole.keys)), whole)


def test_every_range_reads_alone(store, whole):
    found = EmbeddingStore(store)
    for start in range(0, len(whole.keys), 7):
        for stop in (start, start + 1, min(start + 40, len(found))):
            part = found.read(start, stop)
            assert torch.equal(part.keys, whole.keys[start:stop])
            assert torch.equal(part.rows[3], whole.rows[3][start:stop])


def test_iteration_gives_all_rows(store, whole):
    blocks = list(EmbeddingStore(store).blocks(50))
    assert [len(block.keys) for block in blocks[:-1]] == [50] * (len(blocks) - 1)
    assert torch.equal(torch.cat([block.keys for block in blocks]), whole.keys)
    assert sum(len(block.keys) for block in EmbeddingStore(store)) == len(whole.keys)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_splits_follow_the_places(store, whole, split):
    low, high = fastinn.embed.corpus.SPLITS[split]
    places = torch.tensor([place_of(d) for d in whole.keys[:, 0].tolist()])
    chosen = (low <= places) & (places < high)
    found = EmbeddingStore(store).split(split)
    expected = Encoded({la: rows[chosen] for la, rows in whole.rows.items()}, whole.keys[chosen])
    assert 0 < len(found) < len(whole.keys)
    assert same(found.read(0, len(found)), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_are_rounded_to_the_dtype_and_read_as_float32(tmp_path, whole, dtype):
    write_all(tmp_path, whole, make_header(dtype=dtype))
    found = EmbeddingStore(tmp_path).read(0, len(whole.keys))
    for layer in LAYERS:
        expected = whole.rows[layer].to(getattr(torch, dtype)).float()
        assert found.rows[layer].dtype == torch.float32
        assert torch.equal(found.rows[layer], expected)


def test_chosen_layers_are_read_alone(store, whole):
    found = EmbeddingStore(store).read(3, 9, layers=[-1])
    assert list(found.rows) == [3]
    assert torch.equal(found.rows[3], whole.rows[3][3:9])


def test_the_store_says_what_it_is(store):
    found = fastinn.EmbeddingStore(store)
    assert (found.layers, found.n_layers, found.n_features) == ([0, 3], 3, WIDTH)
    assert (found.level, found.tokens_fingerprint, found.finished) == ("token", "11", True)
    assert found.header.revision == "a1b2"


def test_shards_are_ordinary_safetensors_files(store, whole):
    with safe_open(store / "layer=03" / "part-0-0.safetensors", framework="pt") as file:
        rows, says = file.get_tensor("rows"), file.metadata()
    assert torch.equal(rows, whole.rows[3][: len(rows)]) or len(list(store.glob("journal*"))) > 1
    assert says["model"] == "tiny"
    with safe_open(store / "tokens" / "part-0-0.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("documents"), file.get_tensor("keys")[:, 0].unique())
        assert int(file.get_tensor("lengths").sum()) == len(rows)


def test_shards_are_closed_at_their_size(store):
    sizes = [path.stat().st_size - 4096 for path in store.glob("layer=03/part-0-*")]
    assert len(sizes) > 1
    assert max(sizes) <= 1000 + 13 * WIDTH * 4


def test_an_empty_store_is_a_store(tmp_path):
    write(tmp_path, [])
    found = EmbeddingStore(tmp_path)
    assert len(found) == 0
    assert found.read(0, 0).rows[3].shape == (0, WIDTH)
    assert list(found) == []


def test_closing_twice_changes_nothing(tmp_path, whole):
    write_all(tmp_path, whole)
    before = tree(tmp_path)
    write_all(tmp_path, whole)
    assert tree(tmp_path) == before


def test_an_unfinished_store_is_read_only_on_request(tmp_path, whole):
    blocks = make_blocks(whole)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, blocks, appended=lambda out: interrupt_at(out, 100))
    said = f"store {re.escape(str(tmp_path))}: it is unfinished: writer 0 of 1 .* --unfinished"
    with pytest.raises(ValueError, match=said):
        EmbeddingStore(tmp_path)
    found = EmbeddingStore(tmp_path, unfinished=True)
    n = len(found)
    assert 0 < n < len(whole.keys)
    assert torch.equal(found.read(0, n).rows[0], whole.rows[0][:n])


def interrupt_at(out, rows):
    if out.rows >= rows:
        raise KeyboardInterrupt


WRONG = {
    "range": (lambda s: s.read(3, 10**6), "rows 3 to 1000000 of a store of"),
    "layer": (lambda s: s.read(0, 1, layers=[2]), r"layers is \[2\], .* holds layers \[0, 3\]"),
    "split": (lambda s: s.split("dev"), "split is 'dev', expected one of"),
    "block": (lambda s: next(s.blocks(0)), "rows_per_block is 0, expected at least 1"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_what_is_not_there_is_said(store, call, message):
    with pytest.raises(ValueError, match=message):
        call(EmbeddingStore(store))


def test_no_store_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no store at .* it has no store.json"):
        EmbeddingStore(tmp_path)


class TestRefusals:
    """What a writer does not take."""

    @pytest.fixture
    def writer(self, tmp_path):
        with StoreWriter(tmp_path, make_header(dtype="float16")) as out:
            yield out

    @staticmethod
    def block(documents=(1, 1, 2), rows=None):
        keys = torch.tensor([(document, i, 0) for i, document in enumerate(documents)])
        rows = torch.zeros(len(keys), WIDTH) if rows is None else rows
        return Encoded(dict.fromkeys(LAYERS, rows), keys)

    def test_layers(self, writer):
        block = self.block()
        with pytest.raises(ValueError, match=r"layers \[0\], the store is of \[0, 3\]"):
            writer.append(Encoded({0: block.rows[0]}, block.keys), {1: 0, 2: 0}, {})

    def test_width(self, writer):
        with pytest.raises(ValueError, match=r"shape \(3, 5\), expected \(3, 8\)"):
            writer.append(self.block(rows=torch.zeros(3, 5)), {1: 0, 2: 0}, {})

    def test_overflow(self, writer):
        rows = torch.zeros(3, WIDTH)
        rows[2, 1] = 1e6
        with pytest.raises(ValueError, match=r"layer 0 as float16 holds .* first in row 2"):
            writer.append(self.block(rows=rows), {1: 0, 2: 0}, {})

    def test_order(self, writer):
        with pytest.raises(ValueError, match="document 1 comes behind 2"):
            writer.append(self.block((2, 1)), {1: 0, 2: 0}, {})

    def test_place(self, writer):
        with pytest.raises(ValueError, match=r"document 2 has no place in \[0, 1\]"):
            writer.append(self.block(), {1: 0}, {})

    def test_position(self, writer):
        with pytest.raises(TypeError, match="not JSON serializable"):
            writer.append(self.block(), {1: 0, 2: 0}, {"at": object()})


def test_another_store_is_refused(store):
    writers = len(list(store.glob("journal*")))
    with pytest.raises(ValueError, match=r"has revision 'a1b2', to be written is 'c3'"):
        StoreWriter(store, make_header(revision="c3"), 0, writers)
    with pytest.raises(ValueError, match=f"has writers {writers}, to be written is 9"):
        StoreWriter(store, make_header(), 0, 9)


def test_a_second_writer_of_the_same_number_is_refused(tmp_path):
    with StoreWriter(tmp_path, make_header()):
        with pytest.raises(ValueError, match="another process writes as writer 0"):
            StoreWriter(tmp_path, make_header())
        StoreWriter(tmp_path / "other", make_header()).close()
    StoreWriter(tmp_path, make_header()).close()


def test_two_writers_of_the_same_documents_are_found_out(tmp_path, whole):
    for writer in range(2):
        write(tmp_path, make_blocks(whole), writer=writer, writers=2)
    with pytest.raises(ValueError, match=r"part-0-0.* and .*part-1-0.* both hold document 0"):
        EmbeddingStore(tmp_path)


def test_a_remote_path_is_not_written_to():
    with pytest.raises(ValueError, match="is remote; write to a local folder"):
        StoreWriter("memory://store", make_header())


def test_shards_of_shards_are_those_of_the_corpus(tmp_path):
    whole = make_rows(500)
    write_all(tmp_path, whole)
    store = EmbeddingStore(tmp_path)
    documents = sorted(set(whole.keys[:, 0].tolist()))

    def held(shard):
        return set(shard.read(0, len(shard)).keys[:, 0].tolist())

    for i in range(2):
        outer = Shard(i, 2)
        for k in range(3):
            inner = Shard(k, 3, stride=2)
            wanted = {d for d in documents if outer.holds(d) and inner.holds(d)}
            assert wanted
            assert held(store.shard(i, 2).shard(k, 3)) == wanted


def test_a_shard_that_does_not_exist_is_refused(tmp_path, whole):
    write_all(tmp_path, whole)
    with pytest.raises(ValueError, match="shard 5 of 2 does not exist, expected 0 to 1"):
        EmbeddingStore(tmp_path).shard(5, 2)


def test_a_writer_that_has_not_begun_keeps_nobody_from_reading(tmp_path, finished):
    of_first = {n: data for n, data in finished.items() if "1.jsonl" not in n and "part-1" not in n}
    lay_out(tmp_path, of_first)
    with pytest.raises(ValueError, match="writer 1 of 2 has not begun"):
        EmbeddingStore(tmp_path)
    assert len(EmbeddingStore(tmp_path, unfinished=True)) > 0
    verdict = verify(tmp_path)
    assert (verdict.sound, verdict.finished) == (True, False)
