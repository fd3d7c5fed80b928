"""Generalised canonical correlation analysis: one consensus space of many views."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Self

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from fastinn import _checks
from fastinn._types import Array, View
from fastinn.align._views import numbered, of_views, view_from_json, view_to_json
from fastinn.align.base import Estimator, returned, whole_or_not
from fastinn.align.cca import check_ranks, variate_correlations
from fastinn.align.moment import Factors
from fastinn.moments import Moments
from fastinn.ops.whiten import Whitening

# Eigenvalues are counts of views; a component that rounding alone holds is none.
_NOTHING = 1e-10


class GCCA(Estimator):
    r"""Consensus :math:`G` that all views predict best, and a linear map into it from each.

    Minimises :math:`\sum_i \|G - X_i U_i\|^2` over orthonormal :math:`G` (MAXVAR): the leading
    eigenvectors of the covariance of all views side by side, each whitened. Directions in which
    a view does not vary are left out. The eigenproblem is as wide as the ranks of all views
    together.

    Args:
        n_components: Width of the consensus; ``None`` is the smallest rank of the views.
        ridge: Regularisation, in units of each feature's variance.

    Attributes:
        eigenvalues_: How many views hold each component, shape ``(n_components,)``, descending, at
            most the number of views; of two views it is one plus their canonical correlation.
        maps_: Map :math:`U_i` of each view, shape ``(d_i, n_components)``.
        means_: Mean of each view, shape ``(d_i,)``.

    Source: Kettenring 1971, Canonical analysis of several sets of variables.
    """

    eigenvalues_: Tensor
    maps_: dict[View, Tensor]
    means_: dict[View, Tensor]

    def __init__(self, n_components: int | None = None, *, ridge: float = 0.0) -> None:
        self.n_components = n_components
        self.ridge = ridge

    def fit(self, rows: Mapping[Any, Array]) -> Self:
        """Learn from paired rows, ``{view: (n, d_i)}``; row ``i`` is the same token in all.

        Returns:
            Itself.

        Raises:
            ValueError: As in :meth:`from_moments`, or if numbers of rows differ, or a row holds
                NaN or infinity.
        """
        checked = {view: _checks.rows(x, f"view {view!r}") for view, x in rows.items()}
        widths = {view: x.shape[1] for view, x in checked.items()}
        return self.from_moments(Moments(widths, precision="exact").update(checked))

    @whole_or_not
    def from_moments(self, moments: Moments | Factors, views: Sequence[View] | None = None) -> Self:
        """Learn from moments of all pairs of ``views``.

        Args:
            moments: The moments, or their :class:`Factors`.
            views: Views to find the consensus of; ``None`` stands for all.

        Returns:
            Itself.

        Raises:
            ValueError: If there are fewer than two views, one is unknown, does not vary or has too
                few rows, two were not multiplied, or there are not so many components.
        """
        factors = Factors.of(moments)
        chosen = tuple(factors.moments.views if views is None else views)
        if len(chosen) < 2:
            raise ValueError(f"a consensus needs two views or more, views is {list(chosen)}")
        whitenings = {view: factors.whitening(view, ridge=self.ridge) for view in chosen}
        check_ranks(factors, whitenings, ridge=self.ridge)
        self._solve(factors, whitenings)
        self.means_ = {view: factors.mean(view) for view in chosen}
        return self

    def transform(self, view: View, rows: Array) -> Array:
        """Predict the consensus from one view.

        Args:
            view: A view of the fit.
            rows: Its rows, shape ``(n, d_i)``.

        Returns:
            Shape ``(n, n_components)``, in the kind, dtype and device of ``rows``.

        Raises:
            NotFittedError: If there was no fit.
            ValueError: If the view is unknown, the width differs, or a row holds NaN or infinity.
        """
        check_is_fitted(self)
        if view not in self.maps_:
            raise ValueError(
                f"unknown view {view!r}, the fit was of {', '.join(map(repr, self.maps_))}"
            )
        x = _checks.rows(rows, f"view {view!r}")
        _checks.n_features(x, len(self.means_[view]), f"view {view!r}")
        mean, weight = self.means_[view].to(x.device), self.maps_[view].to(x.device)
        return returned((x.double() - mean) @ weight, x, rows)

    def consensus(self, rows: Mapping[Any, Array]) -> Array:
        """Return the consensus itself, from the rows of all views.

        Args:
            rows: Paired rows of every view of the fit, ``{view: (n, d_i)}``.

        Returns:
            Shape ``(n, n_components)``, in the kind, dtype and device of the first view's rows; on
            the rows of the fit its columns are uncorrelated and of variance one.

        Raises:
            NotFittedError: If there was no fit.
            ValueError: If a view is missing or unknown, or rows are not as in :meth:`transform`.
        """
        check_is_fitted(self)
        if rows.keys() != self.maps_.keys():
            raise ValueError(
                f"rows are of the views {list(rows)}, the consensus is of {list(self.maps_)}"
            )
        checked = {view: _checks.rows(x, f"view {view!r}") for view, x in rows.items()}
        first = next(iter(rows))
        for view, x in checked.items():
            _checks.same_rows(checked[first], x, (f"view {first!r}", f"view {view!r}"))
        total = sum(self.transform(view, x.double()) for view, x in checked.items())
        mean = total / self.eigenvalues_.to(total.device)
        return returned(mean, checked[first], rows[first])

    def agreement(self, moments: Moments | Factors) -> Tensor:
        """Return how well views agree on each component, on other rows.

        Args:
            moments: Moments of these rows, of the views of the fit.

        Returns:
            Mean over pairs of views of the correlation of their predictions, shape
            ``(n_components,)``, float64, in ``[-1, 1]``.

        Raises:
            NotFittedError: If there was no fit.
            ValueError: If a view is unknown, or two were not multiplied.
        """
        check_is_fitted(self)
        factors = Factors.of(moments)
        correlations = [
            variate_correlations(self.maps_[a], self.maps_[b], factors.pair(a, b))
            for a, b in combinations(self.maps_, 2)
        ]
        return torch.stack(correlations).mean(dim=0)

    def score(self, moments: Moments | Factors) -> float:
        """Return the mean of :meth:`agreement` over the components."""
        return float(self.agreement(moments).mean())

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = numbered("maps_", self.maps_) | numbered("means_", self.means_)
        views = [view_to_json(view) for view in self.maps_]
        return tensors | {"eigenvalues_": self.eigenvalues_}, {"views": views}

    def _restore(self, tensors: dict[str, Tensor], attributes: dict[str, Any]) -> None:
        views = [view_from_json(saved) for saved in attributes["views"]]
        self.maps_ = of_views("maps_", tensors, views)
        self.means_ = of_views("means_", tensors, views)
        self.eigenvalues_ = tensors["eigenvalues_"]

    def _solve(self, factors: Factors, whitenings: Mapping[View, Whitening]) -> None:
        values, vectors = torch.linalg.eigh(_whitened_covariance(factors, whitenings))
        k = self._size(whitenings, int((values > _NOTHING).sum()))
        self.eigenvalues_, leading = values.flip(0)[:k], vectors.flip(1)[:, :k]
        # Regressed on whitened view i, the consensus has its part of the vector as coefficients.
        parts = (leading * self.eigenvalues_.sqrt()).split([w.rank for w in whitenings.values()])
        self.maps_ = {
            view: white.whitener @ part
            for (view, white), part in zip(whitenings.items(), parts, strict=True)
        }

    def _size(self, whitenings: Mapping[View, Whitening], available: int) -> int:
        narrowest = min(whitening.rank for whitening in whitenings.values())
        wanted = narrowest if self.n_components is None else self.n_components
        if not 1 <= wanted <= available:
            raise ValueError(f"n_components is {wanted}, expected 1 to {available}")
        return wanted


def _whitened_covariance(factors: Factors, whitenings: Mapping[View, Whitening]) -> Tensor:
    """Return the covariance of all views side by side, each whitened, shape ``(D, D)``."""
    sides = list(whitenings.items())
    rows = [
        torch.cat([x.whitener.T @ factors.cov(a, b) @ y.whitener for b, y in sides], dim=1)
        for a, x in sides
    ]
    return torch.cat(rows)
