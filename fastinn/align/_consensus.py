"""The common space of many views that are of equal standing."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastinn._types import View
from fastinn.align.gcca import GCCA
from fastinn.align.moment import Factors

COMMON = "the common space"
"""The view by which :class:`WithConsensus` knows the consensus."""


class Consensus:
    r"""Rows that all views predict best, as wide as a view and in its units.

    The components :math:`G` of :class:`GCCA` have variance one, however little of the views they
    account for, so errors in them do not compare. With :math:`B_i` the least-squares map of
    :math:`G` to view :math:`i` and :math:`v_i` its variance,

    .. math::
        C = G M^{1/2} R, \qquad M = \tfrac{1}{S} \sum_i B_i B_i^\top / v_i

    has an error whose square is the mean over the views of the relative squared error that it
    makes in their rows. The rotation :math:`R` turns :math:`C` as near as possible to the first
    view, and a direction in which views do not vary is one in which :math:`C` does not.

    Args:
        factors: Moments of all pairs of the views.
        views: Views of one width.

    Raises:
        ValueError: As in :meth:`GCCA.from_moments`.
    """

    def __init__(self, factors: Factors, views: Sequence[View]) -> None:
        fitted = GCCA().from_moments(factors, views)
        scale = _mean_variance(factors, views) ** 0.5
        turned = scale * _units(fitted, factors, views)
        self.means = fitted.means_
        self.weights = {
            view: weight / fitted.eigenvalues_ @ turned for view, weight in fitted.maps_.items()
        }
        """Share of each view, shape ``(d, d)``; the consensus is the sum of all."""

    def __call__(self, rows: Mapping[Any, Tensor]) -> Tensor:
        """Return the consensus, shape ``(n, d)``, float64, from paired rows of every view."""
        parts = [
            (rows[view].double() - self.means[view].to(rows[view].device))
            @ weight.to(rows[view].device)
            for view, weight in self.weights.items()
        ]
        return torch.stack(parts).sum(dim=0)


class WithConsensus:
    """Read-only moments of the views and of their consensus, which is :data:`COMMON`.

    Args:
        factors: Moments of the views.
        consensus: A linear function of them.
    """

    def __init__(self, factors: Factors, consensus: Consensus) -> None:
        self._factors, self._weights = factors, consensus.weights
        self.views = (*consensus.weights, COMMON)
        self.n_rows = factors.moments.n_rows
        self.resolution = factors.moments.resolution

    def mean(self, view: View) -> Tensor:
        """Return the mean of a view, shape ``(d,)``, float64."""
        if view == COMMON:
            return torch.zeros_like(self._factors.mean(self.views[0]))
        return self._factors.mean(view)

    def cov(self, a: View, b: View) -> Tensor:
        """Return the covariance of two views, shape ``(d, d)``, float64."""
        if COMMON not in (a, b):
            return self._factors.cov(a, b)
        if a == COMMON:
            return sum_of(weight.T @ self.cov(view, b) for view, weight in self._weights.items())
        return self.cov(b, a).T


def _mean_variance(factors: Factors, views: Sequence[View]) -> float:
    return sum(float(factors.cov(view, view).trace()) for view in views) / len(views)


def _units(fitted: GCCA, factors: Factors, views: Sequence[View]) -> Tensor:
    """Return :math:`M^{1/2} R`, shape ``(k, d)``."""
    back = {view: _decoder(fitted, factors, view) for view in views}
    metric = sum_of(b @ b.T / factors.cov(view, view).trace() for view, b in back.items())
    values, vectors = torch.linalg.eigh(metric / len(views))
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    left, _, right = torch.linalg.svd(root @ back[views[0]], full_matrices=False)
    return root @ left @ right


def _decoder(fitted: GCCA, factors: Factors, view: View) -> Tensor:
    """Return the least-squares map of the consensus to ``view``, shape ``(k, d)``."""
    parts = (weight.T @ factors.cov(other, view) for other, weight in fitted.maps_.items())
    return sum_of(parts) / fitted.eigenvalues_[:, None]


def sum_of(matrices: Any) -> Tensor:
    """Add matrices of one shape."""
    return torch.stack(list(matrices)).sum(dim=0)
