"""The linear family on the moments of the three splits: maps, similarities and their nulls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from torch import Tensor

from fastinn.align import CCA, PWCCA, SVCCA, LinearMap, PairScores, Procrustes, all_pairs
from fastinn.align.cca import Canonical
from fastinn.align.moment import Factors, MomentAligner
from fastinn.embed.corpus import Split
from fastinn.metrics import error_scores, linear_cka_moments, similarity_moments
from fastinn.study.held_out import HeldOut
from fastinn.study.parts import Parts
from fastinn.study.passes import Pair, Pass, View
from fastinn.study.records import Record, Results, score_record
from fastinn.study.scores import map_scores

# Solved together: enough to share products, few enough to keep progress visible.
_CELLS_AT_ONCE = 16

_LINEAR_MAPS = {
    "Procrustes": "Procrustes",
    "CCA map": "CCA",
    "least squares": "least squares",
    "ridge": "ridge",
}
"""What the results call each method of :func:`fastinn.align.all_pairs`."""

STRATIFIED = "least squares"
"""The closed form whose errors are told apart by strata."""


@dataclass
class LinearFamily:
    """Closed forms of a comparison.

    Attributes:
        passes: What was read of each split.
        held_out: What tells the test rows apart.
    """

    passes: dict[Split, Pass]
    held_out: HeldOut

    def __post_init__(self) -> None:
        self._train = Factors(self.passes["train"].moments)
        self._validation = Factors(self.passes["validation"].moments)
        self._test = Factors(self.passes["test"].moments)
        self._null = Factors(self.passes["train"].moments.mispaired)
        self._null_test = Factors(self.passes["test"].moments.mispaired)

    def cells(self, cells: Sequence[Pair], parts: Parts) -> Iterator[Results]:
        """Yield the scores and similarities of each cell; neighbours are solved together.

        Args:
            cells: Pairs of views.
            parts: Where what is finished is kept.
        """
        starts = range(0, len(cells), _CELLS_AT_ONCE)

        def solved(number: int) -> Results:
            start = starts[number]
            return {"cells": self._solved(cells[start : start + _CELLS_AT_ONCE])}

        for part in parts.divided(len(starts), solved):
            yield from part["cells"]

    def _solved(self, together: Sequence[Pair]) -> list[Results]:
        found = all_pairs(
            self._train, together, test=self._test, validation=self._validation, spectra=True
        )
        return [
            {
                "scores": self._scores(found, place, a, b),
                "similarities": self._similarities(found, place, a, b),
            }
            for place, (a, b) in enumerate(together)
        ]

    def _scores(self, found: PairScores, place: int, a: View, b: View) -> list[Record]:
        """Score each map both ways: bijections by their inverse, others by a second map."""
        records = []
        for name, method in _LINEAR_MAPS.items():
            one_map = method in ("Procrustes", "CCA")
            for way, (source, target) in enumerate(((a, b), (b, a))):
                error, variance = found.error[method][place, way], found.variance[place, way]
                width = self.passes["test"].moments.n_features[target]
                inverse = one_map and way == 1
                aligner = _closed_form(method, found.ridge, place, way)
                scores = {
                    **self._scores_of_rows(name, aligner, source, target, inverse),
                    **error_scores(float(error), float(variance), width),
                }
                records.append(score_record(name, source, target, scores, inverse=inverse))
        return records

    def _scores_of_rows(
        self, name: str, aligner: MomentAligner, source: View, target: View, inverse: bool
    ) -> dict[str, Any]:
        """Return what moments do not give, where test rows of both views are held."""
        rows = self.passes["test"].rows
        if not {source, target} <= rows.keys():
            return {}
        aligner.from_moments(self._train, *((target, source) if inverse else (source, target)))
        x, y = rows[source].numpy(), rows[target].numpy()
        return map_scores(
            aligner, x, y, self.held_out, inverse=inverse, stratified=name == STRATIFIED
        )

    def _similarities(self, found: PairScores, place: int, a: View, b: View) -> list[Record]:
        """Correlate held-out variates, beside those found in and held out of mispaired rows.

        PWCCA weighs by one of the two views: its values are means over both, so that they do not
        depend on the order of the seeds.
        """
        variates = found.spectrum[place]
        svcca = SVCCA().from_moments(self._train, a, b)
        values = {
            "mean CCA": float(variates.held_out.mean()),
            "SVCCA": similarity_moments(svcca, self._test, a, b),
            "PWCCA": float((variates.weights @ variates.held_out).mean()),
            "linear CKA": float(found.linear_cka[place]),
        }
        nulls = self._nulls(a, b)
        return [_similarity(name, a, b, value, nulls[name]) for name, value in values.items()]

    def _nulls(self, a: View, b: View) -> dict[str, float]:
        """Return the similarities of mispaired rows."""

        def null(aligner: Canonical, x: View, y: View) -> float:
            aligner.from_moments(self._null, x, y)
            return similarity_moments(aligner, self._null_test, x, y)

        return {
            "mean CCA": null(CCA(), a, b),
            "SVCCA": null(SVCCA(), a, b),
            "PWCCA": (null(PWCCA(), a, b) + null(PWCCA(), b, a)) / 2,
            "linear CKA": linear_cka_moments(self._null_test, a, b),
        }

    def spectra(self, pairs: Sequence[Pair], parts: Parts) -> Results:
        """Return all canonical correlations of each pair at one layer, on the training rows.

        Args:
            pairs: Pairs of views, both of the same layer, one pair or more.
            parts: Where what is finished is kept.

        Returns:
            The ``"spectra"``, and as ``"null_bands"`` the range of those of mispaired rows of
            each layer, index by index, over its pairs.
        """

        def correlated(number: int) -> Results:
            a, b = pairs[number]
            found, null = (f.correlations(a, b).tolist() for f in (self._train, self._null))
            spectrum = {"a": a[0], "b": b[0], "layer": a[1], "correlations": found}
            return {"spectrum": spectrum, "null": null}

        found = list(parts.divided(len(pairs), correlated))
        of_layer: dict[Any, list[list[float]]] = {}
        for part in found:
            of_layer.setdefault(part["spectrum"]["layer"], []).append(part["null"])
        bands = [{"layer": layer, **_band(nulls)} for layer, nulls in of_layer.items()]
        return {"spectra": [part["spectrum"] for part in found], "null_bands": bands}


def _band(spectra: Sequence[Sequence[float]]) -> Record:
    """Return the range of descending spectra by index, as far as the longest of them goes."""
    by_index = [[v for v in of if v is not None] for of in zip_longest(*spectra)]
    return {"low": [min(of) for of in by_index], "high": [max(of) for of in by_index]}


def _closed_form(method: str, ridge: Tensor | None, place: int, way: int) -> MomentAligner:
    """Return the unfitted aligner of a method of :func:`fastinn.align.all_pairs`."""
    if method == "ridge" and ridge is not None:
        return LinearMap(ridge=float(ridge[place, way]))
    return {"Procrustes": Procrustes, "CCA": CCA, "least squares": LinearMap}[method]()


def _similarity(measure: str, a: View, b: View, value: float, null: float) -> Record:
    places = {"a": a[0], "b": b[0], "layer_a": a[1], "layer_b": b[1]}
    return {"measure": measure, **places, "value": value, "null": null}
