"""Canonical correlation analysis and its kin: the map and the similarity."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastinn._types import View
from fastinn.align._pair_moments import PairMoments
from fastinn.align.moment import Factors, MomentAligner, MomentBijection
from fastinn.ops.whiten import Whitening


class Canonical(MomentAligner):
    """Maps each canonical variate of the source to its partner in the target.

    Attributes:
        correlations_: Canonical correlations, shape ``(k,)``, descending, in ``[0, 1]``.
        x_directions_: Directions of the source's variates, shape ``(d_x, k)``.
        y_directions_: Directions of the target's variates, shape ``(d_y, k)``.
    """

    correlations_: Tensor
    x_directions_: Tensor
    y_directions_: Tensor

    @property
    def similarity_(self) -> float:
        """Similarity of the two views on the rows of the fit."""
        return self.similarity(self.correlations_)

    def similarity(self, correlations: Tensor) -> float:
        """Summarise correlations of the variates, shape ``(k,)``: here by their mean."""
        return float(correlations.mean())

    def _whitening(self) -> dict[str, Any]:
        """Return how views are whitened, as options of :meth:`Factors.whitening`."""
        return {}

    def _size(self, available: int) -> int:
        """Return how many of the available pairs of variates to keep."""
        return available

    def _solve(self, factors: Factors, source: View, target: View) -> None:
        x = factors.whitening(source, **self._whitening())
        y = factors.whitening(target, **self._whitening())
        check_ranks(factors, {source: x, target: y}, ridge=self._whitening().get("ridge", 0.0))
        left, values, right = factors.svd(source, target, **self._whitening())
        k = self._size(len(values))
        u, v = left[:, :k], right[:, :k]
        self.correlations_ = values[:k].clamp(max=1)
        self.x_directions_, self.y_directions_ = x.whitener @ u, y.whitener @ v
        self._set_map(x, y, u @ v.T)

    def _set_map(self, x: Whitening, y: Whitening, rotation: Tensor) -> None:
        self.weight_ = x.whitener @ rotation @ y.colouring


class CCA(Canonical, MomentBijection):
    r"""Canonical correlation analysis with the map :math:`A B^{-1}`, a bijection.

    :math:`A` and :math:`B` hold the canonical directions. Where both views have as many
    directions without variance (LayerNorm leaves one), these are mapped to each other; otherwise
    the map and its inverse are each other's pseudo-inverse.

    Args:
        n_components: Leading pairs of variates to keep; ``None`` keeps all.
        ridge: Regularisation, in units of each feature's variance.

    Source: Hotelling 1936, Relations between two sets of variates.
    """

    def __init__(self, n_components: int | None = None, *, ridge: float = 0.0) -> None:
        self.n_components = n_components
        self.ridge = ridge

    def _whitening(self) -> dict[str, Any]:
        return {"ridge": self.ridge, "spectrum": False}

    def _size(self, available: int) -> int:
        wanted = available if self.n_components is None else self.n_components
        if not 1 <= wanted <= available:
            raise ValueError(f"n_components is {wanted}, expected 1 to {available}")
        return wanted

    def _set_map(self, x: Whitening, y: Whitening, rotation: Tensor) -> None:
        super()._set_map(x, y, rotation)
        self.inverse_weight_ = y.whitener @ rotation.T @ x.colouring
        whole = len(self.correlations_) == x.rank == y.rank
        if whole and self.n_features_in_ == self.n_features_out_:
            self.weight_ += x.null @ y.null_colouring
            self.inverse_weight_ += y.null @ x.null_colouring


class SVCCA(Canonical):
    """CCA between the leading principal directions of both views.

    Args:
        variance: Share of the variance, that is of the eigenvalues, that these must hold.

    Source: Raghu et al. 2017, SVCCA (arXiv 1706.05806).
    """

    def __init__(self, variance: float = 0.99) -> None:
        self.variance = variance

    def _whitening(self) -> dict[str, Any]:
        return {"variance": self.variance}


class PWCCA(CCA):
    r"""CCA whose similarity weighs each correlation by what its variate accounts for.

    Attributes:
        weights_: :math:`a_i \propto \sum_j |(A^T C_{xx})_{ij}|`, shape ``(k,)``, of sum 1.

    Source: Morcos et al. 2018, Insights on representational similarity (arXiv 1806.05759).
    """

    n_components = None
    ridge = 0.0
    weights_: Tensor

    def __init__(self) -> None:
        pass

    def similarity(self, correlations: Tensor) -> float:
        """Summarise correlations of the variates, shape ``(k,)``, by their weighted mean."""
        return float(self.weights_ @ correlations)

    def _solve(self, factors: Factors, source: View, target: View) -> None:
        super()._solve(factors, source, target)
        self.weights_ = projection_weights(self.x_directions_, factors.cov(source, source))


def check_ranks(factors: Factors, whitenings: Mapping[View, Whitening], *, ridge: float) -> None:
    """Raise ``ValueError`` unless views vary, and in fewer directions than there are rows."""
    n = factors.moments.n_rows
    for view, rank in ((view, whitening.rank) for view, whitening in whitenings.items()):
        if rank == 0:
            raise ValueError(f"{view!r} does not vary: all its features are constant; leave it out")
        if rank >= n - 1 and not ridge:
            raise ValueError(
                f"{n} rows are too few for the {rank} dimensions of {view!r}: every "
                "correlation would be 1; use more rows or CCA(ridge=...)"
            )


def projection_weights(directions: Tensor, cov: Tensor) -> Tensor:
    """Return the share of a view, shape ``(k,)``, that each variate accounts for.

    Args:
        directions: Shape ``(d, k)``.
        cov: Covariance of the view.
    """
    share = (directions.T @ cov).abs().sum(dim=1)
    return share / share.sum()


def held_out_correlations(
    aligner: Canonical, factors: Factors, source: View, target: View
) -> Tensor:
    """Return the correlations, on other rows, of the variates that ``aligner`` found."""
    rows = factors.pair(source, target)
    return variate_correlations(aligner.x_directions_, aligner.y_directions_, rows)


def variate_correlations(a: Tensor, b: Tensor, rows: PairMoments) -> Tensor:
    """Return the correlations of ``x @ a`` with ``y @ b``, column by column, shape ``(k,)``."""
    joint = (a * (rows.cov_xy @ b)).sum(dim=0)
    spread_x = (a * (rows.cov_xx @ a)).sum(dim=0)
    spread_y = (b * (rows.cov_yy @ b)).sum(dim=0)
    spread = (spread_x.clamp_min(0) * spread_y.clamp_min(0)).sqrt()
    # A variate that does not vary on these rows correlates with nothing.
    return torch.where(spread > 0, joint / spread, 0.0).clamp(-1, 1)
