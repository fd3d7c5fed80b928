"""``fastinn align``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from fastinn import distributed
from fastinn.align import (
    CCA,
    INN,
    Aligner,
    Bijection,
    LinearMap,
    MLPMap,
    Procrustes,
    PublishedBertINN,
)
from fastinn.cli._options import (
    AsJson,
    Column,
    CorpusFile,
    Documents,
    Fast,
    LevelOfRows,
    MaxSteps,
    Out,
    Overwrite,
    RandomState,
    Sources,
    budget,
    corpus_for,
    pair_of,
)
from fastinn.cli._plan import announce
from fastinn.cli._terminal import report_left_out, say, show
from fastinn.embed import Stream, stream
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.metrics import evaluate
from fastinn.report import terminal
from fastinn.report.folder import RunFolder
from fastinn.study._gpu import on_gpu
from fastinn.study.passes import Pass, run_pass
from fastinn.study.resamples import r2_interval


class Method(StrEnum):
    """Aligners that ``fastinn align`` can fit."""

    inn = "inn"
    bert_inn = "bert-inn"
    mlp = "mlp"
    cca = "cca"
    procrustes = "procrustes"
    linear = "linear"


def align(
    source: Annotated[str, typer.Argument(help="Model or store to map from.")],
    target: Annotated[str, typer.Argument(help="Model or store to map into.")],
    layer: Annotated[int, typer.Option(help="Layer of the source.")] = -1,
    target_layer: Annotated[int | None, typer.Option(help="Of the target; the same.")] = None,
    level: LevelOfRows = None,
    method: Annotated[Method, typer.Option(help="What to fit.")] = Method.inn,
    corpus: CorpusFile = None,
    column: Column = "text",
    documents: Documents = None,
    max_steps: MaxSteps = None,
    fast: Fast = False,
    random_state: RandomState = 0,
    out: Out = Path("fastinn-align"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit one map between two models, score it held-out, and save it.

    Example: fastinn align seed-0/ seed-1/ --layer -1 --corpus wiki.txt --out map
    """
    aligner = _aligner(method, max_steps, random_state)
    layers = layer, layer if target_layer is None else target_layer
    read = pair_of(source, target, layers, level, fast=fast)
    _check_widths(method, read)
    views = ("source", read["source"].layers[0]), ("target", read["target"].layers[0])
    text = corpus_for(read, corpus, column, documents)
    with RunFolder(out, overwrite=overwrite) as folder:
        announce(read, text, TOKENS_PER_BLOCK, as_json)
        whole = stream(read, text).shard(distributed.rank(), distributed.world_size())
        train, test = whole.split("train"), whole.split("test")
        kept = folder.checkpoints
        held_out = _pass(test, kept / "test", "read test", sampled=views, max_rows=50_000)
        moments = _pass(train, kept / "train", "read train").moments
        fitted: dict[str, Aligner] = {"linear": LinearMap().from_moments(moments, *views)}
        if isinstance(aligner, INN | MLPMap):
            fitted[method.value] = aligner.fit_stream(
                train.pair(*views, move=on_gpu), checkpoint=kept / "fit"
            )
        elif method is not Method.linear:
            fitted[method.value] = aligner.from_moments(moments, *views)
        x, y = (on_gpu(held_out.rows[view]) for view in views)
        scores = {name: _scored(map_, x, y, held_out.documents) for name, map_ in fitted.items()}
        if distributed.is_main():
            fitted[method.value].save(out)
        folder.write("scores.json", scores)
        folder.finish()
        report_left_out(text)
        show(scores, as_json, terminal.map_table)
        say(as_json, f"The map is in {out}; fastinn.load_aligner({str(out)!r}) reads it.")


def _check_widths(method: Method, read: Sources) -> None:
    """Refuse, before a text is read, spaces of different widths for what needs equal ones."""
    d_x, d_y = (read[end].n_features for end in ("source", "target"))
    if d_x != d_y and method in (Method.inn, Method.bert_inn, Method.procrustes):
        raise ValueError(
            f"the source has {d_x} features and the target {d_y}, --method {method} needs equally "
            "many; give --method linear, mlp or cca"
        )


def _scored(aligner: Aligner, x: Tensor, y: Tensor, documents: Tensor) -> dict[str, float]:
    """Score a map on held-out rows; each R2 has its 95 % interval over documents."""
    scores = evaluate(aligner, x, y)
    spans = {"r2": r2_interval(y, aligner.transform(x), documents.numpy())}
    if isinstance(aligner, Bijection):
        spans["inverse_r2"] = r2_interval(x, aligner.inverse_transform(y), documents.numpy())
    for name, span in spans.items():
        scores |= span.named(name)
    return scores


def _aligner(method: Method, max_steps: int | None, random_state: int) -> Aligner:
    closed = {Method.cca: CCA, Method.procrustes: Procrustes, Method.linear: LinearMap}
    networks = {Method.inn: INN, Method.bert_inn: PublishedBertINN, Method.mlp: MLPMap}
    untrained = f"--method {method} is solved, not trained" if method in closed else ""
    training = budget(max_steps, untrained=untrained)
    if method in closed:
        return closed[method]()
    return networks[method]().set_params(**training, random_state=random_state)


def _pass(text: Stream, checkpoint: Path, label: str, **sample: Any) -> Pass:
    return run_pass(text, pairs="all", label=label, checkpoint=checkpoint, **sample)
