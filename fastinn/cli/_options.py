"""Options that commands share, and what becomes of them."""

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar, cast

import torch
import typer

from fastinn.align import INN
from fastinn.embed import Corpus, Encoder, levels

Reader = TypeVar("Reader")

INN_STEPS = INN().max_steps

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
RandomState = Annotated[int, typer.Option(help="Seed of initialisation and shuffling.")]


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


def processors() -> int:
    """Return how many networks to train at once; those on a GPU share it one after the other."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


def command_line() -> str:
    """Return the command as it was typed, for the record."""
    return " ".join(["fastinn", *sys.argv[1:]])


def corpus_of(paths: list[str] | None, column: str, documents: int | None = None) -> Corpus:
    """Return the corpus that the options name."""
    corpus = Corpus.from_files(paths, column=column) if paths else Corpus.python_docs()
    return corpus if documents is None else corpus.head(documents)


def encoder(model: str, layers: str, level: Level) -> Encoder:
    """Return the encoder of a model that reads ``layers``, as ``--layers`` gives them."""
    return Encoder(
        model,
        layers="all" if layers == "all" else numbers(layers, "--layers"),
        level=cast(levels.Level, level.value),
    )


def name(model: str) -> str:
    """Return what results call a model: the last part of its id or folder."""
    return Path(model).name


def by_name(models: Sequence[str], load: Callable[[str], Reader]) -> dict[str, Reader]:
    """Load each model under its name, or say that two have the same one."""
    loaded = {name(model): load(model) for model in models}
    if len(loaded) < len(models):
        raise ValueError(f"two models have the same name in {', '.join(models)}; rename a folder")
    return loaded


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
