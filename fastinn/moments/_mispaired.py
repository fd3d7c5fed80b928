"""Moments of the same rows with their pairing shifted: what there is where nothing is shared."""

from typing import TYPE_CHECKING

from fastinn._types import Array, View

if TYPE_CHECKING:
    from fastinn.moments._moments import Moments


class Mispaired:
    """Read-only moments in which no row of a pair of views meets its own token.

    Means and own covariances are those of the moments: they know no pairing.

    Args:
        moments: Moments with ``mispaired=True``; what is added to them later shows here.
    """

    def __init__(self, moments: "Moments") -> None:
        self._moments = moments

    @property
    def views(self) -> tuple[View, ...]:
        """The views of the moments."""
        return self._moments.views

    @property
    def n_rows(self) -> int:
        """Number of rows seen."""
        return self._moments.n_rows

    @property
    def resolution(self) -> float:
        """Of the moments."""
        return self._moments.resolution

    def mean(self, view: View) -> Array:
        """Return the mean of a view, shape ``(d,)``, float64."""
        return self._moments.mean(view)

    def cov(self, a: View, b: View | None = None) -> Array:
        """Return the covariance of mispaired rows; see :meth:`fastinn.Moments.cov`."""
        return self._moments.covariance(a, a if b is None else b, mispaired=True)
