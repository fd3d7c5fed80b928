// Products of two strips of bfloat16 pairs: on matrix tiles where there are some, otherwise by
// vector instructions. Only for kernels compiled for Isa::avx512_bf16 and better; internal linkage:
// see vector_math.h.
#pragma once

#if defined(__AMX_BF16__)
#include "common/amx.h"
#else
#include "common/bfloat16_tiles.h"
#endif

#if defined(__AVX512BF16__)

namespace fastinn {
namespace {

// Columns of a panel of weights and rows of a strip: two tiles.
constexpr int64_t kStrip = 2 * kTileRows;
constexpr int64_t kStepSize = 2 * kTilePairs;

using Pairs = uint32_t;
using Products = float[kStrip][kStrip];

#if defined(__AMX_BF16__)

inline void add_steps(const Pairs* left, const Pairs* right, int64_t n_steps) {
  constexpr int row_bytes = 64;
  finish_stores();
  for (int64_t step = 0; step < n_steps; ++step, left += kStepSize, right += kStepSize) {
    _tile_loadd(4, left, row_bytes);
    _tile_loadd(6, right, row_bytes);
    _tile_loadd(7, right + kTilePairs, row_bytes);
    _tile_loadd(5, left + kTilePairs, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

inline void store_sums(Products& products) {
  constexpr int stride = sizeof products[0];
  _tile_stored(0, products[0], stride);
  _tile_stored(1, products[0] + kTileRows, stride);
  _tile_stored(2, products[kTileRows], stride);
  _tile_stored(3, products[kTileRows] + kTileRows, stride);
}

inline void multiply(const Pairs* left, const Pairs* right, int64_t n_steps, Products& products) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  add_steps(left, right, n_steps);
  store_sums(products);
}

// products += left * right
inline void multiply_add(const Pairs* left, const Pairs* right, int64_t n_steps,
                         Products& products) {
  constexpr int stride = sizeof products[0];
  _tile_loadd(0, products[0], stride);
  _tile_loadd(1, products[0] + kTileRows, stride);
  _tile_loadd(2, products[kTileRows], stride);
  _tile_loadd(3, products[kTileRows] + kTileRows, stride);
  add_steps(left, right, n_steps);
  store_sums(products);
}

#else

// Vectors need no state of the thread's own.
struct WholeTiles {};

// Rows whose sums are in registers at a time, two vectors of each.
constexpr int64_t kSumRows = 8;

inline __m512 times_pairs(__m512 sum, Pairs left, __m512i right) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(left)),
                          (__m512bh)right);
}

// Writes kSumRows rows of products, or adds to them. The right operand comes from the first-level
// cache once for all of these rows, the left one entry by entry.
template <bool adds>
inline void sum_rows(const Pairs* left, const Pairs* right, int64_t n_steps,
                     float (*products)[kStrip]) {
  __m512 low[kSumRows], high[kSumRows];
#pragma GCC unroll 8
  for (int i = 0; i < kSumRows; ++i) {
    low[i] = adds ? _mm512_load_ps(products[i]) : _mm512_setzero_ps();
    high[i] = adds ? _mm512_load_ps(products[i] + kTileRows) : _mm512_setzero_ps();
  }
  for (int64_t step = 0; step < n_steps; ++step, left += kStepSize, right += kStepSize)
    for (int64_t pair = 0; pair < kTileRows; ++pair) {
      const __m512i first = _mm512_loadu_si512(right + pair * 16);
      const __m512i second = _mm512_loadu_si512(right + kTilePairs + pair * 16);
#pragma GCC unroll 8
      for (int i = 0; i < kSumRows; ++i) {
        low[i] = times_pairs(low[i], left[i * 16 + pair], first);
        high[i] = times_pairs(high[i], left[i * 16 + pair], second);
      }
    }
#pragma GCC unroll 8
  for (int i = 0; i < kSumRows; ++i) {
    _mm512_store_ps(products[i], low[i]);
    _mm512_store_ps(products[i] + kTileRows, high[i]);
  }
}

template <bool adds>
inline void sum_strips(const Pairs* left, const Pairs* right, int64_t n_steps, Products& products) {
  for (int64_t row = 0; row < kStrip; row += kSumRows)
    sum_rows<adds>(left + row * 16, right, n_steps, products + row);
}

inline void multiply(const Pairs* left, const Pairs* right, int64_t n_steps, Products& products) {
  sum_strips<false>(left, right, n_steps, products);
}

// products += left * right
inline void multiply_add(const Pairs* left, const Pairs* right, int64_t n_steps,
                         Products& products) {
  sum_strips<true>(left, right, n_steps, products);
}

#endif

}  // namespace
}  // namespace fastinn

#endif
