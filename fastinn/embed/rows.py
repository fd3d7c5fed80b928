"""Rows on the host, filled from states that a model computes."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastinn.embed.levels import Layout


class Rows:
    """Float32 rows of some layers, in the order of a layout.

    Args:
        layers: What is read.
        n_features: Width of a row.
        layout: Where each state goes.
        device: Where the states come from.
    """

    def __init__(
        self, layers: Sequence[int], n_features: int, layout: Layout, device: torch.device
    ) -> None:
        make = torch.zeros if layout.averaged else torch.empty
        self._rows = {layer: make(len(layout.keys), n_features) for layer in layers}
        self._layout = layout
        self._copies = PinnedCopies(device, self._put) if device.type == "cuda" else None

    def add(self, layer: int, states: Tensor, take: Tensor, put: Tensor) -> None:
        """Take the states ``take`` of one layer, which go to the rows ``put``."""
        if self._copies is None:
            self._put(layer, states[take], put)
        else:
            self._copies.start(layer, states[take], put)

    def finish(self) -> dict[int, Tensor]:
        """Return the rows, now that all states are there."""
        if self._copies is not None:
            self._copies.finish()
        if self._layout.averaged:
            n_given = torch.cat([torch.empty(0, dtype=torch.int64), *self._layout.put])
            count = n_given.bincount(minlength=len(self._layout.keys))[:, None]
            for rows in self._rows.values():
                rows.div_(count)
        return self._rows

    def _put(self, layer: int, states: Tensor, put: Tensor) -> None:
        if self._layout.averaged:
            self._rows[layer].index_add_(0, put, states.float())
        else:
            self._rows[layer].index_copy_(0, put, states.float())


class _Flight(NamedTuple):
    arrived: torch.cuda.Event
    buffer: Tensor
    layer: int
    landed: Tensor
    put: Tensor


class PinnedCopies:
    """Copies from a GPU on a stream of their own, two at a time, while the model goes on.

    Args:
        device: Where the states come from.
        deliver: Called on the host with what :meth:`start` was given, in the same order.
    """

    def __init__(
        self, device: torch.device, deliver: Callable[[int, Tensor, Tensor], None]
    ) -> None:
        self._device, self._deliver = device, deliver
        self._stream = torch.cuda.Stream(device)
        self._free = deque([torch.empty(0), torch.empty(0)])
        self._flying: deque[_Flight] = deque()

    def start(self, layer: int, states: Tensor, put: Tensor) -> None:
        """Begin to copy ``states``; waits for the copy before the last if it is still under way."""
        if not self._free:
            self._land()
        buffer = self._buffer(states)
        landed = buffer[: states.numel()].view_as(states)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            landed.copy_(states, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        states.record_stream(self._stream)  # its memory is not used again before the copy is done
        self._flying.append(_Flight(arrived, buffer, layer, landed, put))

    def finish(self) -> None:
        """Deliver all that is still under way."""
        while self._flying:
            self._land()

    def _buffer(self, states: Tensor) -> Tensor:
        buffer = self._free.popleft()
        if buffer.numel() < states.numel() or buffer.dtype != states.dtype:
            buffer = torch.empty(states.numel(), dtype=states.dtype, pin_memory=True)
        return buffer

    def _land(self) -> None:
        flight = self._flying.popleft()
        flight.arrived.synchronize()
        self._deliver(flight.layer, flight.landed, flight.put)
        self._free.append(flight.buffer)
