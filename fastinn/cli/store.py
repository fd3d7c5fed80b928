"""``fastinn store``: look at embedding stores, check them, hand them to other tools."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastinn.cli._options import AsJson, numbers
from fastinn.cli._terminal import say, show
from fastinn.embed import EmbeddingStore
from fastinn.embed.store import verify
from fastinn.embed.store.export import export
from fastinn.embed.store.overview import overview, stores_below
from fastinn.report import terminal

StorePath = Annotated[str, typer.Argument(help="Folder of a store or of several, or a URL of one.")]


class SplitName(StrEnum):
    """Splits of a corpus."""

    train = "train"
    validation = "validation"
    test = "test"


def list_stores(path: StorePath, as_json: AsJson = False) -> None:
    """List stores: model, layers, rows, bytes, and how far each writer is.

    Example: fastinn store ls states/
    """
    found = {store: overview(store) for store in stores_below(path)}
    show(found, as_json, terminal.store_table)


def verify_stores(path: StorePath, as_json: AsJson = False) -> None:
    """Read everything and report every damaged shard; exit code 1 if there is one.

    Example: fastinn store verify states/seed-0@main
    """
    found = {store: verify(store) for store in stores_below(path)}
    show({s: vars(verdict) for s, verdict in found.items()}, as_json, terminal.verdict_table)
    for store, verdict in found.items():
        for damage in verdict.damages:
            say(as_json, f"{store}: {damage}")
    if not all(verdict.sound for verdict in found.values()):
        sys.exit(1)


def export_store(
    path: Annotated[str, typer.Argument(help="Folder or URL of a store.")],
    out: Annotated[Path, typer.Argument(help="File to write: arrow, feather, parquet or zarr.")],
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 0,6,-1.")] = "all",
    split: Annotated[SplitName | None, typer.Option(help="Which split; all.")] = None,
    unfinished: Annotated[
        bool, typer.Option(help="Write what is committed of an unfinished store.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a store as Arrow, Parquet or Zarr, block by block.

    Example: fastinn store export states/seed-0@main states.parquet --layers 0,6,-1
    """
    store = EmbeddingStore(path, unfinished=unfinished)
    if split is not None:
        store = store.split(split.value)
    chosen = None if layers == "all" else numbers(layers, "--layers")
    export(store, out, layers=chosen, overwrite=overwrite)
    if as_json:
        print(json.dumps({"out": str(out), "rows": len(store)}))
    say(as_json, f"{len(store):,} rows are in {out}.")
