"""A comparison small enough for a test: two tiny seeds, a few hundred short texts."""

import pytest
from tiny_seeds import make_model, make_texts, make_tokenizer

from fastinn import Corpus, Encoder
from fastinn.align import INN, MLPMap
from fastinn.study.layers import Comparison, compare


@pytest.fixture(scope="session")
def encoders(seeds):
    return {f"seed-{i}": Encoder(folder, layers=range(4)) for i, folder in enumerate(seeds)}


@pytest.fixture(scope="session")
def corpus():
    return Corpus.from_texts([f"{text} {text}" for text in make_texts(60)] + make_texts(60)[::-1])


@pytest.fixture(scope="session")
def quick():
    return Comparison(
        inn=INN(max_steps=10, n_couplings=2, progress=False),
        mlp=MLPMap(max_steps=10, hidden=16, progress=False),
    )


@pytest.fixture(scope="session")
def three_seeds(seeds, tmp_path_factory):
    """The encoders and a third one, at their last two layers."""
    third = make_model(tmp_path_factory.mktemp("third") / "seed-2", 2, make_tokenizer())
    folders = {f"seed-{i}": folder for i, folder in enumerate([*seeds, third])}
    return {name: Encoder(folder, layers=[2, 3]) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def results(encoders, corpus, quick):
    return compare(encoders, corpus, quick)
