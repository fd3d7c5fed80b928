"""Which commands several ranks can share."""

import typer

from fastinn import distributed
from fastinn.cli._terminal import complain

SHARED = ("demo", "extract", "moments", "compare", "align", "attention")
"""Commands that divide their work. All ranks would do the whole work of any other."""


def check_ranks(context: typer.Context) -> None:
    """Refuse several ranks for a command that does not divide its work."""
    command, n_ranks = context.invoked_subcommand, distributed.world_size()
    if n_ranks == 1 or command in SHARED:
        return
    if distributed.is_main():
        complain(
            f"{command} does not divide its work and {n_ranks} ranks were started, each of which "
            f"would do all of it; run it without torchrun ({', '.join(SHARED)} divide theirs)"
        )
    distributed.gather("said")  # the first to end takes the others with it
    raise typer.Exit(2)
