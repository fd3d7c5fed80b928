"""Hidden states of the shipped seeds, split by document, as the studies of the INN read them."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from fastinn.embed import Corpus, Encoder
from fastinn.embed.corpus import SPLITS, Split
from fastinn.embed.seeds import shipped_seeds

Pair: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SeedRows:
    """Token states of every seed, layer and split; row ``i`` is the same token in every seed.

    Attributes:
        states: Rows by seed, layer and split, shape ``(n, d)``, float32.
        documents: Document number of each row, by split.
    """

    states: dict[tuple[str, int, Split], Tensor]
    documents: dict[Split, Tensor]

    def pair(self, a: str, b: str, layer: int, split: Split) -> Pair:
        """Return the rows of two seeds at one layer."""
        return self.states[a, layer, split], self.states[b, layer, split]


def read(n_documents: int | None, *, packages: bool = False) -> SeedRows:
    """Encode Python's documentation with every shipped seed.

    Args:
        n_documents: How many documents to read; ``None`` reads all.
        packages: Read the docstrings of the installed packages too.
    """
    corpus = Corpus.python_docs(packages=packages)
    corpus = corpus if n_documents is None else corpus.head(n_documents)
    texts = {split: list(corpus.split(split)) for split in SPLITS}
    states: dict[tuple[str, int, Split], Tensor] = {}
    documents: dict[Split, Tensor] = {}
    for seed, folder in shipped_seeds().items():
        encoder = Encoder(str(folder), layers="all")
        for split, held in texts.items():
            encoded = encoder.encode([document.text for document in held])
            numbers = torch.tensor([document.number for document in held])
            documents[split] = numbers[encoded.keys[:, 0]]
            for layer, rows in encoded.rows.items():
                states[seed, layer, split] = rows
    return SeedRows(states, documents)
