// exp, expm1 and tanh to a few units in the last place, without branches or calls, so that loops
// over them vectorise. Internal linkage: each instruction set keeps its own copy.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace fastinn {
namespace {

template <typename T>
struct Format;

template <>
struct Format<float> {
  using Bits = int32_t;
  static constexpr int mantissa = 23;
  static constexpr int bias = 127;
  static constexpr int degree = 7;
  static constexpr float round_shift = 12582912.0f;  // 1.5 * 2^23
  static constexpr float ln2_high = 0.693359375f;    // few bits, so that k * ln2_high is exact
  static constexpr float ln2_low = -2.12194440e-4f;
  static constexpr float overflow = 89.0f;
  static constexpr float underflow = -104.0f;
  static constexpr float tanh_is_one = 10.0f;
};

template <>
struct Format<double> {
  using Bits = int64_t;
  static constexpr int mantissa = 52;
  static constexpr int bias = 1023;
  static constexpr int degree = 13;
  static constexpr double round_shift = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_high = 6.93145751953125e-1;
  static constexpr double ln2_low = 1.42860682030941723212e-6;
  static constexpr double overflow = 710.0;
  static constexpr double underflow = -746.0;
  static constexpr double tanh_is_one = 20.0;
};

constexpr double kLog2E = 1.44269504088896340736;

constexpr double inverse_factorial(int n) { return n < 2 ? 1.0 : inverse_factorial(n - 1) / n; }

// r + r^2/2! + ... + r^degree/degree! by Horner's rule, unrolled by the compiler.
template <typename T, int n = 1>
inline T expm1_series(T r) {
  constexpr T coefficient = static_cast<T>(inverse_factorial(n));
  if constexpr (n == Format<T>::degree)
    return coefficient * r;
  else
    return r * (coefficient + expm1_series<T, n + 1>(r));
}

// 2^k for k that is not out of the normal range; of a NaN k is any integer, and so is the result.
template <typename T>
inline T power_of_two(typename Format<T>::Bits k) {
  using Unsigned = std::make_unsigned_t<typename Format<T>::Bits>;
  const Unsigned bits = static_cast<Unsigned>(k + Format<T>::bias) << Format<T>::mantissa;
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// exp(x) = 2^exponent (1 + remainder), with the remainder small enough to stay accurate alone.
template <typename T>
struct Reduced {
  typename Format<T>::Bits exponent;
  T remainder;
};

template <typename T>
inline Reduced<T> reduce(T x) {
  using F = Format<T>;
  // Adding the shift rounds to an integer and leaves that integer in the low bits.
  const T shifted = x * static_cast<T>(kLog2E) + F::round_shift;
  const T k = shifted - F::round_shift;
  typename F::Bits low, zero;
  std::memcpy(&low, &shifted, sizeof low);
  std::memcpy(&zero, &F::round_shift, sizeof zero);
  return {low - zero, expm1_series<T>((x - k * F::ln2_high) - k * F::ln2_low)};
}

template <typename T>
inline T exp(T x) {
  using F = Format<T>;
  x = x > F::overflow ? F::overflow : x;
  x = x < F::underflow ? F::underflow : x;
  const Reduced<T> e = reduce(x);
  // Two factors: neither overflows where the product is finite, and denormals round once.
  const auto half = e.exponent >> 1;
  return (1 + e.remainder) * power_of_two<T>(half) * power_of_two<T>(e.exponent - half);
}

// exp(x) - 1 where neither it nor exp(-x) overflows.
template <typename T>
inline T expm1_in_range(T x) {
  const Reduced<T> e = reduce(x);
  const T scale = power_of_two<T>(e.exponent);
  return scale * e.remainder + (scale - 1);
}

template <typename T>
inline T tanh(T x) {
  using F = Format<T>;
  T magnitude = x < 0 ? -x : x;
  magnitude = magnitude > F::tanh_is_one ? F::tanh_is_one : magnitude;
  const T grown = expm1_in_range(2 * magnitude);
  const T result = grown / (grown + 2);
  return x < 0 ? -result : result;
}

// For x up to 0 only, which is all that SELU asks for: below twice tanh_is_one it is -1.
template <typename T>
inline T expm1_of_negative(T x) {
  const T least = -2 * Format<T>::tanh_is_one;
  return expm1_in_range(x < least ? least : x);
}

}  // namespace
}  // namespace fastinn
