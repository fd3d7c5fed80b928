"""``fastinn moments``."""

from pathlib import Path
from typing import Annotated

import typer

from fastinn.cli._options import (
    AsJson,
    Cells,
    Column,
    CorpusFile,
    Documents,
    Fast,
    LevelOfRows,
    Out,
    Overwrite,
    Storage,
    TokensPerBlock,
    command_line,
    corpus_for,
    sources_of,
)
from fastinn.cli._plan import announce, announce_moments
from fastinn.cli._terminal import report_left_out, show
from fastinn.embed import stream
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.report import terminal
from fastinn.report.folder import RunFolder
from fastinn.study.accumulation import accumulate, accumulated_size


def moments(
    sources: Annotated[list[str], typer.Argument(help="Hub ids or folders of models, or stores.")],
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 0,6,-1.")] = "all",
    level: LevelOfRows = None,
    cells: Annotated[Cells, typer.Option(help="Pairs of layers.")] = Cells.same_layer,
    null: Annotated[
        bool, typer.Option(help="Accumulate mispaired rows too, for null bands.")
    ] = True,
    exact: Annotated[
        bool, typer.Option("--exact", help="Multiply in float64, whatever the rows are.")
    ] = False,
    fast: Fast = False,
    tokens_per_block: TokensPerBlock = TOKENS_PER_BLOCK,
    storage: Storage = None,
    every: Annotated[
        float, typer.Option(help="Seconds between two checkpoints at least.", min=0)
    ] = 60.0,
    out: Out = Path("fastinn-moments"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Accumulate the moments of every split, for all closed forms; a killed run goes on.

    Example: fastinn moments google/multiberts-seed_{0..24} --corpus wiki.txt --out moments
    """
    read = sources_of(sources, layers, level, fast=fast, exact=exact)
    text = corpus_for(read, corpus, column, documents)
    with RunFolder(out, overwrite=overwrite) as folder:
        announce(read, text, tokens_per_block, as_json)
        announce_moments(accumulated_size(read, cells.value, null=null), storage, as_json)
        record = accumulate(
            stream(read, text, tokens_per_block=tokens_per_block),
            folder.path,
            cells=cells.value,
            null=null,
            precision="exact" if exact else "high",
            storage=storage,
            checkpoints=folder.checkpoints,
            every=every,
        )
        report_left_out(text)
        folder.write("moments.json", {"command": command_line(), **record})
        folder.finish()
        show(record["splits"], as_json, terminal.moments_table)
