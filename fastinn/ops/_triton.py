"""What the Triton kernels share: the scale of a coupling, to a few units in the last place."""

import triton
import triton.language as tl

# ln 2 in two parts; the first has few bits, so that its product with a small integer is exact.
LN2_HIGH = tl.constexpr(0.693359375)
LN2_LOW = tl.constexpr(-2.121944400546905827679e-4)
LOG2E = tl.constexpr(1.44269504088896340736)


@triton.jit
def _power_of_two(k):
    if k.dtype == tl.float64:
        return ((k.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    else:  # noqa: RET505 (Triton compiles the branch that the type selects)
        return ((k.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _reduce(x):
    """Return k and r with exp(x) = 2^k (1 + r), r small enough to stay accurate alone."""
    DEGREE: tl.constexpr = 13 if x.dtype == tl.float64 else 7
    k = tl.floor(x * LOG2E + 0.5)
    rest = (x - k * LN2_HIGH) - k * LN2_LOW
    series = tl.full(x.shape, 1.0, x.dtype)
    for n in tl.static_range(DEGREE, 1, -1):
        series = 1.0 + series * rest * (1.0 / n)
    return k, series * rest


@triton.jit
def exp(x):
    """Exponential; NaN stays NaN."""
    LIMIT: tl.constexpr = 746.0 if x.dtype == tl.float64 else 104.0
    x = tl.where(x > LIMIT, LIMIT, x)
    x = tl.where(x < -LIMIT, -LIMIT, x)
    k, r = _reduce(x)
    # Two factors: neither overflows where the product is finite.
    half = tl.floor(k * 0.5)
    return (1.0 + r) * _power_of_two(half) * _power_of_two(k - half)


@triton.jit
def tanh(x):
    """Hyperbolic tangent, accurate near zero too."""
    magnitude = tl.abs(x)
    magnitude = tl.where(magnitude > 20.0, 20.0, magnitude)
    k, r = _reduce(2.0 * magnitude)
    power = _power_of_two(k)
    expm1 = power * r + (power - 1.0)
    result = expm1 / (expm1 + 2.0)
    return tl.where(x < 0, -result, result)


@triton.jit
def scale_of(log_scale, CLAMP: tl.constexpr):
    """Return l, exp(l) and the derivative of l by the log-scale."""
    if CLAMP > 0:
        bounded = tanh(log_scale / CLAMP)
        log = CLAMP * bounded
        slope = 1.0 - bounded * bounded
    else:
        log = log_scale
        slope = tl.full(log_scale.shape, 1.0, log_scale.dtype)
    return log, exp(log), slope
