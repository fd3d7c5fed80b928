"""``fastinn stitch``."""

from pathlib import Path
from typing import Annotated

import typer

from fastinn import _checks
from fastinn.align import INN, Aligner, MLPMap
from fastinn.cli._options import (
    AsJson,
    Column,
    CorpusFile,
    Documents,
    LabelColumn,
    MaxSteps,
    Out,
    Overwrite,
    RandomState,
    budget,
    command_line,
    corpus_of,
    numbers,
)
from fastinn.cli._terminal import report_left_out, say, show
from fastinn.embed import Corpus
from fastinn.embed.classifier import Classifier
from fastinn.embed.labelled import read_labelled
from fastinn.report import terminal
from fastinn.report.folder import RunFolder
from fastinn.study.stitching import NO_MAP, Stitching, default_methods
from fastinn.study.stitching import stitch as run

_METHODS = {
    "none": NO_MAP,
    "procrustes": "Procrustes",
    "cca": "CCA map",
    "linear": "least squares",
    "ridge": "ridge",
    "inn": "INN (two-way)",
    "mlp": "MLP (free)",
}
"""What the option calls each method."""

_ALL = ",".join(_METHODS)
_TRAINED = {"inn", "mlp"}


def stitch(
    source: Annotated[str, typer.Argument(help="Classifier that begins: hub id or folder.")],
    target: Annotated[str, typer.Argument(help="Classifier that goes on.")],
    data: Annotated[Path, typer.Option(help="tsv, csv or jsonl file: labelled texts to score on.")],
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 0,2,-1.")] = "all",
    train_data: Annotated[
        Path | None, typer.Option(help="Labelled file whose texts the maps are fitted on.")
    ] = None,
    corpus: CorpusFile = None,
    documents: Documents = None,
    column: Column = "text",
    label: LabelColumn = "label",
    methods: Annotated[str, typer.Option(help="Some of these.")] = _ALL,
    max_steps: MaxSteps = None,
    max_rows: Annotated[int, typer.Option(help="Tokens that maps are fitted on.", min=1)] = 100_000,
    random_state: RandomState = 0,
    out: Out = Path("fastinn-stitch"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Run one classifier up to a layer, map its states, and let another one finish.

    Example: fastinn stitch seed-0-sst2 seed-1-sst2 --data dev.tsv --train-data train.tsv
    """
    if train_data is not None and corpus is not None:
        raise ValueError("give --train-data or --corpus, not both: maps are fitted on one text")
    how = Stitching(
        layers=None if layers == "all" else numbers(layers, "--layers"),
        methods=_chosen(methods, max_steps, random_state),
        max_rows=max_rows,
    )
    scored = read_labelled(data, text=column, label=label)
    if train_data is None:
        text = corpus_of(corpus, column, documents)
    else:
        labelled = read_labelled(train_data, text=column, label=label)
        text = Corpus.from_texts(labelled.texts[:documents], name=labelled.name)
    classifiers = Classifier(source), Classifier(target)
    with RunFolder(out, overwrite=overwrite) as folder:
        results = run(
            *classifiers,
            scored,
            text,
            how,
            command=command_line(),
            save=folder.save,
        )
        report_left_out(text)
        show(results, as_json, terminal.stitching_table)
        say(as_json, f"Report: {folder.report(results)}")


def _chosen(names: str, max_steps: int | None, random_state: int) -> dict[str, Aligner | None]:
    chosen = names.split(",")
    for name in chosen:
        _checks.one_of(name, tuple(_METHODS), "--methods")
    untrained = "" if _TRAINED & set(chosen) else f"--methods {names} trains no network"
    training = budget(max_steps, untrained=untrained) | {"random_state": random_state}
    methods = default_methods(inn=INN(**training), mlp=MLPMap(**training))
    return {_METHODS[name]: methods[_METHODS[name]] for name in chosen}
