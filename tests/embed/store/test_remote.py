"""Stores behind fsspec: the same rows and refusals, and only the ranges that are asked for."""

import fsspec
import pytest
from store_cases import same

from fastinn.embed import EmbeddingStore
from fastinn.embed.store import verify

URL = "memory://bucket/store"


@pytest.fixture
def remote(finished):
    """A file system that holds the store."""
    system = fsspec.filesystem("memory")
    for name, content in finished.items():
        system.pipe_file(f"{URL}/{name}", content)
    yield system
    system.rm("/bucket", recursive=True)


def test_rows_are_those_of_the_local_store(remote, whole):
    found = EmbeddingStore(URL)
    assert same(found.read(0, len(found)), whole)
    assert verify(URL).sound


def test_only_the_blocks_that_are_needed_are_fetched(remote, monkeypatch):
    found = EmbeddingStore(URL)
    fetched = []
    whole_call = type(remote).cat_file

    def counted(self, path, start=None, end=None, **options):
        fetched.append((path.rpartition("bucket/store/")[2], end - start))
        return whole_call(self, path, start=start, end=end, **options)

    monkeypatch.setattr(type(remote), "cat_file", counted)
    found.read(10, 11, layers=[3])
    sizes = [size for name, size in fetched if name.startswith("layer=03/")]
    assert sizes == [4096, 256]  # the head and one block
    assert not [name for name, _ in fetched if name.startswith("layer=00/")]


def test_damage_is_named(remote, finished):
    name = "layer=03/part-0-1.safetensors"
    remote.pipe_file(f"{URL}/{name}", finished[name][:-1] + b"?")
    found = EmbeddingStore(URL)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        found.read(0, len(found))
    remote.rm_file(f"{URL}/{name}")
    with pytest.raises(ValueError, match=f"{name} is missing"):
        EmbeddingStore(URL)


def test_no_store_is_said():
    with pytest.raises(FileNotFoundError, match="no store at memory://nowhere"):
        EmbeddingStore("memory://nowhere")
