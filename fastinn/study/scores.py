"""Held-out scores of maps on rows."""

import numpy as np

from fastinn.align import Aligner, Bijection
from fastinn.metrics import round_trip_error, row_scores
from fastinn.study.passes import View
from fastinn.study.records import Record, score_record


def map_scores(
    aligner: Aligner, x: np.ndarray, y: np.ndarray, *, n_candidates: int, inverse: bool = False
) -> dict[str, float]:
    """Score one map on rows that it has not seen.

    Args:
        aligner: From ``x`` to ``y``, or from ``y`` to ``x`` if its inverse is asked for.
        x: Rows to map, shape ``(n, d_x)``.
        y: True rows, shape ``(n, d_y)``.
        n_candidates: See :func:`fastinn.metrics.retrieval_accuracy`.
        inverse: Whether to map by the inverse of a bijection.

    Returns:
        See :func:`fastinn.metrics.row_scores`; with the ``round_trip`` of a bijection, but for
        its inverse.
    """
    if isinstance(aligner, Bijection):
        if inverse:
            return row_scores(y, aligner.inverse_transform(x), n_candidates=n_candidates)
        trip = {"round_trip": round_trip_error(aligner, x)}
        return row_scores(y, aligner.transform(x), n_candidates=n_candidates) | trip
    return row_scores(y, aligner.transform(x), n_candidates=n_candidates)


def bijection_records(
    name: str,
    fitted: Bijection,
    views: tuple[View, View],
    rows: tuple[np.ndarray, np.ndarray],
    n_candidates: int,
) -> list[Record]:
    """Return the records of a bijection between two views and of its inverse."""
    (a, b), (x, y) = views, rows
    there = map_scores(fitted, x, y, n_candidates=n_candidates)
    back = map_scores(fitted, y, x, n_candidates=n_candidates, inverse=True)
    return [score_record(name, a, b, there), score_record(name, b, a, back, inverse=True)]
