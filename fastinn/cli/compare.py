"""``fastinn compare``."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastinn.align import INN, MLPMap, PublishedBertINN
from fastinn.cli._options import (
    NO_NETWORKS,
    AsJson,
    Cells,
    Column,
    CorpusFile,
    Documents,
    Fast,
    Level,
    LevelOfRows,
    MaxSteps,
    Out,
    Overwrite,
    RandomState,
    Sources,
    Storage,
    TokensPerBlock,
    budget,
    corpus_for,
    name,
    names_of,
    network_cells,
    processors,
    sources_of,
)
from fastinn.cli._run import run_comparison
from fastinn.embed import EmbeddingStore
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.study.comparison import PAPER_DOCUMENTS, Comparison


class Protocol(StrEnum):
    """Settings that belong together."""

    fastinn = "fastinn"
    paper = "paper"


class Objective(StrEnum):
    """What an INN learns."""

    two_way = "two-way"
    forward = "forward"


def compare(
    sources: Annotated[
        list[str], typer.Argument(help="Hub ids or folders of models, or stores; two or more.")
    ],
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 0,6,-1.")] = "all",
    cells: Annotated[Cells, typer.Option(help="Layer pairs of the linear family.")] = Cells.all,
    level: LevelOfRows = None,
    networks: Annotated[
        str,
        typer.Option(help="Layers, or cells such as 3:5, to train INN and MLP at; '' for none."),
    ] = "-1",
    published: Annotated[bool, typer.Option(help="Train BERT-INN beside the INN.")] = False,
    hub: Annotated[
        str | None,
        typer.Option(help="Train one INN a model too: into 'consensus' or one model's space."),
    ] = None,
    hub_steps: Annotated[
        int | None, typer.Option(help="Training steps of a hub; default: --max-steps.", min=0)
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="'paper': BERT-INN, forward error, 1600 mean-pooled samples, unless given."
        ),
    ] = Protocol.fastinn,
    objective: Annotated[
        Objective | None,
        typer.Option(help="What the INN learns: both directions (default), or the first alone."),
    ] = None,
    max_steps: MaxSteps = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Training time of a network, in place of steps.", min=0)
    ] = None,
    hidden: Annotated[
        int | None,
        typer.Option(help="Width of INN and MLP; default: by the number of features.", min=1),
    ] = None,
    max_rows: Annotated[
        int | None,
        typer.Option(help="Rows of each split that networks see at most; default: 200,000.", min=1),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Pairs trained at once; default: one a thread, or 1 with a GPU.", min=1),
    ] = None,
    storage: Storage = None,
    fast: Fast = False,
    tokens_per_block: TokensPerBlock = TOKENS_PER_BLOCK,
    random_state: RandomState = 0,
    out: Out = Path("fastinn-compare"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare every pair of models, layer by layer, on held-out documents; a killed run goes on.

    Example: fastinn compare google/multiberts-seed_0 google/multiberts-seed_1 --corpus wiki.txt
    """
    if hub_steps is not None and hub is None:
        raise ValueError("--hub-steps is given and no hub; add --hub consensus, or leave it out")
    trained = network_cells(networks, "--networks")
    paper = protocol is Protocol.paper
    read = sources_of(sources, layers, Level.sentence if paper and not level else level, fast=fast)
    untrained = "" if trained else NO_NETWORKS
    training = budget(max_steps, max_seconds, untrained=untrained) | {"random_state": random_state}
    bert_inn = PublishedBertINN(**training)
    how = Comparison(
        cells=cells.value,
        network_layers=trained,
        inn=INN(hidden=hidden, **training),
        published=bert_inn if published or paper else None,
        hub=None if hub is None else _name_in(sources, hub),
        hub_steps=hub_steps,
        mlp=MLPMap(hidden=hidden, **training),
        n_jobs=jobs or processors(),
        storage=storage,
        tokens_per_block=tokens_per_block,
    )
    if paper:
        how = how.as_published()
        if not trained and not published:
            how = replace(how, published=None)
        documents = documents or _paper_documents(read)
    if objective is not None:
        how.inn.set_params(objective=objective.value)
    if max_rows is not None:
        how = replace(how, max_rows=max_rows)
    text = corpus_for(read, corpus, column, documents)
    run_comparison(read, text, how, out, overwrite, as_json, "fastinn compare")


def _name_in(sources: list[str], hub: str) -> str:
    """Return what the results call the model that ``--hub`` names, as the others are or so."""
    named = names_of(sources)
    given = (own for own, place in named.items() if Path(place) == Path(hub))
    return hub if hub in named else next(given, name(hub))


def _paper_documents(read: Sources) -> int | None:
    """Return how many texts the published protocol reads, or check that stores hold no more."""
    stores = {own: held for own, held in read.items() if isinstance(held, EmbeddingStore)}
    for own, store in stores.items():
        if len(store) > PAPER_DOCUMENTS:
            raise ValueError(
                f"{own} holds {len(store):,} texts and the published protocol has "
                f"{PAPER_DOCUMENTS:,}, of which it trains on 1600; make stores by fastinn extract "
                f"--level sentence --documents {PAPER_DOCUMENTS}"
            )
    return None if stores else PAPER_DOCUMENTS
