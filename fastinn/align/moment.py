"""Aligners that are functions of means and covariances alone."""

import copy
from abc import abstractmethod
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from fastinn import _checks
from fastinn._arrays import as_tensor
from fastinn._types import Array, Precision, View
from fastinn.align._pair_moments import PairMoments
from fastinn.align.base import Aligner, Bijection, whole_or_not
from fastinn.moments import Moments
from fastinn.ops.whiten import Whitening, WhitenMethod, principal_whiten, whiten


class Svd(NamedTuple):
    """Singular value decomposition ``left @ diag(values) @ right.T``."""

    left: Tensor
    values: Tensor
    right: Tensor


class SecondMoments(Protocol):
    """Means and covariances of views: moments, mispaired ones, or what is computed from them."""

    @property
    def views(self) -> tuple[View, ...]:
        """The views."""
        ...

    @property
    def n_rows(self) -> int:
        """Number of rows seen."""
        ...

    @property
    def resolution(self) -> float:
        """See :class:`fastinn.Moments`."""
        ...

    def mean(self, view: View) -> Array:
        """Return the mean of a view, shape ``(d,)``, float64."""
        ...

    def cov(self, a: View, b: View) -> Array:
        """Return the covariance of two views, shape ``(d_a, d_b)``, float64."""
        ...


class Factors:
    """Decompositions of moments, each computed once and shared by all closed-form aligners.

    Pass it to ``from_moments`` in place of the moments when many aligners are fitted to the same
    ones. Whitenings of all views are kept, and the decompositions of the latest pairs; both
    directions of a pair share theirs, so fit them one after the other.

    Args:
        moments: Moments that do not change any more.
    """

    def __init__(self, moments: SecondMoments) -> None:
        self.moments = moments
        self._cov = lru_cache(maxsize=16)(self._compute_cov)
        self._whitening = lru_cache(maxsize=None)(self._compute_whitening)
        self._svd = lru_cache(maxsize=8)(self._compute_svd)
        # A pair and its reverse share one decomposition: that of the view that comes first.
        self._place = {view: place for place, view in enumerate(moments.views)}

    @classmethod
    def of(cls, moments: "Moments | Factors") -> "Factors":
        """Return ``moments`` itself if it is decomposed already."""
        return moments if isinstance(moments, Factors) else cls(moments)

    def mean(self, view: View) -> Tensor:
        """Return the mean of a view, shape ``(d,)``, float64."""
        return as_tensor(self.moments.mean(view))

    def cov(self, a: View, b: View) -> Tensor:
        """Return the covariance of two views, shape ``(d_a, d_b)``, float64."""
        return self._cov(a, b)

    def pair(self, a: View, b: View) -> PairMoments:
        """Return the moments of the views ``a`` as ``x`` and ``b`` as ``y``."""
        own = self.cov(a, a), self.cov(b, b)
        return PairMoments(self.mean(a), self.mean(b), *own, self.cov(a, b))

    def whitening(
        self,
        view: View,
        *,
        ridge: float = 0.0,
        variance: float | None = None,
        spectrum: bool = True,
    ) -> Whitening:
        """Return a view's whitening; with ``variance``, of its principal directions alone.

        Without ``spectrum`` its eigenvalues may be missing, which is faster.
        """
        return self._whitening(view, ridge, variance, spectrum)

    def svd(
        self,
        a: View,
        b: View,
        *,
        whitened: bool = True,
        ridge: float = 0.0,
        variance: float | None = None,
        spectrum: bool = True,
    ) -> Svd:
        """Decompose the covariance of two views, in whitened coordinates or as it is."""
        options = whitened, ridge, variance, spectrum
        if self._place[a] <= self._place[b]:
            return self._svd(a, b, *options)
        left, values, right = self._svd(b, a, *options)
        return Svd(right, values, left)

    def _compute_cov(self, a: View, b: View) -> Tensor:
        return as_tensor(self.moments.cov(a, b))

    def _compute_whitening(
        self, view: View, ridge: float, variance: float | None, spectrum: bool
    ) -> Whitening:
        cov, threshold = self.cov(view, view), self.moments.resolution
        if variance is None:
            method: WhitenMethod = "eigh" if spectrum else "cholesky-or-eigh"
            return whiten(cov, method=method, ridge=ridge, threshold=threshold)
        return principal_whiten(cov, variance=variance, threshold=threshold)

    def correlations(self, a: View, b: View, *, ridge: float = 0.0) -> Tensor:
        """Return all canonical correlations of two views, descending, without their variates."""
        return torch.linalg.svdvals(self._whitened_cov(a, b, ridge, None, True)).clamp(max=1)

    def _whitened_cov(
        self, a: View, b: View, ridge: float, variance: float | None, spectrum: bool
    ) -> Tensor:
        left, right = (self._whitening(view, ridge, variance, spectrum) for view in (a, b))
        return left.whitener.T @ self.cov(a, b) @ right.whitener

    def _compute_svd(
        self,
        a: View,
        b: View,
        whitened: bool,
        ridge: float,
        variance: float | None,
        spectrum: bool,
    ) -> Svd:
        cov = self._whitened_cov(a, b, ridge, variance, spectrum) if whitened else self.cov(a, b)
        u, values, vh = torch.linalg.svd(cov, full_matrices=False)
        return Svd(u, values, vh.T)


class MomentAligner(Aligner):
    """An affine map ``(x - x_mean_) @ weight_ + y_mean_`` found from moments in closed form.

    Attributes:
        weight_: Shape ``(n_features_in_, n_features_out_)``, float64.
        x_mean_: Shape ``(n_features_in_,)``.
        y_mean_: Shape ``(n_features_out_,)``.
    """

    weight_: Tensor
    x_mean_: Tensor
    y_mean_: Tensor
    _always: ClassVar[tuple[str, ...]] = (*Aligner._always, "weight_", "x_mean_", "y_mean_")
    _seen: Moments | None = None

    def fit(self, X: Array, Y: Array) -> Self:
        """Learn the map from rows ``X`` to rows ``Y``; row ``i`` is the same token in both.

        Args:
            X: Source rows, shape ``(n, d_x)``.
            Y: Target rows, shape ``(n, d_y)``.

        Returns:
            Itself.

        Raises:
            ValueError: If numbers of rows differ, or a row holds NaN or infinity.
        """
        seen = paired_moments(X, Y)
        self.from_moments(seen, "X", "Y")
        self._seen = seen
        return self

    def partial_fit(self, X: Array, Y: Array) -> Self:
        """Learn from ``X`` and ``Y`` and all rows given before, and solve again.

        Raises:
            ValueError: As in :meth:`fit`, or if the rows seen before are not known.
        """
        if not hasattr(self, "weight_"):
            return self.fit(X, Y)
        if self._seen is None:
            raise ValueError(
                "partial_fit cannot go on: this aligner was loaded or fitted from moments; "
                "update those moments and call from_moments"
            )
        x, y = _checks.paired(X, Y, ("X", "Y"))
        seen = copy.deepcopy(self._seen).update({"X": x, "Y": y})
        self._from_factors(Factors(seen), "X", "Y")
        self._seen = seen
        return self

    def from_moments(self, moments: Moments | Factors, source: View, target: View) -> Self:
        """Learn the map from the view ``source`` to the view ``target``.

        Args:
            moments: Moments of both views and their product, or their :class:`Factors`.
            source: View to map from.
            target: View to map into.

        Returns:
            Itself.

        Raises:
            ValueError: If a view is unknown or their product was not accumulated.
        """
        self._from_factors(Factors.of(moments), source, target)
        self._seen = None
        return self

    @whole_or_not
    def _from_factors(self, factors: Factors, source: View, target: View, **options: Any) -> Self:
        self.x_mean_, self.y_mean_ = factors.mean(source), factors.mean(target)
        self.n_features_in_, self.n_features_out_ = len(self.x_mean_), len(self.y_mean_)
        self._solve(factors, source, target, **options)
        return self

    @abstractmethod
    def _solve(self, factors: Factors, source: View, target: View) -> None:
        """Set ``weight_`` and what belongs to it."""

    def _transform(self, x: Tensor) -> Tensor:
        return _affine(x, self.x_mean_, self.weight_, self.y_mean_)


class MomentBijection(MomentAligner, Bijection):
    """An affine map with an inverse, ``(y - y_mean_) @ inverse_weight_ + x_mean_``.

    Attributes:
        inverse_weight_: Shape ``(n_features_out_, n_features_in_)``, float64.
    """

    inverse_weight_: Tensor
    _always = (*MomentAligner._always, "inverse_weight_")

    def _inverse_transform(self, y: Tensor) -> Tensor:
        return _affine(y, self.y_mean_, self.inverse_weight_, self.x_mean_)


def paired_moments(X: Array, Y: Array, precision: Precision = "exact") -> Moments:
    """Return the moments of rows ``X`` and ``Y``, as views of these names."""
    x, y = _checks.paired(X, Y, ("X", "Y"))
    widths = {"X": x.shape[1], "Y": y.shape[1]}
    return Moments(widths, precision=precision).update({"X": x, "Y": y})


def squared_error(
    moments: Moments | Factors,
    source: View,
    target: View,
    weight: Tensor,
    means: tuple[Tensor, Tensor],
) -> float:
    r"""Mean over rows of :math:`\|\hat y - y\|^2` of an affine map, from moments alone.

    Args:
        moments: Moments of the rows, or their :class:`Factors`.
        source: View that is mapped.
        target: View that should come out.
        weight: Shape ``(d_source, d_target)``.
        means: What the map subtracts from source rows and adds to the result.
    """
    return float(Factors.of(moments).pair(source, target).squared_error(weight, means))


def _affine(rows: Tensor, mean: Tensor, weight: Tensor, new_mean: Tensor) -> Tensor:
    """Return ``(rows - mean) @ weight + new_mean`` in float64, on the device of ``rows``."""
    mean, weight, new_mean = (part.to(rows.device) for part in (mean, weight, new_mean))
    return (rows.double() - mean) @ weight + new_mean
