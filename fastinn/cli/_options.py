"""Options that commands share, and what becomes of them."""

import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, cast

import torch
import typer

from fastinn._types import Precision
from fastinn.align import INN
from fastinn.embed import Corpus, EmbeddingStore, Encoder, levels
from fastinn.embed.store import is_store

Reader = TypeVar("Reader")

INN_STEPS = INN().max_steps
NO_NETWORKS = "no network is trained without --networks"

Item = TypeVar("Item")

AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable results instead.")]
CorpusFile = Annotated[
    list[str] | None,
    typer.Option(
        "--corpus",
        help="txt, jsonl, csv, tsv or parquet file, a folder of them, or a URL such as s3://; "
        "may be repeated; default: Python's own docs.",
    ),
]
Column = Annotated[str, typer.Option(help="Field or column that holds the text.")]
LabelColumn = Annotated[str, typer.Option("--label", help="Field or column that holds the label.")]
Documents = Annotated[int | None, typer.Option(help="Read only the first documents.", min=1)]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Overwrite = Annotated[bool, typer.Option(help="Replace the run that the folder holds.")]
MaxSteps = Annotated[
    int | None, typer.Option(help=f"Training steps of a network; default: {INN_STEPS}.", min=0)
]
RandomState = Annotated[int, typer.Option(help="Seed of initialisation and shuffling.")]


Storage = Annotated[Path | None, typer.Option(help="Folder for moments that memory does not hold.")]
TokensPerBlock = Annotated[
    int, typer.Option(help="Tokens read at once; memory grows with it.", min=1)
]
Fast = Annotated[
    bool, typer.Option("--fast", help="Run the models in 16 bits, about 1 % off a layer's states.")
]


class Cells(StrEnum):
    """Layer pairs of the linear family."""

    all = "all"
    same_layer = "same-layer"


class Level(StrEnum):
    """What a row is."""

    token = "token"
    word = "word"
    sentence = "sentence"
    cls = "cls"


LevelOfRows = Annotated[
    Level | None,
    typer.Option(
        "--level", help="A row is a token (default), a word, a text's mean, or its [CLS]."
    ),
]


Sources: TypeAlias = dict[str, Encoder] | dict[str, EmbeddingStore]
"""What each seed is read from, by name."""


def processors() -> int:
    """Return how many networks to train at once; those on a GPU share it one after the other."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


def budget(
    max_steps: int | None, max_seconds: float | None = None, *, untrained: str = ""
) -> dict[str, Any]:
    """Return how long networks are trained, as parameters of each.

    Args:
        max_steps: Steps, as given.
        max_seconds: Time in place of steps, as given.
        untrained: Why there is no network to train, if there is none.
    """
    if untrained and (max_steps, max_seconds) != (None, None):
        given = "--max-seconds" if max_steps is None else "--max-steps"
        raise ValueError(f"{untrained}; leave {given} out")
    if max_seconds is None:
        return {"max_steps": INN_STEPS if max_steps is None else max_steps}
    if max_steps is not None:
        raise ValueError("give --max-steps or --max-seconds, not both")
    return {"max_steps": None, "max_seconds": max_seconds}


def command_line() -> str:
    """Return the command as it was typed, for the record."""
    return " ".join(["fastinn", *sys.argv[1:]])


def corpus_for(
    sources: Sources, paths: list[str] | None, column: str, documents: int | None
) -> Corpus | None:
    """Return the corpus that encoders read; stores have read theirs."""
    if not any(isinstance(source, EmbeddingStore) for source in sources.values()):
        return corpus_of(paths, column, documents)
    if paths or documents:
        raise ValueError("stores have read their corpus; leave --corpus and --documents out")
    return None


def corpus_of(paths: list[str] | None, column: str, documents: int | None = None) -> Corpus:
    """Return the corpus that the options name."""
    corpus = Corpus.from_files(paths, column=column) if paths else Corpus.python_docs()
    return corpus if documents is None else corpus.head(documents)


def encoder(
    model: str, layers: str, level: Level, *, fast: bool = False, exact: bool = False
) -> Encoder:
    """Return the encoder of a model that reads ``layers``, as ``--layers`` gives them."""
    if fast and exact:
        raise ValueError("give --fast or --exact, not both: models run in 16 bits or in 32")
    in_float32: Precision = "exact" if exact else "high"
    return Encoder(
        model,
        layers="all" if layers == "all" else numbers(layers, "--layers"),
        level=cast(levels.Level, level.value),
        precision="fast" if fast else in_float32,
    )


def sources_of(
    places: Sequence[str],
    layers: str,
    level: Level | None = None,
    *,
    fast: bool = False,
    exact: bool = False,
) -> Sources:
    """Return what the places hold, by name: stores of hidden states, or models to read live."""
    if _are_stores(places, fast=fast):
        return by_name(places, lambda place: _store(place, layers, level))
    rows = level or Level.token
    return by_name(places, lambda place: encoder(place, layers, rows, fast=fast, exact=exact))


def pair_of(
    source: str, target: str, layers: tuple[int, int], level: Level | None, *, fast: bool
) -> Sources:
    """Return what two places hold, as ``"source"`` and ``"target"``, one layer of each."""
    ends = zip(("source", "target"), (source, target), layers, strict=True)
    if _are_stores((source, target), fast=fast):
        return {end: _store(place, str(layer), level) for end, place, layer in ends}
    rows = level or Level.token
    return {end: encoder(place, str(layer), rows, fast=fast) for end, place, layer in ends}


def _are_stores(places: Sequence[str], *, fast: bool) -> bool:
    stores = [place for place in places if is_store(place)]
    others = [place for place in places if place not in stores]
    if stores and others:
        raise ValueError(
            f"{stores[0]} is a store and {others[0]} is none; give stores or models, not both: "
            "fastinn extract makes stores"
        )
    if stores and fast:
        raise ValueError("stores hold what their models gave; leave --fast out")
    return bool(stores)


def _store(place: str, layers: str, level: Level | None) -> EmbeddingStore:
    store = EmbeddingStore(place)
    if level not in (None, store.level):
        raise ValueError(f"{place} holds level {store.level!r}, {str(level)!r} is wanted")
    return store if layers == "all" else store.select(numbers(layers, "--layers"))


def name(model: str) -> str:
    """Return what results call a model: the last part of its id or folder, no revision."""
    return _last_part(model).partition("@")[0]


def names_of(models: Sequence[str]) -> dict[str, str]:
    """Return the models by name, with their revisions where only these tell them apart."""
    short = [name(model) for model in models]
    named = {
        own if short.count(own) == 1 else _last_part(model): model
        for own, model in zip(short, models, strict=True)
    }
    if len(named) < len(models):
        raise ValueError(f"two models have the same name in {', '.join(models)}; rename a folder")
    return named


def _last_part(model: str) -> str:
    return os.path.basename(os.path.abspath(model))  # "." has a name, too


def by_name(models: Sequence[str], load: Callable[[str], Reader]) -> dict[str, Reader]:
    """Load each model under its name, or say that two have the same one."""
    return {own: load(model) for own, model in names_of(models).items()}


def numbers(text: str, option: str) -> list[int]:
    """Read numbers separated by commas; an error names the option."""
    return _separated(text, option, int, "numbers such as 0,6,-1")


def decimals(text: str, option: str) -> list[float]:
    """Read decimal numbers separated by commas, likewise."""
    return _separated(text, option, float, "numbers such as 1,1.5")


def network_cells(text: str, option: str) -> list[int | tuple[int, int]]:
    """Read layers and cells separated by commas, likewise; ``3:5`` is from layer 3 to layer 5."""
    return _separated(text, option, _cell, "layers and cells such as -1,3:5") if text else []


def _cell(text: str) -> int | tuple[int, int]:
    if ":" not in text:
        return int(text)
    source, target = text.split(":")
    return int(source), int(target)


def _separated(text: str, option: str, read: Callable[[str], Item], example: str) -> list[Item]:
    try:
        return [read(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} is {text!r}, expected {example}") from None
