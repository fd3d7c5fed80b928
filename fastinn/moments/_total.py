"""Sums over rows about their mean, and the pairwise update that joins two of them."""

import os
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from fastinn._types import View
from fastinn.moments._products import Place, Product, n_entries
from fastinn.moments._storage import zeros

# Entries that ranks exchange at a time.
_EXCHANGED = 1 << 24


class Total:
    """Count, mean and comoments, which are updated in place, one covariance at a time.

    Args:
        n_features: Width of each view.
        products: What is multiplied.
        storage: Folder of the file that holds the comoments; ``None``: they are in memory.

    Attributes:
        count: Sum of the weights.
        shift: Provisional mean of all columns, on a grid so coarse that differences of shifts are
            exact.
        mean: Mean of the shifted rows.
        comoments: Sums over rows of products of deviations from the mean, one matrix after the
            other.
    """

    def __init__(
        self,
        n_features: Mapping[View, int],
        products: Iterable[Product],
        storage: str | os.PathLike[str] | None,
    ) -> None:
        products = list(products)
        ends = list(accumulate(n_features.values(), initial=0))
        edges = zip(n_features, pairwise(ends), strict=True)
        self.columns = {view: slice(start, stop) for view, (start, stop) in edges}
        self._shapes = {
            place: (n_features[place.a], n_features[place.b])
            for product in products
            for place in product.places()
        }
        starts = accumulate((a * b for a, b in self._shapes.values()), initial=0)
        self._starts = dict(zip(self._shapes, starts, strict=False))
        self._n_entries = n_entries(n_features, products)
        self._storage = storage
        self.count = 0.0
        self.shift = self.mean = torch.zeros(ends[-1], dtype=torch.float64)
        self.comoments = torch.empty(0, dtype=torch.float64)

    def begin(self, shift: Tensor) -> None:
        """Take the shift and the device of the first rows."""
        self.shift, self.mean = shift, torch.zeros_like(shift)
        self.comoments = zeros(self._n_entries, shift.device, self._storage)

    def move(self, device: torch.device) -> None:
        """Go on where the rows are; a file that was read is on the CPU."""
        if self.shift.device == device:
            return
        self.shift, self.mean = self.shift.to(device), self.mean.to(device)
        if self._storage is None:
            self.comoments = self.comoments.to(device)

    def holds(self, place: Place) -> bool:
        """Whether this covariance is among those that are accumulated."""
        return place in self._starts

    def comoment(self, place: Place) -> Tensor:
        """Return the part of the comoments that belongs to two views, shape ``(d_a, d_b)``."""
        start, shape = self._starts[place], self._shapes[place]
        return self.comoments[start : start + shape[0] * shape[1]].view(shape)

    def add(self, count: float, mean: Tensor, comoments: Iterable[tuple[Place, Tensor]]) -> None:
        """Join rows of the same shift with these (the pairwise update of Chan et al.).

        Args:
            count: Sum of their weights.
            mean: Mean of the shifted rows.
            comoments: Every place, with the sum of products about that mean.
        """
        joined = self.count + count
        if not count:
            return
        delta = mean - self.mean
        factor = self.count * count / joined
        for place, theirs in comoments:
            own = self.comoment(place).add_(theirs.to(self.comoments.device))
            self._add_outer(own, place, delta, factor)
        self.mean = self.mean + delta * (count / joined)
        self.count = joined

    def merge(self, other: "Total") -> None:
        """Join the rows of ``other``, which may be shifted otherwise."""
        if not other.count:
            return
        if not self.count:
            self.begin(other.shift)
        mean = other.mean + (other.shift - self.shift)
        self.add(other.count, mean, ((place, other.comoment(place)) for place in self._starts))

    def all_reduce(self, counts: list[float]) -> None:
        """Join the rows of all ranks, given the count of each."""
        joined = sum(counts)
        if not joined:
            return
        if not self.count:
            self.begin(self.shift)
        filled = next(rank for rank, count in enumerate(counts) if count)
        shift = self.shift.clone()
        dist.broadcast(shift, src=filled)
        local = self.mean + (self.shift - shift)
        mean = local * (self.count / joined)
        dist.all_reduce(mean)
        for place in self._starts:
            self._add_outer(self.comoment(place), place, local - mean, self.count)
        for part in self.comoments.split(_EXCHANGED):
            dist.all_reduce(part)
        self.count, self.shift, self.mean = joined, shift, mean

    def tensors(self) -> dict[str, Tensor]:
        """Return what :meth:`restore` needs besides the count."""
        return {"shift": self.shift, "mean": self.mean, "comoments": self.comoments}

    def restore(self, count: float, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave.

        Raises:
            ValueError: If they are of other widths or products.
        """
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        n = len(self.shift)
        expected = {"shift": (n,), "mean": (n,), "comoments": (self._n_entries,)}
        if found != expected and (count or found != {**expected, "comoments": (0,)}):
            raise ValueError(f"tensors have shapes {found}, expected {expected}")
        self.count = float(count)
        self.shift, self.mean = tensors["shift"], tensors["mean"]
        self.comoments = tensors["comoments"]

    def _add_outer(self, comoment: Tensor, place: Place, delta: Tensor, factor: float) -> None:
        # A root on each side: own covariances stay symmetric to the last bit.
        delta = delta.to(comoment.device) * factor**0.5
        comoment.addr_(delta[self.columns[place.a]], delta[self.columns[place.b]])
