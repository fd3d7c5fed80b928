// 16-bit floats in memory, float32 in arithmetic. Internal linkage: see vector_math.h.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastinn {

struct BFloat16 {
  uint16_t bits;
};

namespace {

inline float widen(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }

// Rounds to nearest, ties to even; NaN stays NaN.
inline void narrow(float value, BFloat16& out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  out.bits = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}

inline void narrow(float value, float& out) { out = value; }
inline void narrow(double value, double& out) { out = value; }

}  // namespace
}  // namespace fastinn
