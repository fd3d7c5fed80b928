"""Scores of aligners and similarities of spaces, from moments or from paired rows.

Errors are per entry: ``mse`` is the mean squared error, ``relative_mse`` divides it by the
variance of the target, and ``r2`` is one minus that.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastinn import _checks
from fastinn._arrays import like
from fastinn._types import Array, Precision, View
from fastinn.align.base import Aligner, Bijection, r2
from fastinn.align.cca import PWCCA, SVCCA, Canonical, check_ranks, held_out_correlations
from fastinn.align.moment import (
    Factors,
    MomentAligner,
    MomentBijection,
    paired_moments,
    squared_error,
)
from fastinn.moments import Moments

__all__ = [
    "cca_correlations",
    "correlations_moments",
    "cycle_error",
    "error_scores",
    "evaluate",
    "evaluate_moments",
    "linear_cka",
    "linear_cka_moments",
    "prediction_scores",
    "pwcca",
    "r2_score",
    "retrieval_accuracy",
    "return_error",
    "round_trip_error",
    "row_scores",
    "similarity_moments",
    "svcca",
]

_QUERY_ROWS = 1024


def cca_correlations(x: Array, y: Array, *, precision: Precision = "exact") -> Array:
    """Return all canonical correlations of paired rows, descending, in the kind of ``x``.

    They are biased upwards by ``d / n``: compare with :func:`similarity_moments` on other rows.

    Args:
        x: Rows, shape ``(n, d_x)``.
        y: Rows, shape ``(n, d_y)``; row ``i`` is the same token as in ``x``.
        precision: Of the products of rows. ``"exact"`` agrees with a decomposition of the rows in
            float64 to 1e-8, ``"high"`` to 2e-5.

    Raises:
        ValueError: If numbers of rows differ, a row holds NaN or infinity, a view does not vary,
            or there are no more rows than dimensions.
    """
    factors = Factors(paired_moments(x, y, precision))
    check_ranks(factors, {view: factors.whitening(view) for view in ("X", "Y")}, ridge=0.0)
    return like(factors.correlations("X", "Y"), x)


def svcca(x: Array, y: Array, variance: float = 0.99) -> float:
    """Return the mean correlation of the leading principal directions; see :class:`SVCCA`.

    Raises:
        ValueError: As in :func:`cca_correlations`, or if ``variance`` is not in ``(0, 1]``.
    """
    return SVCCA(variance).fit(x, y).similarity_


def pwcca(x: Array, y: Array) -> float:
    """Return the projection-weighted mean correlation, weights from ``x``; see :class:`PWCCA`.

    Raises:
        ValueError: As in :func:`cca_correlations`.
    """
    return PWCCA().fit(x, y).similarity_


def linear_cka(x: Array, y: Array) -> float:
    r"""Return the linear centred kernel alignment of paired rows, in ``[0, 1]``.

    Raises:
        ValueError: If numbers of rows differ, a row holds NaN or infinity, or a view does not
            vary.

    Source: Kornblith et al. 2019 (arXiv 1905.00414).
    """
    return linear_cka_moments(paired_moments(x, y), "X", "Y")


def linear_cka_moments(moments: Moments | Factors, source: View, target: View) -> float:
    r"""Return :math:`\|C_{xy}\|_F^2 / (\|C_{xx}\|_F \|C_{yy}\|_F)` of two views.

    Raises:
        ValueError: If a view is unknown or does not vary, or the pair was not accumulated.
    """
    factors = Factors.of(moments)
    for view in (source, target):
        if not factors.cov(view, view).any():
            raise ValueError(f"{view!r} does not vary: all its features are constant")
    return float(factors.pair(source, target).linear_cka())


def correlations_moments(
    aligner: Canonical, moments: Moments | Factors, source: View, target: View
) -> Tensor:
    """Return the correlations, on held-out rows, of the variates that ``aligner`` found.

    Args:
        aligner: A fitted ``CCA``, ``SVCCA`` or ``PWCCA``.
        moments: Moments of the held-out rows, or their :class:`Factors`. With the pairing
            rolled they give the null distribution.
        source: View of the aligner's source space.
        target: View of its target space.

    Returns:
        Shape ``(k,)``, float64, in ``[-1, 1]``, in the order of ``aligner.correlations_``.
    """
    return held_out_correlations(aligner, Factors.of(moments), source, target)


def similarity_moments(
    aligner: Canonical, moments: Moments | Factors, source: View, target: View
) -> float:
    """Return the (weighted) mean of :func:`correlations_moments`, as ``aligner`` weighs them."""
    return aligner.similarity(correlations_moments(aligner, moments, source, target))


def evaluate_moments(
    aligner: MomentAligner,
    moments: Moments | Factors,
    source: View,
    target: View,
    *,
    inverse: bool = False,
) -> dict[str, float]:
    """Score a closed-form map on held-out rows from their moments alone.

    Args:
        aligner: A fitted aligner of moments.
        moments: Moments of the held-out rows, or their :class:`Factors`.
        source: View of the aligner's source space.
        target: View of its target space.
        inverse: Whether to score the inverse map, from ``target`` to ``source``.

    Returns:
        ``mse``, ``relative_mse`` and ``r2``, equal to those on the rows.

    Raises:
        TypeError: If ``inverse`` is asked of a map that has none.
        ValueError: If widths differ, a view is unknown or what is predicted does not vary.
    """
    weight, means = aligner.weight_, (aligner.x_mean_, aligner.y_mean_)
    if inverse:
        if not isinstance(aligner, MomentBijection):
            raise TypeError(f"{type(aligner).__name__} has no inverse to score")
        source, target = target, source
        weight, means = aligner.inverse_weight_, means[::-1]
    factors = Factors.of(moments)
    for view, width in zip((source, target), weight.shape, strict=True):
        _checks.n_features(factors.mean(view)[None], width, f"view {view!r}")
    error = squared_error(factors, source, target, weight, means)
    return error_scores(error, float(factors.cov(target, target).trace()), weight.shape[1])


def r2_score(y_true: Array, y_pred: Array) -> float:
    """Return the variance-weighted R2 of predicted rows, both of shape ``(n, d)``.

    Raises:
        ValueError: If shapes differ, a row holds NaN or infinity, or the true rows are all equal.
    """
    return r2(*_predictions(y_true, y_pred))


def retrieval_accuracy(y_true: Array, y_pred: Array, *, n_candidates: int = 10_000) -> float:
    """Return the share of predicted rows whose nearest true row is their own.

    Args:
        y_true: True rows, shape ``(n, d)``.
        y_pred: Predicted rows, shape ``(n, d)``.
        n_candidates: How many rows, from the first, are asked for and searched.

    Returns:
        Accuracy in ``[0, 1]``; equal true rows are not held against a prediction.

    Raises:
        ValueError: If shapes differ, a row holds NaN or infinity, or ``n_candidates`` is not
            positive.
    """
    if n_candidates < 1:
        raise ValueError(f"n_candidates is {n_candidates}, expected 1 or more")
    true, predicted = _predictions(y_true, y_pred)
    true, predicted = true[:n_candidates], predicted[:n_candidates]
    # Distances do not see the mean, but their rounding does.
    mean = true.double().mean(dim=0)
    dtype = torch.promote_types(true.dtype, torch.float32)
    true, predicted = ((rows.double() - mean).to(dtype) for rows in (true, predicted))
    return _hits(true, predicted) / len(true)


def evaluate(aligner: Aligner, x: Array, y: Array) -> dict[str, float]:
    """Score a fitted aligner on paired rows.

    Args:
        aligner: Any fitted aligner.
        x: Source rows, shape ``(n, d_x)``.
        y: Target rows, shape ``(n, d_y)``.

    Returns:
        Those of :func:`row_scores`; for a bijection also ``inverse_r2`` and ``round_trip`` (root
        mean square of ``x`` there and back minus ``x``, over the standard deviation of ``x``).

    Raises:
        ValueError: If numbers of rows or widths differ, a row holds NaN or infinity, or a view
            does not vary.
    """
    x, y = (rows.double() for rows in _checks.paired(x, y))
    scores = row_scores(y, aligner.transform(x))
    if isinstance(aligner, Bijection):
        scores["inverse_r2"] = r2(x, aligner.inverse_transform(y))
        scores["round_trip"] = round_trip_error(aligner, x)
    return scores


def row_scores(y_true: Array, y_pred: Array, *, n_candidates: int = 10_000) -> dict[str, float]:
    """Return all scores of predicted rows, both of shape ``(n, d)``.

    Args:
        y_true: True rows.
        y_pred: Predicted rows.
        n_candidates: See :func:`retrieval_accuracy`.

    Returns:
        ``mse``, ``relative_mse``, ``r2``, ``l2`` (mean Euclidean distance of rows), ``cosine``
        (mean over rows) and ``retrieval`` (:func:`retrieval_accuracy`).

    Raises:
        ValueError: If shapes differ, a row holds NaN or infinity, or the true rows are all equal.
    """
    true, predicted = (rows.double() for rows in _predictions(y_true, y_pred))
    return {
        **prediction_scores(true, predicted),
        "l2": float((true - predicted).norm(dim=1).mean()),
        "cosine": float(torch.cosine_similarity(true, predicted).mean()),
        "retrieval": retrieval_accuracy(y_true, y_pred, n_candidates=n_candidates),
    }


def prediction_scores(y_true: Array, y_pred: Array) -> dict[str, float]:
    """Return ``mse``, ``relative_mse`` and ``r2`` of predicted rows, both of shape ``(n, d)``.

    Raises:
        ValueError: If shapes differ, a row holds NaN or infinity, or the true rows are all equal.
    """
    true, predicted = (rows.double() for rows in _predictions(y_true, y_pred))
    error, variance = _mean_square(true - predicted), _mean_square(true - true.mean(dim=0))
    return error_scores(error, variance, true.shape[1])


def round_trip_error(aligner: Bijection, x: Array) -> float:
    """Return how far ``x`` moves there and back: root mean square over its standard deviation.

    Args:
        aligner: A fitted bijection.
        x: Source rows, shape ``(n, d)``, mapped in their own precision.

    Raises:
        ValueError: If the width differs, or a row holds NaN or infinity.
    """
    return cycle_error((aligner.transform, aligner.inverse_transform), x)


def cycle_error(maps: Sequence[Callable[[Array], Array]], x: Array) -> float:
    """Return how far ``x`` moves round a cycle: root mean square over its standard deviation.

    Args:
        maps: What to apply in turn; the last leads back into the space of ``x``, for instance
            ``[ab.transform, bc.transform, ac.inverse_transform]``.
        x: Rows, shape ``(n, d)``, mapped in their own precision.

    Returns:
        0 where the maps agree; about ``sqrt(2)`` where what comes back has nothing to do with
        ``x``.

    Raises:
        ValueError: If a width differs, a row holds NaN or infinity, or ``x`` does not vary.
    """
    moved: Array = _checks.rows(x)
    for step in maps:
        moved = step(moved)
    return return_error(x, moved)


def return_error(x: Array, returned: Array) -> float:
    """Return how far rows are from where they began, in the unit of :func:`cycle_error`.

    Args:
        x: Rows, shape ``(n, d)``.
        returned: The same rows after they went round a cycle.

    Raises:
        ValueError: As :func:`cycle_error`.
    """
    rows, moved = _checks.rows(x), _checks.rows(returned, "what comes back")
    _checks.n_features(moved, rows.shape[1], "what comes back", "x has")
    rows, moved = rows.double(), moved.double()
    variance = _mean_square(rows - rows.mean(dim=0))
    _checks.varying(variance, "the rows of x", "the cycle error")
    return (_mean_square(moved - rows) / variance) ** 0.5


def error_scores(error: float, variance: float, width: int) -> dict[str, float]:
    """Return ``mse``, ``relative_mse`` and ``r2`` of rows of ``width`` entries.

    Args:
        error: Mean over rows of the squared length of what a prediction leaves.
        variance: Mean over rows of the squared length of the centred true rows.
        width: Number of features.

    Raises:
        ValueError: If the variance is zero.
    """
    _checks.varying(variance, "the true rows")
    return {
        "mse": error / width,
        "relative_mse": error / variance,
        "r2": 1 - error / variance,
    }


def _mean_square(rows: Tensor) -> float:
    """Return the mean over rows of their squared length."""
    return float(rows.square().sum(dim=1).mean())


def _predictions(y_true: Array, y_pred: Array) -> tuple[Tensor, Tensor]:
    true, predicted = _checks.paired(y_true, y_pred, ("y_true", "y_pred"))
    _checks.n_features(predicted, true.shape[1], "y_pred", "y_true has")
    return true, predicted


def _hits(true: Tensor, predicted: Tensor) -> int:
    """Count the predictions to which no true row is closer than their own."""
    squares = true.square().sum(dim=1)
    hits = 0
    for start in range(0, len(predicted), _QUERY_ROWS):
        distances = squares - 2 * predicted[start : start + _QUERY_ROWS] @ true.T
        own = distances.diagonal(offset=start)
        hits += int((distances.amin(dim=1) >= own).sum())
    return hits
