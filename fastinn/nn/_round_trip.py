"""What rounding leaves of a bijection: there and back, and which layer loses it."""

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from fastinn import _checks
from fastinn.nn.coupling import Coupling
from fastinn.nn.flow import Flow


class LayerRoundTrip(NamedTuple):
    """Round trip through one layer.

    Attributes:
        index: Place of the layer in the flow.
        kind: Class of the layer.
        error: Largest error, in units of the root mean square of what went into the layer.
        log_scale: Largest absolute log-scale, after clamping; ``None`` if it is not a coupling.
    """

    index: int
    kind: str
    error: float
    log_scale: float | None

    def __str__(self) -> str:
        scale = "" if self.log_scale is None else f", largest |log-scale| {self.log_scale:.3g}"
        return f"layer {self.index} ({self.kind}) alone is off by {self.error:.1e}{scale}"


class RoundTrip(NamedTuple):
    """Round trip through a flow.

    Attributes:
        error: Largest error, in units of the root mean square of the rows.
        layers: The same for each layer alone, in the order of the flow.
    """

    error: float
    layers: list[LayerRoundTrip]

    @property
    def worst(self) -> LayerRoundTrip:
        """The layer that loses most."""
        return max(self.layers, key=lambda layer: (math.isnan(layer.error), layer.error))


@torch.no_grad()
def round_trip(flow: Flow, x: Tensor) -> RoundTrip:
    """Measure ``flow.inverse(flow(x))`` against ``x``, and likewise layer by layer.

    Args:
        flow: Any flow.
        x: Rows, shape ``(n, d)``; a few hundred are enough.

    Returns:
        Errors in units of the root mean square of the rows; NaN where a result is not finite.

    Raises:
        ValueError: If ``x`` is not a matrix, has no rows, or holds NaN or infinity.
    """
    x = _checks.rows(x, "x")
    rows, layers = x, []
    for index, layer in enumerate(flow.layers):
        out, _ = layer(rows)
        scale = float(layer.largest_log_scale(rows)) if isinstance(layer, Coupling) else None
        error = _error(layer.inverse(out)[0], rows)
        layers.append(LayerRoundTrip(index, type(layer).__name__, error, scale))
        rows = out
    return RoundTrip(_error(flow.inverse(rows)[0], x), layers)


class RoundTripGuard:
    """Watch the round trip of a flow in training, and warn once when it is beyond ``tolerance``.

    Args:
        flow: The flow.
        tolerance: Largest error that is accepted, see :func:`round_trip`.
    """

    def __init__(self, flow: Flow, tolerance: float) -> None:
        self._flow, self._tolerance, self._warned = flow, tolerance, False

    @torch.no_grad()
    def check(self, x: Tensor) -> float:
        """Return the error of the round trip of rows ``x``, shape ``(n, d)``."""
        error = _error(self._flow.inverse(self._flow(x)[0])[0], x)
        if not (error <= self._tolerance or self._warned):
            self._warned = True
            warnings.warn(self._message(error, x), RuntimeWarning, stacklevel=2)
        return error

    def _message(self, error: float, x: Tensor) -> str:
        return (
            f"the round trip of the flow is off by {error:.1e}, more than {self._tolerance:.0e}: "
            f"{round_trip(self._flow, x).worst}; a smaller clamp, a lower lr or "
            'precision="exact" keeps it invertible'
        )


def _error(back: Tensor, x: Tensor) -> float:
    """Return the largest error over the root mean square; rows of zeros count as of size 1."""
    size = x.double().square().mean().sqrt()
    difference = (back.double() - x.double()).abs().max()
    return float(difference / size) if size > 0 else float(difference)
