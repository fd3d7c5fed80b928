"""``fastinn finetune``."""

from pathlib import Path
from typing import Annotated

import typer

from fastinn.cli._options import AsJson, Column, LabelColumn, RandomState
from fastinn.cli._terminal import say, show
from fastinn.embed.cards import load_card
from fastinn.embed.finetune import FinetuneConfig
from fastinn.embed.finetune import finetune as train
from fastinn.embed.labelled import read_labelled
from fastinn.report import terminal


def finetune(
    model: Annotated[str, typer.Argument(help="Hub id or folder of an encoder.")],
    data: Annotated[Path, typer.Option(help="tsv, csv or jsonl file: a text and its label a row.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the classifier.")],
    validation: Annotated[
        Path | None, typer.Option(help="Rows that pick the epoch; default: a tenth of the data.")
    ] = None,
    column: Column = "text",
    label: LabelColumn = "label",
    epochs: Annotated[
        int, typer.Option(help="Passes over the data.", min=1)
    ] = FinetuneConfig.epochs,
    batch: Annotated[int, typer.Option(help="Texts a step.", min=1)] = FinetuneConfig.batch,
    lr: Annotated[float, typer.Option(help="Peak learning rate.", min=0)] = FinetuneConfig.lr,
    length: Annotated[
        int | None, typer.Option(help="Tokens a text at most; default: the model's.", min=3)
    ] = None,
    random_state: RandomState = 0,
    as_json: AsJson = False,
) -> None:
    """Train a sequence classifier from a pretrained encoder; a finished one is kept.

    Example: fastinn finetune seeds/seed-0 --data train.tsv --out seed-0-sst2
    """
    config = FinetuneConfig(epochs=epochs, batch=batch, lr=lr, length=length, seed=random_state)
    rows = read_labelled(data, text=column, label=label)
    held_out = None if validation is None else read_labelled(validation, text=column, label=label)
    folder = train(model, rows, out, config=config, validation=held_out)
    show(load_card(folder), as_json, terminal.finetune_table)
    say(as_json, f"The classifier is in {folder}.")
