"""What rounding leaves of a bijection: there and back, and in which layer it is lost."""

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from fastinn import _checks
from fastinn.nn._recompute import chain
from fastinn.nn.coupling import Coupling
from fastinn.nn.flow import Flow


class LayerRoundTrip(NamedTuple):
    """Where a layer stands on the way back.

    Attributes:
        place: Number of the layer in the flow, from 0.
        kind: Class of the layer.
        error: Largest error of what went into the layer, recovered from the end of the flow, in
            units of its root mean square.
        growth: Error over that of what came out of the layer, or, if that is less, over the
            rounding of the largest entry at the end of the flow.
        log_scale: Largest absolute log-scale, after clamping; ``None`` if it is not a coupling.
    """

    place: int
    kind: str
    error: float
    growth: float
    log_scale: float | None

    def __str__(self) -> str:
        scale = "" if self.log_scale is None else f", largest |log-scale| {self.log_scale:.3g}"
        return f"layer {self.place} ({self.kind}) multiplies it by {self.growth:.1e}{scale}"


class RoundTrip(NamedTuple):
    """Round trip through a flow.

    Attributes:
        error: Largest error, in units of the root mean square of the rows.
        layers: Where the error stands at each layer, in the order of the flow; up to the first one
            whose result is not finite.
    """

    error: float
    layers: list[LayerRoundTrip]

    @property
    def worst(self) -> LayerRoundTrip:
        """The layer in which the error grows most."""
        return max(self.layers, key=lambda layer: layer.growth)


@torch.no_grad()
def round_trip(flow: Flow, x: Tensor) -> RoundTrip:
    """Measure ``flow.inverse(flow(x))`` against ``x``, and where on the way back the error grows.

    Args:
        flow: Any flow of at least one layer.
        x: Rows, shape ``(n, d)``; a few hundred are enough.

    Returns:
        Errors in units of the root mean square of the rows; NaN where a result is not finite.

    Raises:
        ValueError: If ``x`` is not a matrix, has no rows, or holds NaN or infinity.
    """
    passed = [_checks.rows(x, "x")]
    for layer in flow.layers:
        passed.append(layer(passed[-1])[0])
        if not passed[-1].isfinite().all():
            break
    back, error = passed[-1], 0.0
    largest = _largest(back, back)
    least = torch.finfo(back.dtype).eps * (largest if largest > 1 else 1.0)  # zeros, NaN
    layers: list[LayerRoundTrip] = []
    for place in reversed(range(len(passed) - 1)):
        layer, rows = flow.layers[place], passed[place]
        back, _ = chain([layer], back, inverse=True)
        error, before = _error(back, rows), error
        growth = _growth(error, max(before, least))
        scale = float(layer.largest_log_scale(rows)) if isinstance(layer, Coupling) else None
        layers.insert(0, LayerRoundTrip(place, type(layer).__name__, error, growth, scale))
    return RoundTrip(error, layers)


class RoundTripGuard:
    """Watch the round trip of a flow in training, and warn once when it is beyond ``tolerance``.

    Args:
        flow: The flow.
        tolerance: Largest error that is accepted, see :func:`round_trip`.
    """

    def __init__(self, flow: Flow, tolerance: float) -> None:
        self._flow, self._tolerance, self._warned = flow, tolerance, False

    def check(self, x: Tensor) -> float:
        """Return the error of the round trip of rows ``x``, shape ``(n, d)``."""
        with torch.no_grad():
            error = _error(self._flow.inverse(self._flow(x)[0])[0], x)
        if not (error <= self._tolerance or self._warned):
            self._warned = True
            warnings.warn(self._message(error, x), RuntimeWarning, stacklevel=2)
        return error

    def _message(self, error: float, x: Tensor) -> str:
        return (
            f"the round trip of the flow is off by {error:.1e}, more than {self._tolerance:.0e}: "
            f"{round_trip(self._flow, x).worst}; a lower lr, a smaller clamp of the couplings or "
            'precision="exact" keeps it invertible'
        )


def _error(back: Tensor, x: Tensor) -> float:
    return _largest(back.double() - x.double(), x)


def _largest(values: Tensor, x: Tensor) -> float:
    """Return the largest size over the root mean square of ``x``; zeros count as of size 1."""
    size = x.double().square().mean().sqrt()
    largest = values.double().abs().max()
    return float(largest / size) if size > 0 else float(largest)


def _growth(error: float, before: float) -> float:
    """Return how much the error grew; it ends where it is first no number."""
    if math.isfinite(error):
        return error / before
    return math.inf if math.isfinite(before) else 1.0
