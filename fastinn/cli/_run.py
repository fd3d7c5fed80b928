"""What the commands that compare many seeds have in common."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from rich.table import Table

from fastinn.cli._options import Sources, command_line
from fastinn.cli._plan import announce, announce_moments, announce_networks
from fastinn.cli._terminal import complain, report_left_out, say, show, show_further
from fastinn.embed import Corpus
from fastinn.report import terminal
from fastinn.report.folder import RunFolder
from fastinn.study.accumulation import accumulated_size
from fastinn.study.comparison import Comparison
from fastinn.study.layers import Results, check, compare, network_pairs

Save: TypeAlias = Callable[[Results], object]

_FURTHER = (terminal.cell_table, terminal.difference_table, terminal.strata_table)
"""Tables that have rows of some comparisons only."""


def run_comparison(
    sources: Sources,
    corpus: Corpus | None,
    how: Comparison,
    out: Path,
    overwrite: bool,
    as_json: bool,
    command: str,
) -> None:
    """Check a comparison, say what it takes, and run it into the folder ``out``."""
    check(sources, how)
    with RunFolder(out, overwrite=overwrite) as folder:
        how = replace(how, checkpoints=folder.checkpoints)
        announce(sources, corpus, how.tokens_per_block, as_json)
        announce_moments(accumulated_size(sources, how.cells), how.storage, as_json)
        announce_networks(how, len(network_pairs(sources, how.network_layers)), as_json)

        def run(save: Save) -> object:
            return compare(sources, corpus, how, title=command, command=command_line(), save=save)

        run_into(folder, run, corpus, as_json, _FURTHER)


def run_into(
    folder: RunFolder,
    run: Callable[[Save], object],
    corpus: Corpus | None,
    as_json: bool,
    further: Iterable[Callable[[Results], Table]],
) -> None:
    """Save, report and print what ``run`` finds; Ctrl-C keeps the parts that are finished."""
    finished: Results = {}

    def save(results: Results) -> None:
        finished.update(results)
        folder.save(results)

    try:
        run(save)
    except KeyboardInterrupt:
        kept = f"what was finished is in {folder.report(finished)}" if finished else "nothing kept"
        complain(f"interrupted; {kept}")
        sys.exit(130)
    report_left_out(corpus)
    page = folder.report(finished)
    folder.finish()
    show(finished, as_json, terminal.score_table)
    show_further(finished, as_json, further)
    say(as_json, f"Report: {page}")
