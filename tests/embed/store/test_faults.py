"""Full disks, failing disks and short writes, at every call that a writer makes."""

import pytest
from store_cases import EXPECTED_MESSAGE, make_blocks, make_header, tree, write
from store_faults import FailingCalls

from fastinn.embed.store import _disk

HEADER = make_header(bytes_per_shard=2500)


@pytest.fixture(scope="module")
def blocks(whole):
    return make_blocks(whole)[:9]


@pytest.fixture
def failing(monkeypatch):
    """Let a call of the writer fail."""

    def install(index, kind):
        calls = FailingCalls(index, kind)
        monkeypatch.setattr(_disk, "os", calls)
        return calls

    return install


@pytest.fixture
def expected(tmp_path, blocks, failing):
    """Content of the store, and how many calls it takes."""
    calls = failing(-1, "EIO")
    write(tmp_path / "expected", blocks, HEADER)
    return tree(tmp_path / "expected"), calls.n_calls


@pytest.mark.campaign("R3")
@pytest.mark.parametrize("kind", ["ENOSPC", "EIO", "short"])
def test_every_call_may_fail_once(tmp_path, blocks, failing, expected, trials, kind):
    content, n_calls = expected
    failed = set()
    for index in trials(range(n_calls)):
        path = tmp_path / f"store-{index}"
        calls = failing(index, kind)
        with pytest.raises(OSError, match=EXPECTED_MESSAGE) as caught:
            write(path, blocks, HEADER)
        assert str(tmp_path) in str(caught.value.filename)
        failed.add(calls.failed)
        failing(-1, kind)
        write(path, blocks, HEADER)
        assert tree(path) == content, f"call {index}, {calls.failed}"
    assert failed >= {"open", "pwrite", "fsync", "replace", "mkdir", "close", "link"}


def test_short_writes_alone_do_no_harm(tmp_path, blocks, expected, monkeypatch):
    class ShortWrites(FailingCalls):
        def called(self, name, call, *args, **options):
            if name == "pwrite":
                fd, data, offset = args
                return call(fd, data[: max(1, len(data) // 3)], offset)
            return super().called(name, call, *args, **options)

    monkeypatch.setattr(_disk, "os", ShortWrites(-1, "short"))
    write(tmp_path / "store", blocks, HEADER)
    assert tree(tmp_path / "store") == expected[0]


def test_a_writer_that_failed_takes_no_more(tmp_path, blocks, failing):
    from fastinn.embed import StoreWriter

    failing(-1, "EIO")
    writer = StoreWriter(tmp_path, HEADER)
    calls = failing(0, "ENOSPC")
    places = {int(d): 0.5 for d in blocks[0].keys[:, 0]}
    with pytest.raises(OSError, match=EXPECTED_MESSAGE):
        writer.append(blocks[0], places, {"blocks": 1})
    assert calls.failed == "open"
    with pytest.raises(ValueError, match="failed before; open another one"):
        writer.append(blocks[0], places, {"blocks": 1})
    writer.close()
    write(tmp_path, blocks, HEADER)
