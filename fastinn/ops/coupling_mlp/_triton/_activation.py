"""The activations of a sub-network and their derivatives, in float32."""

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.44269504088896340736)
# gelu(x) = x sigmoid(2 u) with u = _GELU x (1 + _CUBIC x^2), the same as its tanh form.
_GELU = tl.constexpr(0.79788456080286535588)
_CUBIC = tl.constexpr(0.044715)
_SELU_SCALE = tl.constexpr(1.0507009873554804934193349852946)
_SELU_ALPHA = tl.constexpr(1.6732632423543772848170429916717)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -_LOG2E))


@triton.jit
def _saturate(x):
    """Bound x to where the sigmoids are 0 or 1, so that no power of it overflows; NaN stays."""
    x = tl.where(x > 40.0, 40.0, x)
    return tl.where(x < -40.0, -40.0, x)


@triton.jit
def activate(x, NAME: tl.constexpr):
    """The activation at x and its derivative, which costs nothing where it is not used."""
    if NAME == "relu":
        return tl.where(x < 0, 0.0, x), tl.where(x > 0, 1.0, 0.0)
    elif NAME == "selu":  # noqa: RET505 (Triton compiles the branch that the constant selects)
        power = tl.exp(tl.where(x > 0, 0.0, x))
        value = tl.where(x > 0, x, (power - 1.0) * _SELU_ALPHA)
        slope = tl.where(x > 0, 1.0, power * _SELU_ALPHA)
        return value * _SELU_SCALE, slope * _SELU_SCALE
    elif NAME == "gelu":
        bounded = _saturate(x)
        square = bounded * bounded * _CUBIC
        twice = bounded * (2.0 * _GELU)
        gate = _sigmoid(twice * (1.0 + square))
        return x * gate, gate + twice * (1.0 + 3.0 * square) * gate * (1.0 - gate)
    else:
        bounded = _saturate(x)
        gate = _sigmoid(bounded)
        return x * gate, gate + bounded * gate * (1.0 - gate)
