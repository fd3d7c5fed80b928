"""Documents that the encoders of these tests read."""

import pytest
from tiny_seeds import make_texts

from fastinn import Corpus


@pytest.fixture(scope="session")
def texts():
    return make_texts()


@pytest.fixture
def corpus(texts):
    return Corpus.from_texts(texts)
