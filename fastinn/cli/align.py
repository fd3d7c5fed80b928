"""``fastinn align``."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastinn.align import CCA, INN, Aligner, LinearMap, MLPMap, Procrustes, PublishedBertINN
from fastinn.cli._options import (
    INN_STEPS,
    AsJson,
    Column,
    CorpusFile,
    Documents,
    Level,
    LevelOfRows,
    Out,
    Overwrite,
    RandomState,
    corpus_of,
    encoder,
)
from fastinn.cli._terminal import say, show
from fastinn.embed import Stream, stream
from fastinn.metrics import evaluate
from fastinn.report import terminal
from fastinn.report.folder import RunFolder
from fastinn.study.passes import View, run_pass


class Method(StrEnum):
    """Aligners that ``fastinn align`` can fit."""

    inn = "inn"
    bert_inn = "bert-inn"
    mlp = "mlp"
    cca = "cca"
    procrustes = "procrustes"
    linear = "linear"


def align(
    source: Annotated[str, typer.Argument(help="Hub id or folder to map from.")],
    target: Annotated[str, typer.Argument(help="Hub id or folder to map into.")],
    layer: Annotated[int, typer.Option(help="Layer of the source.")] = -1,
    target_layer: Annotated[int | None, typer.Option(help="Of the target; the same.")] = None,
    level: LevelOfRows = None,
    method: Annotated[Method, typer.Option(help="What to fit.")] = Method.inn,
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    max_steps: Annotated[int, typer.Option(help="Training steps of a network.", min=0)] = INN_STEPS,
    random_state: RandomState = 0,
    out: Out = Path("fastinn-align"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit one map between two models, score it held-out, and save it.

    Example: fastinn align seed-0/ seed-1/ --layer -1 --corpus wiki.txt --out map
    """
    folder = RunFolder(out, overwrite=overwrite, mark="aligner.json")
    rows = level or Level.token
    x = encoder(source, str(layer), rows)
    y = encoder(target, str(layer if target_layer is None else target_layer), rows)
    views = ("source", x.layers[0]), ("target", y.layers[0])
    text = corpus_of(corpus, column, documents)
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
    show(scores, as_json, terminal.map_table)
    say(as_json, f"The map is in {out}; fastinn.load_aligner({str(out)!r}) reads it.")


def _aligner(method: Method, max_steps: int, random_state: int) -> Aligner:
    closed = {Method.cca: CCA, Method.procrustes: Procrustes, Method.linear: LinearMap}
    if method in closed:
        return closed[method]()
    networks = {Method.inn: INN, Method.bert_inn: PublishedBertINN, Method.mlp: MLPMap}
    return networks[method]().set_params(max_steps=max_steps, random_state=random_state)


def _fit(aligner: Aligner, train: Stream, views: Sequence[View]) -> Aligner:
    """Fit to a stream: networks read it once an epoch, closed forms once."""
    if isinstance(aligner, INN | MLPMap):
        return aligner.fit_stream(train.pair(*views))
    moments = run_pass(train, pairs="all", label="read train").moments
    return aligner.from_moments(moments, *views)
