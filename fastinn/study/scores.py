"""Held-out scores of maps on rows."""

from collections.abc import Callable, Sequence
from typing import Any

from fastinn._types import Array
from fastinn.align import Aligner, Bijection
from fastinn.align.base import OverflowedRowsError
from fastinn.metrics import return_error, round_trip_error, row_scores
from fastinn.study.held_out import HeldOut
from fastinn.study.passes import View
from fastinn.study.records import Record, cycle_record, score_record


def map_scores(
    aligner: Aligner,
    x: Array,
    y: Array,
    held_out: HeldOut,
    *,
    inverse: bool = False,
    stratified: bool = True,
) -> dict[str, Any]:
    """Score one map on rows that it has not seen.

    Args:
        aligner: From ``x`` to ``y``, or from ``y`` to ``x`` if its inverse is asked for.
        x: Rows to map, shape ``(n, d_x)``.
        y: True rows, shape ``(n, d_y)``.
        held_out: What tells the rows apart.
        inverse: Whether to map by the inverse of a bijection.
        stratified: Whether to sum up the errors of strata, too.

    Returns:
        See :func:`fastinn.metrics.row_scores`; with the ``round_trip`` of a bijection, but for
        its inverse, and the ``sums`` of :meth:`HeldOut.sums`.
    """
    if inverse:
        assert isinstance(aligner, Bijection), "only a bijection has an inverse"
        predicted = aligner.inverse_transform(x)
    else:
        predicted = aligner.transform(x)
    scores: dict[str, Any] = row_scores(y, predicted, n_candidates=held_out.n_candidates)
    scores["sums"] = held_out.sums(y, predicted, stratified=stratified)
    if isinstance(aligner, Bijection) and not inverse:
        scores["round_trip"] = round_trip_error(aligner, x)
    return scores


def bijection_records(
    name: str,
    fitted: Bijection,
    views: tuple[View, View],
    rows: tuple[Array, Array],
    held_out: HeldOut,
) -> list[Record]:
    """Return the records of a bijection between two views and of its inverse.

    An inverse that overflows, as that of a bijection that was trained one way may, has no R2.
    """
    (a, b), (x, y) = views, rows
    there = map_scores(fitted, x, y, held_out)
    try:
        back = map_scores(fitted, y, x, held_out, inverse=True)
    except OverflowedRowsError:
        back = {"r2": None}
    return [score_record(name, a, b, there), score_record(name, b, a, back, inverse=True)]


def cycle_scored(
    method: str,
    views: Sequence[View],
    maps: Sequence[Callable[[Array], Array]],
    x: Array,
    held_out: HeldOut,
) -> Record:
    """Return the record of maps in turn, the last of which leads back to the view of ``x``.

    Its error is that of :func:`fastinn.metrics.cycle_error`.
    """
    moved = x
    for step in maps:
        moved = step(moved)
    sums = held_out.sums(x, moved)
    return cycle_record(method, views, return_error(x, moved)) | {"sums": sums}
