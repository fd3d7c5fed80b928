"""What a comparison of many seeds compares, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from sklearn.base import clone

from fastinn.align import INN, MLPMap, PublishedBertINN
from fastinn.embed.corpus import SPLITS
from fastinn.embed.reading import TOKENS_PER_BLOCK

# Of the protocol of Ren et al. 2023, arXiv 2305.14555.
PAPER_SAMPLES = 1600

# So many that the training split holds about as many of them as the networks may see.
PAPER_DOCUMENTS = round(PAPER_SAMPLES / (SPLITS["train"][1] - SPLITS["train"][0]))


@dataclass
class Comparison:
    """What to compare and how.

    Attributes:
        cells: Layer pairs of the linear family: ``"all"``, or ``"same-layer"`` only.
        network_layers: Layers, negative ones counted from the end, at which an INN and two free
            MLPs are trained for every pair, and cells ``(i, j)``, at which they are trained from
            layer ``i`` of each seed to layer ``j`` of each other.
        inn: The INN, unfitted.
        published: BERT-INN to train beside it, unfitted; ``None``: none.
        hub: Seed whose space one INN a seed is trained into, or ``"consensus"``, at each of the
            ``network_layers`` that is no cell; ``None``: no hub.
        hub_steps: Training steps of a hub, which is one training in place of one a pair; ``None``:
            as many as those of the INN.
        mlp: The free network, unfitted.
        max_rows: Rows of each split that networks are trained, validated and tested on at most,
            the first ones; the closed forms use all.
        n_candidates: Held-out rows, the first, that retrieval searches.
        n_jobs: Pairs whose networks are trained at the same time; several ranks train one together.
        storage: Folder for the moments where memory does not hold them; ``None``: in memory.
        tokens_per_block: Tokens that are read at once.
        checkpoints: Folder in which a killed run finds what it had finished and how far it was;
            ``None``: none.
    """

    cells: Literal["all", "same-layer"] = "all"
    network_layers: Sequence[int | tuple[int, int]] = (-1,)
    inn: INN = field(default_factory=INN)
    published: PublishedBertINN | None = None
    hub: str | None = None
    hub_steps: int | None = None
    mlp: MLPMap = field(default_factory=MLPMap)
    max_rows: int = 200_000
    n_candidates: int = 10_000
    n_jobs: int = 1
    storage: Path | None = None
    tokens_per_block: int = TOKENS_PER_BLOCK
    checkpoints: Path | None = None

    @property
    def bijections(self) -> list[INN]:
        """What is trained both ways at once for every pair, unfitted."""
        return [self.inn] if self.published is None else [self.inn, self.published]

    @property
    def hub_inn(self) -> INN:
        """What a hub trains for each seed, unfitted."""
        inn: INN = clone(self.inn)
        return inn if self.hub_steps is None else inn.set_params(max_steps=self.hub_steps)

    def as_published(self) -> Self:
        """Return the same with the protocol of Ren et al.: 1600 samples, forward error, BERT-INN.

        Their samples were sentences, so give it encoders of ``level="sentence"`` and no more
        documents than leave as many to train on, for the closed forms use all.
        """
        forward = {"objective": "forward"}
        return replace(
            self,
            inn=clone(self.inn).set_params(**forward),
            published=clone(self.published or PublishedBertINN()).set_params(**forward),
            max_rows=PAPER_SAMPLES,
        )
