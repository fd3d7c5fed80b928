"""Headers and journals that were made up: refused, without a look outside or a large buffer."""

import json
import os
import zlib

import pytest
from campaign import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_values import ODD
from store_cases import lay_out, make_header, refusal

from fastinn.embed import EmbeddingStore
from fastinn.embed.store import blocks, files
from fastinn.embed.store._json import canonical, digest
from fastinn.embed.store.header import parse_header
from fastinn.embed.store.journal import parse_journal

HEADER = make_header(writers=2)
pytestmark = pytest.mark.campaign("R6")
quick = settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def signed(fields):
    return canonical({**fields, "xxh3_128": digest(canonical(fields))})


def line(fields):
    body = json.dumps(fields).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


@pytest.fixture
def guarded(monkeypatch):
    """Let no file outside of the store be opened, and no large tensor be made."""
    opened = []
    open_, empty = os.open, blocks.torch.empty

    def watched_open(path, *args, **options):
        opened.append(os.path.realpath(path))
        return open_(path, *args, **options)

    def watched_empty(*shape, **options):
        sizes = shape[0] if isinstance(shape[0], tuple) else shape
        n = 1
        for size in sizes:
            n *= size
        assert n < 2**20
        return empty(*shape, **options)

    monkeypatch.setattr(files.os, "open", watched_open)
    monkeypatch.setattr(blocks.torch, "empty", watched_empty)
    return opened


@quick
@given(field=st.sampled_from(sorted(HEADER.fields())), value=ODD)
def test_odd_headers_are_refused_or_valid(field, value):
    content = signed({**HEADER.fields(), field: value})
    message = refusal(lambda: parse_header(content))
    if message is None:
        assert parse_header(content).fields()[field] == value
    else:
        assert "store.json" in message


@quick
@given(content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_no_header(content):
    with pytest.raises(ValueError, match=r"store\.json"):
        parse_header(content)


def test_deep_nesting_is_refused():
    with pytest.raises(ValueError, match=r"store.json is damaged: not JSON"):
        parse_header(b"[" * 200_000)


@pytest.fixture
def journal(finished):
    return finished["journal-0.jsonl"].splitlines(keepends=True)


@quick
@given(data=st.data(), value=ODD)
def test_odd_journal_lines_are_refused_or_read_nothing_else(
    tmp_path, finished, journal, guarded, data, value
):
    fields = json.loads(journal[1][9:])
    field = data.draw(st.sampled_from([*sorted(fields), "checksums.0", "../x"]))
    if field == "checksums.0":
        fields["checksums"]["0"] = value
    else:
        fields[field] = value
    content = b"".join([journal[0], line(fields), *journal[2:]])
    lay_out(tmp_path, {**finished, "journal-0.jsonl": content})
    guarded.clear()
    message = refusal(lambda: EmbeddingStore(tmp_path).read(0, 50))
    if message is None:
        assert field == "position" or fields == json.loads(journal[1][9:])
    else:
        assert "part-0-" in message or "journal-0.jsonl" in message
    assert all(path.startswith(os.path.realpath(tmp_path)) for path in guarded)


@quick
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_torn_line_at_most(content):
    message = refusal(lambda: parse_journal(content, HEADER, 0))
    if message is None:
        journal = parse_journal(content, HEADER, 0)
        assert journal.commits == []
        assert not journal.finished
    else:
        assert "journal-0.jsonl line" in message


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_to_outside_are_refused_unread(tmp_path, finished, guarded, kind):
    lay_out(tmp_path / "store", finished)
    lay_out(tmp_path / "elsewhere", finished)
    name = "layer=03/part-0-0.safetensors" if kind == "file" else "layer=03"
    target = tmp_path / "store" / name
    target.rename(tmp_path / "moved")
    target.symlink_to(tmp_path / "elsewhere" / name)
    guarded.clear()
    with pytest.raises(ValueError, match=r"layer=03.* is a link to outside of the store"):
        EmbeddingStore(tmp_path / "store").read(0, 50)
    assert not [path for path in guarded if "elsewhere" in path]


def test_a_link_to_the_store_itself_is_fine(tmp_path, whole, finished):
    lay_out(tmp_path / "store", finished)
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert len(EmbeddingStore(tmp_path / "link")) == len(whole.keys)


def test_a_pipe_is_not_waited_for(tmp_path, finished):
    name = "layer=03/part-0-0.safetensors"
    lay_out(tmp_path, finished)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is not a file"):
        EmbeddingStore(tmp_path).read(0, 50)


def test_a_huge_header_is_not_read(tmp_path):
    with (tmp_path / "store.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=f"store.json has {2**40} bytes, expected at most"):
        EmbeddingStore(tmp_path)


def test_a_huge_part_is_not_allocated(tmp_path, finished, journal, guarded):
    """2^40 rows with checksums of the right number would be terabytes; the file is not."""
    fields = json.loads(journal[0][9:])
    header = make_header(writers=2, block_bytes=2**26)
    fields["rows"], fields["documents"] = 2**22, 2
    for key, row_bytes in (("0", 32), ("3", 32), ("tokens", 24)):
        n_blocks = -(-(2**22 * row_bytes + (48 if key == "tokens" else 0)) // 2**26)
        fields["checksums"][key] = "0" * 32 * n_blocks
    content = {
        **finished,
        "store.json": signed(header.fields()),
        "journal-0.jsonl": line(fields),
        "journal-1.jsonl": b"",
    }
    lay_out(tmp_path, content)
    with pytest.raises(ValueError, match=r"tokens/part-0-0.safetensors has \d+ bytes, the journal"):
        EmbeddingStore(tmp_path, unfinished=True)
