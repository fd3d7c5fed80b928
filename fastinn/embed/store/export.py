"""Stores as files that other tools read: Arrow, Parquet, Zarr."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from fastinn._progress import progress
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.embed.source import Encoded
from fastinn.embed.store.reader import EmbeddingStore

KEYS = ("document", "position", "id")
"""Columns of the keys; ``id`` is that of the token, or the hash of the word."""

Write = Callable[[Encoded], None]


def export(
    store: EmbeddingStore,
    out: str | Path,
    *,
    layers: Sequence[int] | None = None,
    rows_per_block: int = TOKENS_PER_BLOCK,
    overwrite: bool = False,
) -> None:
    """Write a store, block by block, to a file that appears when it is whole.

    Rows are written in float32, one column or array a layer (``layer_00``), beside their keys.

    Args:
        store: What to write, or a split of it.
        out: ``.arrow`` or ``.feather`` (Arrow IPC), ``.parquet``, or ``.zarr`` (a folder).
        layers: Layers to write; ``None`` for all.
        rows_per_block: Rows in memory at once.
        overwrite: Replace ``out``.

    Raises:
        ValueError: If the ending is unknown or the library for it is not installed.
        FileExistsError: If ``out`` is there already.
    """
    out = Path(out)
    if out.suffix not in _FORMATS:
        raise ValueError(f"{out} ends in {out.suffix!r}, expected one of {', '.join(_FORMATS)}")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; give another name, or overwrite=True (--overwrite)")
    chosen = store.resolve(layers)
    unfinished = out.with_name(f"{out.name}.{os.getpid()}.unfinished")
    try:
        with (
            _FORMATS[out.suffix](unfinished, store, chosen, rows_per_block) as write,
            progress(label="export", total=len(store), unit=" rows") as bar,
        ):
            for block in store.blocks(rows_per_block, chosen):
                write(block)
                bar.update(len(block.keys))
        _replace(out, unfinished)
    finally:
        _remove(unfinished)


@contextmanager
def _arrow(path: Path, store: EmbeddingStore, layers: list[int], rows: int) -> Iterator[Write]:
    pyarrow = _library("pyarrow")
    schema = _schema(pyarrow, store, layers)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, schema) as writer:
        yield lambda block: writer.write_batch(_batch(pyarrow, schema, block))


@contextmanager
def _parquet(path: Path, store: EmbeddingStore, layers: list[int], rows: int) -> Iterator[Write]:
    pyarrow = _library("pyarrow")
    parquet = _library("pyarrow.parquet")
    schema = _schema(pyarrow, store, layers)
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda block: writer.write_batch(_batch(pyarrow, schema, block))


@contextmanager
def _zarr(path: Path, store: EmbeddingStore, layers: list[int], rows: int) -> Iterator[Write]:
    zarr = _library("zarr")
    group = zarr.create_group(path, attributes=store.header.fields())
    n, d = len(store), store.n_features
    chunk = max(1, min(rows, n))
    keys = group.create_array("keys", shape=(n, 3), chunks=(chunk, 3), dtype="int64")
    arrays = {
        layer: group.create_array(_column(layer), shape=(n, d), chunks=(chunk, d), dtype="float32")
        for layer in layers
    }
    at = 0

    def write(block: Encoded) -> None:
        nonlocal at
        stop = at + len(block.keys)
        keys[at:stop] = block.keys.numpy()
        for layer, array in arrays.items():
            array[at:stop] = block.rows[layer].numpy()
        at = stop

    yield write


_FORMATS: dict[str, Any] = {
    ".arrow": _arrow,
    ".feather": _arrow,
    ".parquet": _parquet,
    ".zarr": _zarr,
}


def _schema(pyarrow: Any, store: EmbeddingStore, layers: Sequence[int]) -> Any:
    row = pyarrow.list_(pyarrow.float32(), store.n_features)
    columns = [(name, pyarrow.int64()) for name in KEYS]
    columns += [(_column(layer), row) for layer in layers]
    about = {name: str(value) for name, value in store.header.fields().items()}
    return pyarrow.schema(columns, metadata=about)


def _batch(pyarrow: Any, schema: Any, block: Encoded) -> Any:
    columns = [pyarrow.array(column.numpy()) for column in block.keys.T.contiguous()]
    columns += [_lists(pyarrow, block.rows[layer]) for layer in sorted(block.rows)]
    return pyarrow.record_batch(columns, schema=schema)


def _lists(pyarrow: Any, rows: Tensor) -> Any:
    values = pyarrow.array(rows.reshape(-1).numpy())
    return pyarrow.FixedSizeListArray.from_arrays(values, rows.shape[1])


def _column(layer: int) -> str:
    return f"layer_{layer:02d}"


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        extra = name.partition(".")[0]
        raise ValueError(
            f"{extra} is not installed; pip install 'fastinn[{_EXTRAS[extra]}]'"
        ) from error


_EXTRAS = {"pyarrow": "arrow", "zarr": "zarr"}


def _replace(out: Path, whole: Path) -> None:
    """Give ``whole`` the name ``out``; if it is interrupted, the old one or the new one has it."""
    former = out.with_name(f"{out.name}.{os.getpid()}.former")
    try:
        if out.is_dir() or (whole.is_dir() and out.exists()):  # no rename replaces a folder
            os.replace(out, former)
        os.replace(whole, out)
    except BaseException:
        if former.exists() and not out.exists():
            os.replace(former, out)
        raise
    _remove(former)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
