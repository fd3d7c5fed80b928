// The activations and their slopes of 16 elements that are rounded to bfloat16 afterwards, to
// 2^-12 of themselves: a fraction of the work of the formulas that are exact in float32. NaN stays
// NaN. Only for kernels compiled for Isa::avx512_bf16 and better; internal linkage: see
// vector_math.h.
#pragma once

#if defined(__AVX512BF16__)

#include <immintrin.h>

#include "common/vector_math.h"
#include "coupling_mlp/formula.h"

namespace fastinn {
namespace {

constexpr int kLanes = 16;
constexpr double kLn2 = 0.69314718055994530942;

struct RoundedActivated {
  __m512 value;
  __m512 slope;
};

// ln(2)^n / n!
constexpr double exp2_coefficient(int n) {
  return n == 0 ? 1.0 : exp2_coefficient(n - 1) * kLn2 / n;
}

// 2^r for r from -1/2 to 1/2, by Horner's rule.
template <int n = 0>
inline __m512 exp2_series(__m512 r) {
  const __m512 coefficient = _mm512_set1_ps(static_cast<float>(exp2_coefficient(n)));
  if constexpr (n == 4)
    return coefficient;
  else
    return _mm512_fmadd_ps(r, exp2_series<n + 1>(r), coefficient);
}

// 1 / (1 + exp(-z)); beyond the bounds it is 0 or 1. The operand that may be NaN comes second.
inline __m512 rounded_sigmoid(__m512 z) {
  const __m512 bound = _mm512_set1_ps(200.0f), one = _mm512_set1_ps(1.0f);
  const __m512 power = z * _mm512_set1_ps(static_cast<float>(-kLog2E));
  const __m512 bounded = _mm512_max_ps(-bound, _mm512_min_ps(bound, power));
  const __m512 whole = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT);
  return _mm512_rcp14_ps(one + _mm512_scalef_ps(exp2_series(bounded - whole), whole));
}

// See `gated` in formula.h.
inline RoundedActivated rounded_gated(__m512 x, __m512 z, __m512 inner) {
  const __m512 gate = rounded_sigmoid(z), value = x * gate;
  return {value, _mm512_fmadd_ps(value * (_mm512_set1_ps(1.0f) - gate), inner, gate)};
}

template <Activation activation>
inline RoundedActivated rounded_activated(__m512 x) {
  if constexpr (activation == Activation::silu) {
    return rounded_gated(x, x, _mm512_set1_ps(1.0f));
  } else if constexpr (activation == Activation::gelu) {
    const __m512 linear = _mm512_set1_ps(static_cast<float>(kGeluLinear));
    const __m512 cubic = _mm512_set1_ps(static_cast<float>(kGeluLinear * kGeluCubic));
    const __m512 square = x * x, growth = cubic * square;
    return rounded_gated(x, x * (linear + growth),
                         _mm512_fmadd_ps(growth, _mm512_set1_ps(3.0f), linear));
  } else {
    alignas(64) float values[kLanes], slopes[kLanes];
    _mm512_store_ps(values, x);
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      const auto one = activated<activation>(values[i]);
      values[i] = one.value;
      slopes[i] = one.slope;
    }
    return {_mm512_load_ps(values), _mm512_load_ps(slopes)};
  }
}

}  // namespace
}  // namespace fastinn

#endif
