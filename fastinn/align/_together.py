"""Training of a hub: all maps at once, for the pairs that go through the common space."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fastinn._arrays import as_tensor
from fastinn._types import View
from fastinn.align._sources import Block
from fastinn.align._trained import Between
from fastinn.align.base import r2
from fastinn.align.moment import Factors, SecondMoments
from fastinn.moments import Moments
from fastinn.nn import Flow

# Partners of each seed by which a checkpoint is judged: all pairs would cost more than training
# where there are many seeds.
_PARTNERS = 3


class Together(nn.Module):
    """Networks of several seeds into one space, trained for what comes out at the others.

    Rows of a batch hold all seeds side by side, shape ``(n, S * d)``.

    Args:
        networks: One a seed, in order, all with the same units of the common space; ``None`` for
            the seed whose space it is.
        random_state: Seed of the choice of partners.
    """

    def __init__(self, networks: Sequence[Between | None], random_state: int) -> None:
        super().__init__()
        self.trained = nn.ModuleList(network for network in networks if network is not None)
        self._networks = list(networks)
        common = next(network.target for network in networks if network is not None)
        self._units = [common if network is None else network.source for network in networks]
        self._generator = torch.Generator().manual_seed(random_state)

    def loss(self, x: Tensor, _: Tensor) -> Tensor:
        """Return the mean relative squared error from every seed to one partner of each."""
        shift = int(torch.randint(1, len(self._networks), (), generator=self._generator))
        rows = self._standardised(x)
        errors = [
            self._units[t].relative_error(self._out_of(t, self._into(s, rows[s])) - rows[t])
            for s, t in self._pairs(shift)
        ]
        return torch.stack(errors).mean()

    def validate(self, x: Tensor) -> dict[str, float]:
        """Return the mean R2 from every seed to some partners."""
        seeds = x.chunk(len(self._networks), dim=1)
        with torch.no_grad():
            common = [self._into(s, rows) for s, rows in enumerate(self._standardised(x))]
            scores = [
                r2(seeds[t], self._units[t].undo(self._out_of(t, common[s])))
                for shift in range(1, min(len(seeds), _PARTNERS + 1))
                for s, t in self._pairs(shift)
            ]
        return {"forward_r2": sum(scores) / len(scores)}

    def get_extra_state(self) -> Tensor:
        """Return the state of the choice of partners: a checkpoint goes on with the next ones."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Undo :meth:`get_extra_state`."""
        self._generator.set_state(state.cpu())

    def _pairs(self, shift: int) -> Iterator[tuple[int, int]]:
        n = len(self._networks)
        return ((s, (s + shift) % n) for s in range(n))

    def _standardised(self, x: Tensor) -> list[Tensor]:
        seeds = x.chunk(len(self._networks), dim=1)
        return [self._units[s](rows) for s, rows in enumerate(seeds)]

    def _into(self, seed: int, rows: Tensor) -> Tensor:
        network = self._networks[seed]
        return rows if network is None else network.core(rows)[0]

    def _out_of(self, seed: int, common: Tensor) -> Tensor:
        network = self._networks[seed]
        return common if network is None else cast(Flow, network.core).inverse(common)[0]


class SideBySide:
    """Read-only moments of seeds whose rows were the columns of one view, ``"x"``.

    Args:
        moments: Of the view of all seeds, each equally wide.
        seeds: Their names, in order.
    """

    def __init__(self, moments: Moments, seeds: Sequence[View]) -> None:
        self.views = tuple(seeds)
        self.n_rows, self.resolution = moments.n_rows, moments.resolution
        self._mean, self._cov = as_tensor(moments.mean("x")), as_tensor(moments.cov("x"))
        self._width = len(self._mean) // len(seeds)

    def mean(self, view: View) -> Tensor:
        """Return the mean of a seed, shape ``(d,)``, float64."""
        return self._mean[self._columns(view)]

    def cov(self, a: View, b: View) -> Tensor:
        """Return the covariance of two seeds, shape ``(d, d)``, float64."""
        return self._cov[self._columns(a), self._columns(b)]

    def _columns(self, view: View) -> slice:
        start = self.views.index(view) * self._width
        return slice(start, start + self._width)


class AsPair:
    """Read-only moments of two views, by the names ``"x"`` and ``"y"``.

    Args:
        factors: Moments of both.
        x: The view to call ``"x"``.
        y: The view to call ``"y"``.
    """

    views: tuple[View, ...] = ("x", "y")

    def __init__(self, factors: Factors, x: View, y: View) -> None:
        self._factors = factors
        self._named: dict[View, View] = {"x": x, "y": y}
        moments: SecondMoments = factors.moments
        self.n_rows, self.resolution = moments.n_rows, moments.resolution

    @property
    def n_features(self) -> dict[View, int]:
        """Width of each view."""
        return {view: len(self.mean(view)) for view in self.views}

    def mean(self, view: View) -> Tensor:
        """Return the mean of a view, shape ``(d,)``, float64."""
        return self._factors.mean(self._named[view])

    def cov(self, a: View, b: View | None = None) -> Tensor:
        """Return the covariance of two views, shape ``(d, d)``, float64."""
        return self._factors.cov(self._named[a], self._named[a if b is None else b])


@dataclass(frozen=True)
class SeedBlocks:
    """Blocks whose source rows hold all seeds side by side; the target rows tell nothing."""

    blocks: Iterable[tuple[Sequence[Tensor], Tensor]]

    def __iter__(self) -> Iterator[Block]:
        """Iterate over ``(rows of all seeds, their first column, documents)``."""
        for rows, documents in self.blocks:
            whole = torch.cat(list(rows), dim=1)
            yield whole, whole[:, :1], documents
