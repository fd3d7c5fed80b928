"""Odd polynomials that carry an interval of singular values to 1 in the fewest steps."""

from functools import cache
from typing import NamedTuple

import numpy as np

# A minimax polynomial of a wide interval sends some large values as low as it lifts the smallest,
# and rounding then costs their digits. Narrower intervals keep every dip above a tenth.
_NARROWEST = 0.024

# Width of the interval from which two flattest steps leave nothing but float64 rounding.
_NEARLY_ONE = 0.02

# Places of the extrema do not enter the error to first order: these digits are plenty.
_REMEZ_TOLERANCE = 1e-6


class Step(NamedTuple):
    """Coefficients of ``linear * s + cubic * s**3 + quintic * s**5``."""

    linear: float
    cubic: float
    quintic: float

    def __call__(self, s: float) -> float:
        return s * (self.linear + s * s * (self.cubic + s * s * self.quintic))

    def times(self, factor: float) -> "Step":
        """Return the polynomial multiplied by ``factor``."""
        return Step(*(factor * coefficient for coefficient in self))

    def damped(self, factor: float) -> "Step":
        """Return the polynomial of ``factor * s``."""
        return Step(factor * self.linear, factor**3 * self.cubic, factor**5 * self.quintic)


# The quintic that is flattest at 1: the limit of the minimax ones.
FLATTEST = Step(15 / 8, -10 / 8, 3 / 8)


@cache
def schedule(smallest: float) -> tuple[Step, ...]:
    """Return steps that carry every value in ``[smallest, 1]`` to 1 up to rounding.

    Each step is the best odd quintic for the interval in which the steps before it left the
    values, which makes their composition the best of its length.

    Source: Amsel et al. 2025, The Polar Express (arXiv 2505.16932), algorithm 1 and section 3.3.
    """
    low, high = smallest, 1.0
    steps = []
    while high - low > _NEARLY_ONE:
        step = _minimax(max(low, _NARROWEST * high), high)
        # For a raised lower end the polynomial's range is no longer centred on 1.
        step = step.times(2 / (step(low) + step(high)))
        low = step(low)
        high = 2 - low
        steps.append(step)
    return (*steps, FLATTEST, FLATTEST)


def _minimax(low: float, high: float) -> Step:
    """Return the odd quintic closest to 1 on ``[low, high]``, by the Remez algorithm."""
    inner = low + (high - low) * np.array([0.25, 0.75])
    while True:
        points = np.array([low, *inner, high])
        signs = np.array([1, -1, 1, -1])
        system = np.stack([points, points**3, points**5, signs], axis=1)
        *coefficients, _ = np.linalg.solve(system, np.ones(4))
        step = Step(*map(float, coefficients))
        extrema = _extrema(step)
        if np.abs(extrema - inner).max() <= _REMEZ_TOLERANCE * high:
            return step
        inner = extrema


def _extrema(step: Step) -> np.ndarray:
    """Return the two positive zeros of the derivative, ascending."""
    squares = np.roots([5 * step.quintic, 3 * step.cubic, step.linear])
    return np.sort(np.sqrt(squares.real))
