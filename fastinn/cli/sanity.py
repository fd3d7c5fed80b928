"""``fastinn sanity``."""

from typing import Annotated

import typer

from fastinn.align import MLPMap
from fastinn.cli._options import (
    AsJson,
    Column,
    CorpusFile,
    Documents,
    RandomState,
    corpus_of,
    decimals,
)
from fastinn.cli._plan import announce
from fastinn.cli._terminal import report_left_out, show
from fastinn.embed import Encoder, stream
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.embed.seeds import shipped_seeds
from fastinn.report import terminal
from fastinn.study._gpu import on_gpu
from fastinn.study.passes import run_pass
from fastinn.study.sanity import STRENGTHS, sanity_check, thorough_inn, thorough_published


def sanity(
    model: Annotated[str | None, typer.Argument(help="Hub id or folder; a shipped seed.")] = None,
    layer: Annotated[int, typer.Option(help="Layer whose states are used.")] = -1,
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = 140,
    max_rows: Annotated[int, typer.Option(help="Rows at most.", min=100)] = 150_000,
    strengths: Annotated[
        str, typer.Option(help="How far from linear the hidden networks are, such as 1,1.18,2.")
    ] = ",".join(map(str, STRENGTHS)),
    max_steps: Annotated[
        int | None,
        typer.Option(
            help="Training steps of a network; default: 1500 of the INN, 1000 of the others.", min=0
        ),
    ] = None,
    random_state: RandomState = 0,
    as_json: AsJson = False,
) -> None:
    """Hide a known bijection in hidden states and see which methods recover it.

    Example: fastinn sanity --layer -1 --strengths 1,1.18,2
    """
    gains = decimals(strengths, "--strengths")
    encoder = Encoder(model or str(next(iter(shipped_seeds().values()))), layers=[layer])
    view = ("model", encoder.layers[0])
    text = corpus_of(corpus, column, documents)
    announce({"model": encoder}, text, TOKENS_PER_BLOCK, as_json)
    done = run_pass(
        stream({"model": encoder}, text),
        pairs="all",
        sampled=[view],
        max_rows=max_rows,
        label="read",
    )
    inn, published, mlp = thorough_inn(), thorough_published(), MLPMap()
    for network in (inn, published, mlp):
        network.set_params(random_state=random_state)
        if max_steps is not None:
            network.set_params(max_steps=max_steps)
    found = sanity_check(
        on_gpu(done.rows[view]),
        documents=done.documents,
        strengths=gains,
        inn=inn,
        published=published,
        mlp=mlp,
        random_state=random_state,
    )
    report_left_out(text)
    records = [vars(recovery) for recovery in found]
    show(records, as_json, terminal.recovery_table)
