"""The commands: a module each, one typed function a command."""

import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

import fastinn
from fastinn import distributed
from fastinn._allocator import give_back_large_buffers
from fastinn.cli import (
    align,
    attention,
    compare,
    demo,
    doctor,
    extract,
    finetune,
    moments,
    plot,
    sanity,
    seeds,
    stitch,
    store,
)
from fastinn.cli._ranks import check_ranks
from fastinn.cli._terminal import complain

app = typer.Typer(
    name="fastinn",
    help="Align the representation spaces of Transformers at corpus scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fastinn {fastinn.__version__}")
        raise typer.Exit


@app.callback()
def _begin(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    check_ranks(context)


app.command()(demo.demo)
app.command()(extract.extract)
app.command()(moments.moments)
app.command()(compare.compare)
app.command()(align.align)
app.command()(sanity.sanity)
app.command()(attention.attention)
app.command()(finetune.finetune)
app.command()(stitch.stitch)
app.command()(plot.plot)
app.command()(doctor.doctor)

seeds_app = typer.Typer(help="Train and list mini BERT seeds.", no_args_is_help=True)
seeds_app.command("list")(seeds.list_seeds)
seeds_app.command("train")(seeds.train_seeds)
app.add_typer(seeds_app, name="seeds")

store_app = typer.Typer(help="List, verify and export embedding stores.", no_args_is_help=True)
store_app.command("ls")(store.list_stores)
store_app.command("verify")(store.verify_stores)
store_app.command("export")(store.export_store)
app.add_typer(store_app, name="store")


def main() -> NoReturn:
    """Run the commands; a user's mistake ends in one line and exit code 2."""
    warnings.showwarning = _show_warning
    give_back_large_buffers()
    try:
        _run()
    except (
        ValueError,
        TypeError,
        OSError,
        ImportError,
        fastinn.BackendUnavailableError,
    ) as error:
        if "FASTINN_TRACEBACK" in os.environ:
            raise
        complain(str(error))
        sys.exit(2)
    sys.exit(0)


def _run() -> None:
    """Run the command, beside those of the other ranks if ``torchrun`` started several."""
    with distributed.started():
        try:
            app()
        except SystemExit as stop:
            if stop.code:
                raise


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(f"warning: {message}")
