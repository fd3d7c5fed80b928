"""Held-out rows with what tells them apart: the errors of a map on them, summed for a bootstrap."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

import numpy as np

from fastinn._arrays import as_tensor
from fastinn._types import Array
from fastinn.embed.corpus import Split
from fastinn.study.passes import Pass
from fastinn.study.strata import Strata, strata_of

Sums: TypeAlias = list[list[float]]
"""Two lists with an entry a group of documents: squared errors, and squared deviations."""

DOCUMENTS = "documents"

# Enough for a percentile interval; sums of every document of a large corpus would not fit.
_MOST_GROUPS = 256


@dataclass(frozen=True)
class HeldOut:
    """How predictions of held-out rows are scored.

    Attributes:
        groups: Group of documents of each row, shape ``(n,)``, counted from 0: a document each,
            or as many neighbouring ones as leave 256 groups.
        n_documents: Number of documents the rows are of.
        strata: What else tells rows apart.
        n_candidates: See :func:`fastinn.metrics.retrieval_accuracy`.
    """

    groups: np.ndarray
    n_documents: int
    strata: Strata = field(default_factory=dict)
    n_candidates: int = 10_000

    @classmethod
    def of(cls, passes: Mapping[Split, Pass], level: str, n_candidates: int) -> Self:
        """Return how the sampled rows of the test split are scored."""
        keys, train_keys = passes["test"].keys.numpy(), passes["train"].keys.numpy()
        groups, n_documents = document_groups(keys[:, 0])
        return cls(groups, n_documents, strata_of(level, train_keys, keys), n_candidates)

    @property
    def n_groups(self) -> int:
        """Number of groups of documents."""
        return int(self.groups.max()) + 1

    def sums(self, true: Array, predicted: Array, *, stratified: bool = False) -> dict[str, Any]:
        """Sum squared errors, and squared deviations from the mean of all rows.

        Args:
            true: True rows, shape ``(n, d)``.
            predicted: Predicted rows, shape ``(n, d)``.
            stratified: Whether to sum strata apart, too.

        Returns:
            :data:`Sums` of all rows as ``"documents"``, and for each property of the strata
            those of each stratum by name. One minus the ratio of their totals is the R2.
        """
        rows, guess = (as_tensor(part).cpu().numpy() for part in (true, predicted))
        centre = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
        columns = [_squares(guess - rows), _squares(rows - centre)]
        found: dict[str, Any] = {DOCUMENTS: self._summed(columns, slice(None))}
        for name, stratum in self.strata.items() if stratified else ():
            found[name] = {
                label: self._summed(columns, stratum.member == index)
                for index, label in enumerate(stratum.names)
            }
        return found

    def _summed(self, columns: list[np.ndarray], which: np.ndarray | slice) -> Sums:
        groups = self.groups[which]
        return [
            np.bincount(groups, column[which], minlength=self.n_groups).tolist()
            for column in columns
        ]


def document_groups(documents: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the group of each row, see :class:`HeldOut`, and the number of documents."""
    numbers, place = np.unique(documents, return_inverse=True)
    return place * min(_MOST_GROUPS, len(numbers)) // len(numbers), len(numbers)


def _squares(rows: np.ndarray) -> np.ndarray:
    """Return the squared length of each row in float64."""
    return np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
