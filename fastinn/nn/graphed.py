"""Flows that launch all their kernels at once, as CUDA graphs."""

from functools import partial
from itertools import chain as chained
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from fastinn import _checks
from fastinn.nn import _recording
from fastinn.nn._autocast import outside_autocast
from fastinn.nn._recompute import chain
from fastinn.nn._recording import Function, Recording
from fastinn.nn.flow import Flow
from fastinn.ops._backend import named_backend


class GraphedFlow(nn.Module):
    """Run a flow without gradients as CUDA graphs, which saves the time to launch its kernels.

    That time counts where blocks of rows are small or narrow, and there are many of one shape: the
    first of a shape runs the flow twice more and synchronises the device. Results are those of
    the flow, bit for bit, and no later call overwrites them. Where there can be no graph (with
    gradients enabled, on the CPU, while a graph or a compiler records the call) the flow runs.

    Parameters and buffers are read anew in each call: changes in place count, and all graphs are
    recorded again once one lies elsewhere in memory. Everything else is as it was at the
    recording: options of layers, torch's settings of precision, what hooks did. Layers that wait
    for the device or branch on values say so by an attribute ``capturable`` that is false, as a
    learned :class:`InvertibleLinear` does, and run between graphs. Calls may come from any stream,
    but from one thread at a time.

    Args:
        flow: What to run. It stays as it is, and its parameters are shared.
        max_graphs: How many graphs to keep, one a shape, dtype and direction; the one that has
            not been used for longest goes. Each holds its input and result, and all share the
            memory in between.

    Raises:
        ValueError: If ``max_graphs`` is below 1.

    Example:
        >>> graphed = GraphedFlow(flow)
        >>> with torch.no_grad():
        ...     images = [graphed(block)[0] for block in x.split(4096)]
    """

    def __init__(self, flow: Flow, *, max_graphs: int = 4) -> None:
        super().__init__()
        _checks.at_least(max_graphs, 1, "max_graphs")
        self.flow, self.max_graphs = flow, max_graphs
        self._forget()

    @outside_autocast
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``x``, shape ``(n, d)``, to ``y`` and ``log|det dy/dx|``, shape ``(n,)``."""
        return self._run(x, inverse=False) if _recording.recordable(x) else self.flow(x)

    @outside_autocast
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows ``y``, shape ``(n, d)``, to ``x`` and ``log|det dx/dy|``, shape ``(n,)``."""
        return self._run(y, inverse=True) if _recording.recordable(y) else self.flow.inverse(y)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the graphs out of copies, whose parameters lie elsewhere."""
        return {**self.__dict__, "_ways": {}, "_places": None, "_last": None}

    def _forget(self) -> None:
        self._ways: dict[Any, list[Function]] = {}
        self._places: Any = None
        self._last: Recording | None = None

    def _run(self, rows: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        places = rows.device, *map(_place, chained(self.flow.parameters(), self.flow.buffers()))
        if places != self._places:
            self._forget()
            self._places = places
        total = rows.new_zeros(len(rows))
        for step in self._way(rows, total, inverse):
            rows, total = step(rows, total)
        return rows, total

    def _way(self, rows: Tensor, total: Tensor, inverse: bool) -> list[Function]:
        """Return the steps for such rows, recorded unless they were, and the last to be dropped."""
        key = inverse, rows.shape, rows.dtype, named_backend()
        steps = self._ways.pop(key, None) or self._record(rows, total, inverse)
        self._ways[key] = steps
        if len(self._ways) > self.max_graphs:
            del self._ways[next(iter(self._ways))]
        return steps

    def _record(self, rows: Tensor, total: Tensor, inverse: bool) -> list[Function]:
        layers = list(self.flow.layers)[:: -1 if inverse else 1]
        steps: list[Function] = []
        for capturable, run in groupby(layers, _is_capturable):
            step: Function = partial(chain, list(run), inverse=inverse)
            if capturable:
                step = self._last = _recording.Recording(step, rows, total, self._last)
            steps.append(step)
            rows, total = step(rows, total)
        return steps


def _is_capturable(layer: nn.Module) -> bool:
    return all(getattr(module, "capturable", True) for module in layer.modules())


def _place(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...], torch.dtype]:
    """Return what a recorded kernel knows of a tensor."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
