"""``fastinn seeds``: train and list mini BERT seeds."""

from pathlib import Path
from typing import Annotated

import typer

from fastinn.cli._options import AsJson, Column, CorpusFile, Out, corpus_of
from fastinn.cli._terminal import console, report_left_out, say, show
from fastinn.embed import Corpus
from fastinn.embed.cards import load_card
from fastinn.embed.pretrain import PretrainConfig, pretrain
from fastinn.embed.seeds import shipped_seeds
from fastinn.report import terminal


def list_seeds(as_json: AsJson = False) -> None:
    """List the shipped seeds: their held-out scores, and the folders that other commands take.

    Example: fastinn seeds list
    """
    folders = shipped_seeds()
    cards = {name: load_card(path) | {"folder": str(path)} for name, path in folders.items()}
    show(cards, as_json, terminal.seed_table)
    for path in folders.values():  # a table would fold them
        say(as_json, str(path))


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
    vocabulary: Annotated[
        int, typer.Option(help="Word pieces of the shared tokenizer.", min=30)
    ] = PretrainConfig.vocabulary,
    length: Annotated[int, typer.Option(help="Window.", min=8)] = PretrainConfig.length,
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = PretrainConfig.steps,
    batch: Annotated[int, typer.Option(help="Windows a step.", min=1)] = PretrainConfig.batch,
    lr: Annotated[float, typer.Option(help="Peak learning rate.", min=0)] = PretrainConfig.lr,
    out: Out = Path("seeds"),
) -> None:
    """Pretrain BERTs that differ in nothing but their seed; finished ones are kept.

    Example: fastinn seeds train --n 4 --corpus wiki.txt --hidden 256 --out my-seeds
    """
    if corpus and packages:
        raise ValueError("give --corpus or --packages, not both: these are parts of other corpora")
    text = corpus_of(corpus, column) if corpus else Corpus.python_docs(packages=packages)
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
    paths = pretrain(text, out, n_seeds=n, config=config)
    report_left_out(text)
    for path in paths:
        scores = load_card(path)
        console.print(
            f"{path}: held-out loss {scores['loss']:.2f} (unigram {scores['unigram_loss']:.2f}), "
            f"accuracy {scores['accuracy']:.1%} (unigram {scores['unigram_accuracy']:.1%})",
            markup=False,
        )
