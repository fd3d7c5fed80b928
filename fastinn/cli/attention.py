"""``fastinn attention``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fastinn.align import INN, MLPMap
from fastinn.cli._options import (
    NO_NETWORKS,
    AsJson,
    Column,
    CorpusFile,
    Documents,
    MaxSteps,
    Out,
    Overwrite,
    RandomState,
    budget,
    by_name,
    command_line,
    corpus_of,
    numbers,
    processors,
)
from fastinn.cli._plan import announce_networks
from fastinn.cli._run import Save, run_into
from fastinn.embed import AttentionEncoder
from fastinn.report import terminal
from fastinn.report.folder import RunFolder
from fastinn.study.attention import compare_attention, layers_of
from fastinn.study.comparison import Comparison
from fastinn.study.layers import check, network_pairs


def attention(
    models: Annotated[list[str], typer.Argument(help="Hub ids or folders, two or more.")],
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 1,6,-1.")] = "all",
    max_length: Annotated[int, typer.Option(help="Tokens a window; width of a head.", min=3)] = 32,
    networks: Annotated[
        str, typer.Option(help="Layers at which INN and MLP are trained; '' for none.")
    ] = "",
    max_steps: MaxSteps = None,
    random_state: RandomState = 0,
    out: Out = Path("fastinn-attention"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare whom the heads of several models attend to: head by head and layer by layer.

    Example: fastinn attention google/multiberts-seed_0 google/multiberts-seed_1 --corpus wiki.txt
    """
    training = budget(max_steps, untrained="" if networks else NO_NETWORKS)
    encoders = by_name(models, lambda model: _encoder(model, layers, max_length))
    how = Comparison(
        network_layers=numbers(networks, "--networks") if networks else (),
        inn=INN(**training, random_state=random_state),
        mlp=MLPMap(**training, random_state=random_state),
        n_jobs=processors(),
    )
    read = layers_of(encoders)
    check(read, how)
    text = corpus_of(corpus, column, documents)
    with RunFolder(out, overwrite=overwrite) as folder:
        how = replace(how, checkpoints=folder.checkpoints)
        announce_networks(how, len(network_pairs(read, how.network_layers)), as_json)

        def run(save: Save) -> object:
            return compare_attention(encoders, text, how, command=command_line(), save=save)

        run_into(folder, run, text, as_json, [terminal.baseline_table])


def _encoder(model: str, layers: str, max_length: int) -> AttentionEncoder:
    return AttentionEncoder(
        model,
        layers="all" if layers == "all" else numbers(layers, "--layers"),
        max_length=max_length,
    )
