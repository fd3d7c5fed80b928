// Tiles of products of bfloat16 pairs with float32 sums: 16 rows of 64 bytes, as the matrix tiles
// of AMX have them. Only for kernels compiled for Isa::avx512_bf16 and better; internal linkage:
// see vector_math.h.
#pragma once

#if defined(__AVX512BF16__)

#include <immintrin.h>

#include <cstdint>

namespace fastinn {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = kTileRows * 64;
// Products are summed over this many entries at a time.
constexpr int64_t kTileDepth = 32;
// bfloat16 entries of an operand, as pairs of 32 bits.
constexpr int64_t kTilePairs = kTileRows * 16;

// Transposes 16 x 16 entries of 32 bits: turns the right operand of a product into a left one.
inline void transpose(const __m512i (&rows)[16], uint32_t* out) {
  __m512i a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i even_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xdd);
    const __m512i even_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
    const __m512i odd_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xdd);
    _mm512_store_si512(out + 16 * i, _mm512_shuffle_i32x4(even_low, even_high, 0x88));
    _mm512_store_si512(out + 16 * (i + 4), _mm512_shuffle_i32x4(odd_low, odd_high, 0x88));
    _mm512_store_si512(out + 16 * (i + 8), _mm512_shuffle_i32x4(even_low, even_high, 0xdd));
    _mm512_store_si512(out + 16 * (i + 12), _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd));
  }
}

}  // namespace
}  // namespace fastinn

#endif
