// IEEE half precision in memory, float32 in arithmetic. Internal linkage: see vector_math.h.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastinn {

struct Float16 {
  uint16_t bits;
};

namespace {

inline float widen(Float16 value) {
  const uint32_t magnitude = (value.bits & 0x7fffu) << 13;
  const bool finite = magnitude < (0x7c00u << 13);
  const uint32_t bits = finite ? magnitude : magnitude | 0x7f800000u;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  wide *= finite ? 0x1p112f : 1.0f;  // from the exponent bias of float32 to that of half precision
  return value.bits & 0x8000u ? -wide : wide;
}

}  // namespace
}  // namespace fastinn
