"""Writing and reading an embedding store, verified, against a raw memory map of the same bytes.

A token is a row of every layer. The files are in memory where the system has such a folder: what
is compared is the work, not the disk, which both sides wait for alike.
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accuracy import check
from ceilings import copying
from comparison import Case
from workloads import rows

from fastinn.embed import EmbeddingStore, Encoded, StoreHeader, StoreWriter

D, LAYERS, BLOCK, BLOCKS = 768, (0, 6, 12), 4096, 8
N = BLOCK * BLOCKS
DTYPES = {"float32": np.float32, "bfloat16": np.uint16}


@pytest.fixture(scope="module")
def blocks():
    keys = torch.stack([torch.arange(N) // 100, torch.arange(N) % 100, torch.arange(N)], dim=1)
    states = {layer: rows(N, D, "cpu", layer).split(BLOCK) for layer in LAYERS}
    split = keys.split(BLOCK)
    return [Encoded({la: states[la][i] for la in LAYERS}, split[i]) for i in range(BLOCKS)]


@pytest.fixture
def folder():
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def header(dtype):
    return StoreHeader(
        model="bench",
        revision=None,
        weights="0",
        tokenizer="0",
        level="token",
        max_length=512,
        precision="exact",
        dtype=dtype,
        layers=LAYERS,
        n_layers=12,
        n_features=D,
        corpus="bench",
    )


def write_store(path, blocks, dtype):
    shutil.rmtree(path, ignore_errors=True)
    places = dict.fromkeys(range(N // 100 + 1), 0.5)
    with StoreWriter(path, header(dtype)) as out:
        for i, block in enumerate(blocks):
            out.append(block, places, {"block": i + 1})


def raw(path, layer, dtype, mode="r"):
    return np.memmap(path / f"raw-{layer}", DTYPES[dtype], mode, shape=(N, D))


def stored(states, dtype):
    return states.bfloat16().view(torch.uint16) if dtype == "bfloat16" else states


def write_raw(path, blocks, dtype):
    for layer in LAYERS:
        target = raw(path, layer, dtype, "w+")
        for i, block in enumerate(blocks):
            target[i * BLOCK : (i + 1) * BLOCK] = stored(block.rows[layer], dtype).numpy()
        target.flush()


def read_store(store, order):
    for i in order:
        store.read(i * BLOCK, (i + 1) * BLOCK)


def read_raw(path, order, dtype):
    """Copy the rows out of the map, which does not check them; to float32, as the store does."""
    for layer in LAYERS:
        source = raw(path, layer, dtype)
        for i in order:
            found = torch.from_numpy(np.array(source[i * BLOCK : (i + 1) * BLOCK]))
            if dtype == "bfloat16":
                found.view(torch.bfloat16).float()


def nbytes(dtype):
    return N * D * len(LAYERS) * np.dtype(DTYPES[dtype]).itemsize


def error_of(path, blocks, dtype):
    """Return the largest difference between what is read and what was written; none is meant."""
    errors = []
    for block, found in zip(blocks, EmbeddingStore(path).blocks(BLOCK), strict=True):
        for layer, states in block.rows.items():
            rounded = states.to(getattr(torch, dtype)).float()
            errors.append(float((found.rows[layer] - rounded).abs().max()))
    return max(errors)


def compare(comparison, name, dtype, ours, peer, error):
    case = Case(f"{name}, {dtype}", N, copying("cpu"), nbytes(dtype), "exact", "reference")
    comparison(case, ours, {"np.memmap": peer}, check(error, 0.0, "store"))
    nanoseconds = comparison.results.figures[-1]["ns_per_token"]
    comparison.report(f"  {nbytes(dtype) / N / nanoseconds * 1e3:,.0f} MB/s")


@pytest.mark.parametrize("dtype", DTYPES)
def test_write(comparison, blocks, folder, dtype):
    ours = partial(write_store, folder / "store", blocks, dtype)
    ours()
    error = error_of(folder / "store", blocks, dtype)
    compare(comparison, "write", dtype, ours, partial(write_raw, folder, blocks, dtype), error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["sequential", "shuffled blocks"])
def test_read(comparison, blocks, folder, dtype, order):
    write_store(folder / "store", blocks, dtype)
    write_raw(folder, blocks, dtype)
    error = error_of(folder / "store", blocks, dtype)
    turns = list(range(BLOCKS)) if order == "sequential" else [5, 2, 7, 0, 3, 6, 1, 4]
    store = EmbeddingStore(folder / "store")
    ours, peer = partial(read_store, store, turns), partial(read_raw, folder, turns, dtype)
    compare(comparison, f"read {order}", dtype, ours, peer, error)
