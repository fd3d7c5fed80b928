"""What has to be set before the first import, and two tiny seeds."""

import os

import campaign
import pytest
import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # other processes slow a test at will
settings.load_profile("untimed")

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Without it cuBLAS refuses to multiply where a test asks torch for deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_configure(config):
    campaign.begin(config)


@pytest.fixture
def trials(request):
    """Counts what a test goes through, for the results of the campaign."""
    counted = campaign.Trials()
    yield counted
    request.node.user_properties.append(("trials", counted.n))


@pytest.fixture(scope="session")
def seeds(tmp_path_factory):
    """Folders of two tiny BERTs with one tokenizer."""
    from tiny_seeds import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("seeds")
    tokenizer = make_tokenizer()
    return [make_model(folder / f"seed-{s}", s, tokenizer) for s in range(2)]


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """Folder of a tiny BERT with a tokenizer of its own."""
    from tiny_seeds import WORDS, make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("stranger")
    return make_model(folder / "other", 7, make_tokenizer(WORDS[::-1]))


@pytest.fixture(scope="session")
def classifiers(seeds, tmp_path_factory):
    """Folders of the two tiny BERTs, fine-tuned on the same labels."""
    from labelled_texts import make_labelled

    from fastinn.embed.finetune import FinetuneConfig, finetune

    folder = tmp_path_factory.mktemp("classifiers")
    config = FinetuneConfig(epochs=4, batch=16, lr=5e-3, precision="exact")
    return [
        str(finetune(seed, make_labelled(400), folder / f"tuned-{i}", config=config))
        for i, seed in enumerate(seeds)
    ]
