"""What other tools read is what the store holds."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zarr
from store_cases import LAYERS, WIDTH

from fastinn.embed import EmbeddingStore
from fastinn.embed.store import export as module
from fastinn.embed.store.export import export


def from_table(table):
    keys = np.stack([table[name].to_numpy() for name in ("document", "position", "id")], axis=1)
    layers = [name for name in table.column_names if name.startswith("layer_")]
    rows = {name: table[name].combine_chunks().flatten().to_numpy() for name in layers}
    return keys, {name: flat.reshape(-1, WIDTH) for name, flat in rows.items()}


def from_arrow(path):
    with pa.OSFile(str(path)) as file:
        return from_table(pa.ipc.open_file(file).read_all())


def from_parquet(path):
    return from_table(pyarrow.parquet.read_table(path))


def from_zarr(path):
    group = zarr.open_group(path, mode="r")
    assert group.attrs["model"] == "tiny"
    layers = {name: array[:] for name, array in group.arrays() if name != "keys"}
    return group["keys"][:], layers


READERS = {
    ".arrow": from_arrow,
    ".feather": from_arrow,
    ".parquet": from_parquet,
    ".zarr": from_zarr,
}


@pytest.mark.parametrize("suffix", READERS)
def test_rows_and_keys_are_the_stores(store, whole, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    export(EmbeddingStore(store), out, rows_per_block=40)
    keys, rows = READERS[suffix](out)
    assert np.array_equal(keys, whole.keys.numpy())
    for layer in LAYERS:
        assert np.array_equal(rows[f"layer_{layer:02d}"], whole.rows[layer].numpy())
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []


@pytest.mark.parametrize("suffix", READERS)
def test_a_split_of_one_layer(store, tmp_path, suffix):
    train = EmbeddingStore(store).split("train")
    export(train, tmp_path / f"out{suffix}", layers=[-1])
    keys, rows = READERS[suffix](tmp_path / f"out{suffix}")
    expected = train.read(0, len(train))
    assert np.array_equal(keys, expected.keys.numpy())
    assert list(rows) == ["layer_03"]
    assert np.array_equal(rows["layer_03"], expected.rows[3].numpy())


@pytest.mark.parametrize("suffix", READERS)
def test_nothing_is_replaced_unasked_or_left_half_written(store, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    export(EmbeddingStore(store), out)
    with pytest.raises(FileExistsError, match=r"give another name, or .*\(--overwrite\)"):
        export(EmbeddingStore(store), out)
    export(EmbeddingStore(store), out, layers=[0], overwrite=True)
    assert list(READERS[suffix](out)[1]) == ["layer_00"]
    damaged = EmbeddingStore(store)
    (store / "layer=03" / "part-0-1.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="part-0-1"):
        export(damaged, out, overwrite=True)
    assert list(READERS[suffix](out)[1]) == ["layer_00"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", READERS)
def test_an_export_that_gets_no_name_leaves_the_old_one(store, tmp_path, monkeypatch, suffix):
    out = tmp_path / f"out{suffix}"
    export(EmbeddingStore(store), out, layers=[3])
    renamed = os.replace

    def interrupted(source, target):
        if Path(target) == out and "unfinished" in Path(source).name:
            raise KeyboardInterrupt
        renamed(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(EmbeddingStore(store), out, layers=[0], overwrite=True)
    assert list(READERS[suffix](out)[1]) == ["layer_03"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_new_folder_is_whole_before_the_old_one_is_removed(store, tmp_path, monkeypatch):
    out = tmp_path / "out.zarr"
    export(EmbeddingStore(store), out, layers=[3])
    removed = shutil.rmtree

    def interrupted(path):
        next(file for file in path.rglob("*") if file.is_file()).unlink()
        monkeypatch.setattr(shutil, "rmtree", removed)
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(EmbeddingStore(store), out, layers=[0], overwrite=True)
    keys, rows = from_zarr(out)
    assert len(keys) == len(EmbeddingStore(store))
    assert list(rows) == ["layer_00"]


@pytest.mark.parametrize(("old", "new"), [("file", ".zarr"), ("folder", ".parquet")])
def test_a_file_takes_the_place_of_a_folder_and_a_folder_that_of_a_file(store, tmp_path, old, new):
    out = tmp_path / f"out{new}"
    if old == "file":
        out.write_text("old")
    else:
        out.mkdir()
        (out / "part").write_text("old")
    export(EmbeddingStore(store), out, overwrite=True)
    assert len(READERS[new](out)[0]) == len(EmbeddingStore(store))
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unknown_ending_is_said(store, tmp_path):
    with pytest.raises(ValueError, match=r"ends in '.hdf5', expected one of .arrow, .feather"):
        export(EmbeddingStore(store), tmp_path / "out.hdf5")


@pytest.mark.parametrize(("suffix", "extra"), [(".parquet", "arrow"), (".zarr", "zarr")])
def test_a_missing_library_is_said(store, tmp_path, monkeypatch, suffix, extra):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(module, "import_module", missing)
    with pytest.raises(ValueError, match=rf"is not installed; pip install 'fastinn\[{extra}\]'"):
        export(EmbeddingStore(store), tmp_path / f"out{suffix}")
