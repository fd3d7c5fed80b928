"""``fastinn compare``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastinn.align import INN, MLPMap
from fastinn.cli._options import (
    INN_STEPS,
    AsJson,
    Column,
    CorpusFile,
    Documents,
    Out,
    Overwrite,
    RandomState,
    by_name,
    corpus_of,
    encoder,
    numbers,
    processors,
)
from fastinn.cli._run import run_comparison
from fastinn.report.folder import RunFolder
from fastinn.study.layers import Comparison


class Cells(StrEnum):
    """Layer pairs of the linear family."""

    all = "all"
    same_layer = "same-layer"


def compare(
    models: Annotated[list[str], typer.Argument(help="Hub ids or folders, two or more.")],
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 0,6,-1.")] = "all",
    cells: Annotated[Cells, typer.Option(help="Layer pairs of the linear family.")] = Cells.all,
    networks: Annotated[
        str, typer.Option(help="Layers at which INN and MLP are trained; '' for none.")
    ] = "-1",
    max_steps: Annotated[int, typer.Option(help="Training steps of an INN.", min=0)] = INN_STEPS,
    max_rows: Annotated[int, typer.Option(help="Rows a network trains on.", min=1)] = 200_000,
    jobs: Annotated[
        int | None, typer.Option(help="Pairs trained at once; default: one a processor.", min=1)
    ] = None,
    storage: Annotated[
        Path | None, typer.Option(help="Folder for moments that memory does not hold.")
    ] = None,
    random_state: RandomState = 0,
    out: Out = Path("fastinn-compare"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare every pair of models, layer by layer, on held-out documents.

    Example: fastinn compare google/multiberts-seed_0 google/multiberts-seed_1 --corpus wiki.txt
    """
    folder = RunFolder(out, overwrite=overwrite)
    encoders = by_name(models, lambda model: encoder(model, layers))
    how = Comparison(
        cells=cells.value,
        network_layers=numbers(networks, "--networks") if networks else (),
        inn=INN(max_steps=max_steps, random_state=random_state),
        mlp=MLPMap(random_state=random_state),
        max_rows=max_rows,
        n_jobs=jobs or processors(),
        storage=storage,
    )
    text = corpus_of(corpus, column, documents)
    run_comparison(encoders, text, how, folder, as_json, "fastinn compare")
