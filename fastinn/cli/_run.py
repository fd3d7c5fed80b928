"""What the commands that compare many seeds have in common."""

import sys

from fastinn.cli._options import command_line
from fastinn.cli._terminal import complain, say, show
from fastinn.embed import Corpus, Encoder
from fastinn.report import terminal
from fastinn.report.folder import RunFolder
from fastinn.study.layers import Comparison, Results, compare, moments_size


def run_comparison(
    encoders: dict[str, Encoder],
    corpus: Corpus,
    how: Comparison,
    folder: RunFolder,
    as_json: bool,
    command: str,
) -> None:
    """Run a comparison into ``folder``; Ctrl-C keeps the parts that are finished."""
    finished: Results = {}
    say(as_json, f"Moments to accumulate: {moments_size(encoders, how.cells)}")

    def save(results: Results) -> None:
        finished.update(results)
        folder.save(results)

    try:
        compare(encoders, corpus, how, title=command, command=command_line(), save=save)
    except KeyboardInterrupt:
        kept = f"what was finished is in {folder.report(finished)}" if finished else "nothing kept"
        complain(f"interrupted; {kept}")
        sys.exit(130)
    page = folder.report(finished)
    show(finished, as_json, terminal.score_table)
    say(as_json, f"Report: {page}")
