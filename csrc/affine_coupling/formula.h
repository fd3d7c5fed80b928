// The op for one element, the same on every processor.
#pragma once

#include "affine_coupling/affine_coupling.h"
#include "common/portable_math.h"

namespace fastinn {
namespace {

template <typename T>
struct Scale {
  T log;
  T exp;
  T slope;  // derivative of `log` by the log-scale before clamping
};

template <bool clamped, typename T>
FASTINN_ELEMENTWISE Scale<T> scale_of(T log_scale, T clamp) {
  if constexpr (clamped) {
    const T bounded = tanh(log_scale * (1 / clamp));  // the division leaves the loop
    const T log = clamp * bounded;
    return {log, exp(log), 1 - bounded * bounded};
  } else {
    return {log_scale, exp(log_scale), T(1)};
  }
}

template <Direction direction, typename T>
FASTINN_ELEMENTWISE T transformed(T input, T shift, T gain) {
  return direction == Direction::forward ? input * gain + shift : (input - shift) / gain;
}

template <Direction direction, typename T>
FASTINN_ELEMENTWISE T gradient_of_input(T grad_output, T gain) {
  return direction == Direction::forward ? grad_output * gain : grad_output / gain;
}

// `through` is the gradient that reaches the product of x and its scale: forward that of the
// output, inverse that of the input.
template <Direction direction, typename T>
FASTINN_ELEMENTWISE T gradient_of_log_scale(T through, T grad_log_det, T x, T scale, T slope) {
  const T grad = (through * x * scale + grad_log_det) * slope;
  return direction == Direction::forward ? grad : -grad;
}

}  // namespace
}  // namespace fastinn
