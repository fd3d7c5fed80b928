"""``fastinn extract``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastinn.cli._options import (
    AsJson,
    Column,
    CorpusFile,
    Documents,
    Fast,
    Level,
    LevelOfRows,
    Out,
    TokensPerBlock,
    by_name,
    corpus_of,
    encoder,
)
from fastinn.cli._plan import announce, announce_stores
from fastinn.cli._terminal import report_left_out, show
from fastinn.embed.extraction import extract as run
from fastinn.embed.extraction import store_path
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.embed.store.overview import overview
from fastinn.report import terminal
from fastinn.report.folder import make_writable


class Dtype(StrEnum):
    """What rows are stored in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def extract(
    models: Annotated[list[str], typer.Argument(help="Hub ids or folders.")],
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 0,6,-1.")] = "all",
    level: LevelOfRows = None,
    dtype: Annotated[Dtype, typer.Option(help="What rows are stored in.")] = Dtype.float32,
    fast: Fast = False,
    tokens_per_block: TokensPerBlock = TOKENS_PER_BLOCK,
    out: Out = Path("fastinn-stores"),
    as_json: AsJson = False,
) -> None:
    """Write the hidden states of models into stores, a folder each; a killed run goes on.

    Example: fastinn extract google/multiberts-seed_0 --corpus wiki.txt --layers 6,-1 --out states
    """
    make_writable(out)
    rows = level or Level.token
    encoders = by_name(models, lambda model: encoder(model, layers, rows, fast=fast))
    text = corpus_of(corpus, column, documents)
    work = announce(encoders, text, tokens_per_block, as_json)
    stores = [store_path(out, name, reader) for name, reader in encoders.items()]
    announce_stores(work, dtype.value, stores, out, as_json)
    paths = run(encoders, text, out, dtype=dtype.value, tokens_per_block=tokens_per_block)
    report_left_out(text)
    show({str(p): overview(str(p)) for p in paths.values()}, as_json, terminal.store_table)
