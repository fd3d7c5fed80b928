// The activations and their slopes for one element, the same on every processor. NaN stays NaN.
#pragma once

#include "common/portable_math.h"
#include "coupling_mlp/coupling_mlp.h"

namespace fastinn {
namespace {

// Klambauer et al. 2017, Self-Normalizing Neural Networks, eq. 14.
constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
// Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2.
// u = sqrt(2 / pi) (x + kGeluCubic x^3), and (1 + tanh(u)) / 2 = sigmoid(2u): one exponential
// instead of a hyperbolic tangent.
constexpr double kGeluLinear = 2 * 0.79788456080286535588;
constexpr double kGeluCubic = 0.044715;

template <typename T>
struct Activated {
  T value;
  T slope;
};

// x sigmoid(z) and its slope, for z with the slope `inner`.
template <typename T>
FASTINN_ELEMENTWISE Activated<T> gated(T x, T z, T inner) {
  const T gate = 1 / (1 + exp(-z));
  const T value = x * gate;
  return {value, gate + value * (1 - gate) * inner};
}

template <Activation activation, typename T>
FASTINN_ELEMENTWISE Activated<T> activated(T x) {
  if constexpr (activation == Activation::relu) {
    return {x < 0 ? T(0) : x, x > 0 ? T(1) : T(0)};
  } else if constexpr (activation == Activation::selu) {
    const T grown = T(kSeluScale * kSeluAlpha) * expm1_of_negative(x > 0 ? T(0) : x);
    return {x > 0 ? T(kSeluScale) * x : grown,
            x > 0 ? T(kSeluScale) : grown + T(kSeluScale * kSeluAlpha)};
  } else if constexpr (activation == Activation::silu) {
    return gated(x, x, T(1));
  } else {
    constexpr T linear = T(kGeluLinear), cubic = T(kGeluLinear * kGeluCubic);
    const T square = x * x;
    return gated(x, x * (linear + cubic * square), linear + 3 * cubic * square);
  }
}

}  // namespace
}  // namespace fastinn
