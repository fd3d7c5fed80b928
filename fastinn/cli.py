"""The commands, one typed function each."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
from rich.console import Console
from rich.table import Table

import fastinn
from fastinn._doctor import findings
from fastinn.align import CCA, INN, Aligner, LinearMap, MLPMap, Procrustes
from fastinn.embed import Corpus, Encoder, Stream, stream
from fastinn.embed.pretrain import PretrainConfig, pretrain
from fastinn.embed.seeds import card, shipped_seeds
from fastinn.metrics import evaluate
from fastinn.report import terminal
from fastinn.report.folder import RunFolder
from fastinn.study.layers import Comparison, Results, compare, moments_size
from fastinn.study.passes import View, run_pass
from fastinn.study.sanity import sanity_check

app = typer.Typer(
    name="fastinn",
    help="Align the representation spaces of Transformers at corpus scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
seeds_app = typer.Typer(help="Train and list mini BERT seeds.", no_args_is_help=True)
app.add_typer(seeds_app, name="seeds")

console = Console()

_INN_STEPS = INN().max_steps
# A tour in under two minutes on two cores.
_DEMO_INN = INN(max_steps=250, lr=2e-2)
_DEMO_DOCUMENTS = 80


class Method(StrEnum):
    """Aligners that ``fastinn align`` can fit."""

    inn = "inn"
    mlp = "mlp"
    cca = "cca"
    procrustes = "procrustes"
    linear = "linear"


class Cells(StrEnum):
    """Layer pairs of the linear family."""

    all = "all"
    same_layer = "same-layer"


AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable results instead.")]
CorpusFile = Annotated[
    Path | None,
    typer.Option("--corpus", help="txt, jsonl, csv or tsv file; default: Python's own docs."),
]
Column = Annotated[str, typer.Option(help="Field or column that holds the text.")]
Documents = Annotated[int | None, typer.Option(help="Read only the first documents.", min=1)]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Overwrite = Annotated[bool, typer.Option(help="Replace the run that the folder holds.")]
RandomState = Annotated[int, typer.Option(help="Seed of initialisation and shuffling.")]


@app.command()
def demo(
    out: Out = Path("fastinn-demo"), overwrite: Overwrite = True, as_json: AsJson = False
) -> None:
    """Align the shipped mini BERTs, all pairs, with every method, and write a report.

    Example: fastinn demo --out my-demo
    """
    folder = RunFolder(out, overwrite=overwrite)
    encoders = {n: Encoder(str(path), layers="all") for n, path in shipped_seeds().items()}
    corpus = Corpus.python_docs().head(_DEMO_DOCUMENTS)
    _compare(
        encoders,
        corpus,
        Comparison(inn=_DEMO_INN, n_jobs=_processors()),
        folder,
        as_json,
        "fastinn demo",
    )


@app.command("compare")
def compare_command(
    models: Annotated[list[str], typer.Argument(help="Hub ids or folders, two or more.")],
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 0,6,-1.")] = "all",
    cells: Annotated[Cells, typer.Option(help="Layer pairs of the linear family.")] = Cells.all,
    networks: Annotated[
        str, typer.Option(help="Layers at which INN and MLP are trained; '' for none.")
    ] = "-1",
    max_steps: Annotated[int, typer.Option(help="Training steps of an INN.", min=0)] = _INN_STEPS,
    max_rows: Annotated[int, typer.Option(help="Rows a network trains on.", min=1)] = 200_000,
    jobs: Annotated[
        int | None, typer.Option(help="Pairs trained at once; default: one a processor.", min=1)
    ] = None,
    storage: Annotated[
        Path | None, typer.Option(help="Folder for moments that memory does not hold.")
    ] = None,
    random_state: RandomState = 0,
    out: Out = Path("fastinn-compare"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare every pair of models, layer by layer, on held-out documents.

    Example: fastinn compare google/multiberts-seed_0 google/multiberts-seed_1 --corpus wiki.txt
    """
    folder = RunFolder(out, overwrite=overwrite)
    encoders = {_name(model): _encoder(model, layers) for model in models}
    if len(encoders) < len(models):
        raise ValueError(f"two models have the same name in {', '.join(models)}; rename a folder")
    how = Comparison(
        cells=cells.value,
        network_layers=_numbers(networks, "--networks") if networks else (),
        inn=INN(max_steps=max_steps, random_state=random_state),
        mlp=MLPMap(random_state=random_state),
        max_rows=max_rows,
        n_jobs=jobs or _processors(),
        storage=storage,
    )
    text = _corpus(corpus, column, documents)
    _compare(encoders, text, how, folder, as_json, "fastinn compare")


@app.command()
def align(
    source: Annotated[str, typer.Argument(help="Hub id or folder to map from.")],
    target: Annotated[str, typer.Argument(help="Hub id or folder to map into.")],
    layer: Annotated[int, typer.Option(help="Layer of the source.")] = -1,
    target_layer: Annotated[int | None, typer.Option(help="Of the target; the same.")] = None,
    method: Annotated[Method, typer.Option(help="What to fit.")] = Method.inn,
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    max_steps: Annotated[
        int, typer.Option(help="Training steps of a network.", min=0)
    ] = _INN_STEPS,
    random_state: RandomState = 0,
    out: Out = Path("fastinn-align"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit one map between two models, score it held-out, and save it.

    Example: fastinn align seed-0/ seed-1/ --layer -1 --corpus wiki.txt --out map
    """
    folder = RunFolder(out, overwrite=overwrite, mark="aligner.json")
    x = Encoder(source, layers=[layer])
    y = Encoder(target, layers=[layer if target_layer is None else target_layer])
    views = ("source", x.layers[0]), ("target", y.layers[0])
    text = _corpus(corpus, column, documents)
    train, test = (
        stream({"source": x, "target": y}, text.split(split)) for split in ("train", "test")
    )
    held_out = run_pass(test, pairs="all", sampled=views, max_rows=50_000, label="read test").rows
    fitted = {"linear": _fit(LinearMap(), train, views)}
    if method is not Method.linear:
        fitted[method.value] = _fit(_aligner(method, max_steps, random_state), train, views)
    scores = {
        name: evaluate(aligner, held_out[views[0]], held_out[views[1]])
        for name, aligner in fitted.items()
    }
    fitted[method.value].save(out)
    folder.write("scores.json", scores)
    _show(scores, as_json, terminal.map_table)
    _say(as_json, f"The map is in {out}; fastinn.load_aligner({str(out)!r}) reads it.")


@app.command()
def sanity(
    model: Annotated[str | None, typer.Argument(help="Hub id or folder; a shipped seed.")] = None,
    layer: Annotated[int, typer.Option(help="Layer whose states are used.")] = -1,
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = 140,
    max_rows: Annotated[int, typer.Option(help="Rows at most.", min=100)] = 150_000,
    random_state: RandomState = 0,
    as_json: AsJson = False,
) -> None:
    """Hide a known bijection in hidden states and see which methods recover it.

    Example: fastinn sanity --layer -1
    """
    encoder = Encoder(model or str(next(iter(shipped_seeds().values()))), layers=[layer])
    view = ("model", encoder.layers[0])
    done = run_pass(
        stream({"model": encoder}, _corpus(corpus, column, documents)),
        pairs="all",
        sampled=[view],
        max_rows=max_rows,
        label="read",
    )
    found = sanity_check(done.rows[view], documents=done.documents, random_state=random_state)
    records = [vars(recovery) for recovery in found]
    _show(records, as_json, terminal.recovery_table)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Tell what was built, found and chosen on this machine.

    Example: fastinn doctor
    """
    _show(findings(), as_json, terminal.findings_table)


@seeds_app.command("list")
def list_seeds(as_json: AsJson = False) -> None:
    """List the shipped seeds with their held-out scores.

    Example: fastinn seeds list
    """
    cards = {name: card(folder) for name, folder in shipped_seeds().items()}
    _show(cards, as_json, terminal.seed_table)


@seeds_app.command("train")
def train_seeds(
    n: Annotated[int, typer.Option("--n", help="Number of seeds.", min=1)] = 4,
    corpus: CorpusFile = None,
    column: Column = "text",
    packages: Annotated[
        bool, typer.Option(help="Add the installed packages' docs to the built-in corpus.")
    ] = False,
    hidden: Annotated[int, typer.Option(help="Width.", min=8)] = PretrainConfig.hidden,
    layers: Annotated[int, typer.Option(help="Depth.", min=1)] = PretrainConfig.layers,
    heads: Annotated[int, typer.Option(help="Attention heads.", min=1)] = PretrainConfig.heads,
    vocabulary: Annotated[int, typer.Option(min=30)] = PretrainConfig.vocabulary,
    length: Annotated[int, typer.Option(help="Window.", min=8)] = PretrainConfig.length,
    steps: Annotated[int, typer.Option(min=1)] = PretrainConfig.steps,
    batch: Annotated[int, typer.Option(help="Windows a step.", min=1)] = PretrainConfig.batch,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = PretrainConfig.lr,
    out: Out = Path("seeds"),
) -> None:
    """Pretrain BERTs that differ in nothing but their seed; finished ones are kept.

    Example: fastinn seeds train --n 4 --corpus wiki.txt --hidden 256 --out my-seeds
    """
    text = Corpus.python_docs(packages=packages) if corpus is None else _corpus(corpus, column)
    config = PretrainConfig(
        hidden=hidden,
        layers=layers,
        heads=heads,
        vocabulary=vocabulary,
        length=length,
        steps=steps,
        batch=batch,
        lr=lr,
    )
    for path in pretrain(text, out, n_seeds=n, config=config):
        scores = card(path)
        console.print(
            f"{path}: held-out loss {scores['loss']:.2f} (unigram {scores['unigram_loss']:.2f}), "
            f"accuracy {scores['accuracy']:.1%} (unigram {scores['unigram_accuracy']:.1%})"
        )


def main() -> NoReturn:
    """Run the commands; a user's mistake ends in one line and exit code 2."""
    warnings.showwarning = _show_warning
    try:
        app()
    except (ValueError, TypeError, OSError, fastinn.BackendUnavailableError) as error:
        if "FASTINN_TRACEBACK" in os.environ:
            raise
        _complain(str(error))
        sys.exit(2)
    sys.exit(0)


def _compare(
    encoders: dict[str, Encoder],
    corpus: Corpus,
    how: Comparison,
    folder: RunFolder,
    as_json: bool,
    command: str,
) -> None:
    """Run a comparison into ``folder``; Ctrl-C keeps the parts that are finished."""
    finished: Results = {}
    _say(as_json, f"Moments to accumulate: {moments_size(encoders, how.cells)}")

    def save(results: Results) -> None:
        finished.update(results)
        folder.save(results)

    try:
        compare(encoders, corpus, how, title=command, command=_command_line(), save=save)
    except KeyboardInterrupt:
        kept = f"what was finished is in {folder.report(finished)}" if finished else "nothing kept"
        _complain(f"interrupted; {kept}")
        sys.exit(130)
    page = folder.report(finished)
    _show(finished, as_json, terminal.score_table)
    _say(as_json, f"Report: {page}")


def _processors() -> int:
    """Return how many networks to train at once; those on a GPU share it one after the other."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


def _command_line() -> str:
    return " ".join(["fastinn", *sys.argv[1:]])


def _corpus(path: Path | None, column: str, documents: int | None = None) -> Corpus:
    corpus = Corpus.python_docs() if path is None else Corpus.from_file(path, column=column)
    return corpus if documents is None else corpus.head(documents)


def _encoder(model: str, layers: str) -> Encoder:
    return Encoder(model, layers="all" if layers == "all" else _numbers(layers, "--layers"))


def _name(model: str) -> str:
    return Path(model).name


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} is {text!r}, expected numbers such as 0,6,-1") from None


def _aligner(method: Method, max_steps: int, random_state: int) -> Aligner:
    if method is Method.inn:
        return INN(max_steps=max_steps, random_state=random_state)
    if method is Method.mlp:
        return MLPMap(max_steps=max_steps, random_state=random_state)
    return {Method.cca: CCA, Method.procrustes: Procrustes, Method.linear: LinearMap}[method]()


def _fit(aligner: Aligner, train: Stream, views: Sequence[View]) -> Aligner:
    """Fit to a stream: networks read it once an epoch, closed forms once."""
    if isinstance(aligner, INN | MLPMap):
        return aligner.fit_stream(train.pair(*views))
    moments = run_pass(train, pairs="all", label="read train").moments
    return aligner.from_moments(moments, *views)


def _show(content: Any, as_json: bool, table: Callable[[Any], Table]) -> None:
    if as_json:
        print(json.dumps(content))
    else:
        console.print(table(content))


def _say(as_json: bool, text: str) -> None:
    if not as_json:
        console.print(text, markup=False, soft_wrap=True)


def _complain(text: str) -> None:
    Console(stderr=True).print(f"fastinn: {text}", markup=False, highlight=False, soft_wrap=True)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _complain(f"warning: {message}")
