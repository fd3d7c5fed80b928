"""Means over pairs of seeds and their bootstrap intervals, for the results of a comparison."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fastinn.study.held_out import DOCUMENTS, HeldOut
from fastinn.study.records import Record, Results, is_of, is_one_way
from fastinn.study.resamples import (
    FEWEST_SEEDS,
    Resamples,
    Sides,
    drawn_over,
    interval_record,
)
from fastinn.study.significance import percentile_interval, resampled_means

DIFFERENCES = (
    ("INN", "MLP"),
    ("INN", "least squares"),
    ("INN", "BERT-INN"),
    ("hub INN", "INN"),
)
"""Families of methods whose difference is reported: the first minus the second."""

_PLACE = ("method", "source", "target", "source_layer", "target_layer", "fitted")

Cell: TypeAlias = tuple[Any, ...]


class Errors:
    """Errors summed by documents: taken out of the records, kept for intervals over pairs.

    Args:
        seeds: In the order in which results name them.
        held_out: What the sums are of.
    """

    def __init__(self, seeds: Sequence[str], held_out: HeldOut) -> None:
        self._order = {seed: place for place, seed in enumerate(seeds)}
        self._held_out = held_out
        self._resamples = Resamples(held_out.n_groups)
        self._sums: dict[Cell, dict[str, Any]] = {}

    def taken(self, part: Results) -> Results:
        """Return a part of the results with intervals by documents in place of sums."""
        found = dict(part)
        if "scores" in part:
            found["scores"] = [self._score(record) for record in part["scores"]]
        if "cycles" in part:
            found["cycles"] = [self._cycle(record) for record in part["cycles"]]
        return found

    def summaries(self, results: Results) -> Results:
        """Return means over pairs, differences of methods and strata, each with its interval."""
        cells = self._cells(results.get("scores", []))
        found = {
            "means": [r for cell, group in cells.items() for r in self._means(cell, group)],
            "similarity_means": list(self._similarities(results.get("similarities", []))),
            "differences": list(self._differences(cells)),
            "strata": [r for cell, group in cells.items() for r in self._strata(cell, group)],
        }
        return {name: records for name, records in found.items() if records}

    def _score(self, record: Record) -> Record:
        if "sums" not in record:
            return record
        kept = _without_sums(record)
        self._sums[_place(record)] = record["sums"]
        if not self._resamples.vary:
            return kept
        resampled, n_groups = self._resampled(record)[0], self._held_out.n_groups
        found = percentile_interval(record["r2"], resampled, n_groups, most=1.0)
        return kept | found.named("r2")

    def _cycle(self, record: Record) -> Record:
        kept = _without_sums(record)
        if not self._resamples.vary:
            return kept
        errors = np.sqrt(self._resamples.relative_error(record["sums"][DOCUMENTS]))
        span = percentile_interval(record["cycle_error"], errors, self._held_out.n_groups)
        return kept | {"low": span.low, "high": span.high}

    def _resampled(self, record: Record) -> np.ndarray:
        """Return the R2 on each resample of the documents, or itself once, shape ``(1, ...)``.

        Moments may be of more rows than are summed up: only the spread is taken from the sums.
        """
        estimate, resampled = self._on_sums(record)
        return record["r2"] + resampled - estimate

    def _on_sums(self, record: Record) -> tuple[float, np.ndarray]:
        """Return the R2 of the rows that are summed up, and on each resample of them.

        Without sums both are the R2 of the record.
        """
        sums = self._sums.get(_place(record))
        if sums is None:
            return record["r2"], np.array([[record["r2"]]])
        error, deviation = (sum(column) for column in sums[DOCUMENTS])
        estimate = 1 - error / deviation
        if not self._resamples.vary:
            return estimate, np.array([[estimate]])
        return estimate, 1 - self._resamples.relative_error(sums[DOCUMENTS])[None]

    def _cells(self, scores: Iterable[Record]) -> dict[Cell, dict[tuple[str, str], Record]]:
        """Return the finite scores of each method and pair of layers, by source and target."""
        cells: dict[Cell, dict[tuple[str, str], Record]] = {}
        for record in scores:
            if record["r2"] is not None and math.isfinite(record["r2"]):
                cell = record["method"], record["source_layer"], record["target_layer"]
                pair = record["source"], record["target"]
                found = cells.setdefault(cell, {})
                # A map that was fitted that way beats the inverse of another.
                if pair not in found or record["fitted"] == "direct":
                    found[pair] = record
        return cells

    def _directed(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Sides]]:
        """Yield the pairs of each direction, as far as there are any."""
        order, pairs = self._order, list(pairs)
        sides = {
            "forward": tuple((a, b) for a, b in pairs if order[a] < order[b]),
            "backward": tuple((a, b) for a, b in pairs if order[a] > order[b]),
            "both": tuple(pairs),
        }
        yield from ((direction, of) for direction, of in sides.items() if of)

    def _means(self, cell: Cell, group: Mapping[tuple[str, str], Record]) -> Iterator[Record]:
        for direction, sides in self._directed(group):
            values = _stacked([self._resampled(group[pair]) for pair in sides])
            estimate = np.mean([group[pair]["r2"] for pair in sides])
            mean = self._mean(estimate, values, sides, most=1.0)
            yield {**_cell(cell), "direction": direction, **mean}

    def _differences(self, cells: Mapping[Cell, Mapping[Any, Record]]) -> Iterator[Record]:
        """Subtract methods pair by pair, on the pairs and rows that both were scored on."""
        for one, other in DIFFERENCES:
            for (method, *layers), group in cells.items():
                rivals = [c for c in cells if c[1:] == (*layers,) and is_of(c[0], other)]
                for rival in rivals if is_of(method, one) else ():
                    yield from self._difference((method, *layers), rival, group, cells[rival])

    def _difference(
        self, cell: Cell, rival: Cell, group: Mapping[Any, Record], others: Mapping[Any, Record]
    ) -> Iterator[Record]:
        shared = [pair for pair in group if pair in others]
        alike = [p for p in shared if self._has_sums(group[p]) == self._has_sums(others[p])]
        for direction, sides in self._directed(alike):
            mine, theirs = (
                [self._on_sums(records[pair]) for pair in sides] for records in (group, others)
            )
            estimates = [a - b for (a, _), (b, _) in zip(mine, theirs, strict=True)]
            values = [a - b for (_, a), (_, b) in zip(mine, theirs, strict=True)]
            place = {**_cell(cell), "minus": rival[0], "direction": direction}
            yield place | self._mean(float(np.mean(estimates)), _stacked(values), sides)

    def _strata(self, cell: Cell, group: Mapping[tuple[str, str], Record]) -> Iterator[Record]:
        """Average the R2 of each stratum over the directed pairs whose errors were told apart.

        The inverse of a map that was trained one way is left out.
        """
        if is_one_way(cell[0]):
            group = {pair: r for pair, r in group.items() if r["fitted"] == "direct"}
        for name, stratum in self._held_out.strata.items():
            held = [p for p, r in group.items() if name in self._sums.get(_place(r), {})]
            sizes = np.bincount(stratum.member)
            for label, size in zip(stratum.names, sizes, strict=True) if held else ():
                of_all = [self._sums[_place(group[pair])] for pair in held]
                place = {**_cell(cell), "by": name, "stratum": label, "rows": int(size)}
                sums = [(sums[name][label], sums[DOCUMENTS]) for sums in of_all]
                yield place | self._stratum(sums, tuple(held))

    def _stratum(self, sums: Sequence[tuple[Any, Any]], sides: Sides) -> Record:
        totals = [[sum(column) for column in apart] for apart, _ in sums]
        estimates = [1 - error / deviation for error, deviation in totals]
        values = np.array(estimates)[:, None]
        if self._resamples.vary:
            values = 1 - np.stack([self._resamples.relative_error(apart) for apart, _ in sums])
        shares = [sum(apart[0]) / sum(whole[0]) for apart, whole in sums]
        share = {"error_share": float(np.mean(shares))}
        return share | self._mean(float(np.mean(estimates)), values, sides, most=1.0)

    def _similarities(self, records: Iterable[Record]) -> Iterator[Record]:
        """Average similarities, which vary with the seeds only: no rows are kept for them."""
        cells: dict[Cell, list[Record]] = {}
        for record in records:
            if record["value"] is not None and math.isfinite(record["value"]):
                cell = record["measure"], record["layer_a"], record["layer_b"]
                cells.setdefault(cell, []).append(record)
        for (measure, layer_a, layer_b), group in cells.items():
            values = np.array([[record["value"]] for record in group])
            sides = tuple((record["a"], record["b"]) for record in group)
            place = {"measure": measure, "layer_a": layer_a, "layer_b": layer_b}
            yield place | self._mean(values.mean(), values, sides, most=1.0)

    def _has_sums(self, record: Record) -> bool:
        return _place(record) in self._sums

    def _mean(
        self, estimate: float, values: np.ndarray, sides: Sides, *, most: float = math.inf
    ) -> Record:
        """Return a mean over pairs, its interval and what both are of."""
        documents = values.shape[1] > 1
        n_seeds = len({seed for pair in sides for seed in pair})
        drawn = [self._held_out.n_groups] * documents + [n_seeds] * (n_seeds >= FEWEST_SEEDS)
        resampled = self._resamples.mean(values, sides) if drawn else ()
        return {
            **interval_record(float(estimate), resampled, min(drawn, default=0), most=most),
            "over": drawn_over(sides, documents=documents),
            "n_pairs": len(sides),
            "n_seeds": n_seeds,
            **({"n_documents": self._held_out.n_documents} if documents else {}),
        }


def target_means(scores: Iterable[Record]) -> list[Record]:
    """Average, over target seeds, scores of maps from one source that is no seed.

    Args:
        scores: Records with one score a method, target and target layer.

    Returns:
        A mean a method and target layer, with its interval over the seeds if there are four.
    """
    cells: dict[Cell, list[float]] = {}
    for record in scores:
        cell = record["method"], record["source"], record["target_layer"]
        cells.setdefault(cell, []).append(record["r2"])
    found = []
    for cell, values in cells.items():
        several = len(values) >= FEWEST_SEEDS
        resampled = resampled_means(values) if several else ()
        place = dict(zip(("method", "source", "target_layer"), cell, strict=True))
        sizes = {"over": "seeds" if several else "", "n_seeds": len(values)}
        mean = interval_record(float(np.mean(values)), resampled, len(values), most=1.0)
        found.append({**place, **mean, **sizes})
    return found


def _stacked(resampled: Sequence[np.ndarray]) -> np.ndarray:
    """Return the resamples of several pairs, each of shape ``(1, ...)``, side by side."""
    return np.concatenate(np.broadcast_arrays(*resampled))


def _without_sums(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "sums"}


def _place(record: Record) -> Cell:
    return tuple(record[name] for name in _PLACE)


def _cell(cell: Cell) -> Record:
    return dict(zip(("method", "source_layer", "target_layer"), cell, strict=True))
