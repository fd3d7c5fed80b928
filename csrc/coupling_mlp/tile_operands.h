// Operands of tile products, rounded to bfloat16 and packed, and the products of their strips. Only
// for kernels compiled for Isa::avx512_bf16 and better; internal linkage: see vector_math.h.
#pragma once

#include "coupling_mlp/tile_products.h"

#if defined(__AVX512BF16__)

#include <omp.h>

#include <algorithm>

#include "common/buffer.h"
#include "common/matrix.h"

namespace fastinn {
namespace {

// Entries of the widest activations of a block of rows, which stay in the second-level cache.
constexpr int64_t kBlockEntries = 1 << 19;
constexpr int64_t kMostRows = 192;

inline __m512i narrowed(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// Of up to 32 entries.
inline __mmask32 first_entries(int64_t n) { return static_cast<__mmask32>((uint64_t{1} << n) - 1); }

// Operands of products in the order in which they are read: strip after strip of 32 rows, in each
// step after step of 32 entries, both tiles of a step together. Filled up with zeros.
struct Operand {
  int64_t n_steps;
  Buffer<Pairs> data;

  Operand(int64_t n_rows, int64_t n_entries)
      : n_steps(ceil_div(n_entries, kTileDepth)),
        data(allocate<Pairs>(ceil_div(n_rows, kStrip) * n_steps * kStepSize)) {}

  Pairs* at(int64_t strip, int64_t step) const {
    return data.get() + (strip * n_steps + step) * kStepSize;
  }
};

// Up to 32 entries, filled up with zeros.
inline __m512i rounded(const float* first, int64_t stride, int64_t n) {
  alignas(64) float gathered[kTileDepth];
  if (stride != 1) {
    for (int64_t i = 0; i < n; ++i) gathered[i] = first[i * stride];
    first = gathered;
  }
  const __mmask32 mask = first_entries(n);
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), first);
  const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), first + 16);
  return narrowed(low, high);
}

// Rounds one step of a strip: rows of 32 entries, as left operands hold them.
inline void round_step(const Matrix<const float>& from, int64_t row, int64_t n_rows, int64_t column,
                       int64_t n_columns, Pairs* out) {
  const float* first = from.data + row * from.row_stride + column * from.column_stride;
  for (int64_t i = 0; i < kStrip; ++i, first += from.row_stride, out += 16)
    _mm512_storeu_si512(out, rounded(first, from.column_stride, i < n_rows ? n_columns : 0));
}

void round_rows(const Matrix<const float>& from, int64_t first, int64_t n_rows, int64_t n_columns,
                const Operand& out) {
  for (int64_t row = 0; row < n_rows; row += kStrip)
    for (int64_t column = 0; column < n_columns; column += kTileDepth)
      round_step(from, first + row, std::min(kStrip, n_rows - row), column,
                 std::min(kTileDepth, n_columns - column),
                 out.at(row / kStrip, column / kTileDepth));
}

// Turns a step of rows, as left operands hold them, into one of columns, as right operands do: two
// rows become the pairs over which products are summed.
inline void pair_rows(const Pairs* rows, Pairs* out) {
  alignas(64) static constexpr uint16_t low[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                   37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                   11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i first = _mm512_load_si512(low);
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  for (int64_t i = 0; i < kTileRows; ++i, rows += 32, out += 16) {
    const __m512i even = _mm512_loadu_si512(rows), odd = _mm512_loadu_si512(rows + 16);
    _mm512_storeu_si512(out, _mm512_permutex2var_epi16(even, first, odd));
    _mm512_storeu_si512(out + kTilePairs, _mm512_permutex2var_epi16(even, second, odd));
  }
}

// Transposes both tiles of a step: left operands become right ones, and the other way round.
inline void transpose_step(const Pairs* step, Pairs* out) {
  for (int64_t tile = 0; tile < 2; ++tile, step += kTilePairs, out += kTilePairs) {
    __m512i rows[kTileRows];
    for (int64_t i = 0; i < kTileRows; ++i) rows[i] = _mm512_loadu_si512(step + i * 16);
    transpose(rows, out);
  }
}

// Rounds 32 x 32 entries of the weights (n_out, n_in) of one network.
inline void round_weights(const float* weight, int64_t n_out, int64_t n_in, int64_t row,
                          int64_t column, Pairs* out) {
  round_step({weight, n_in, 1}, row, std::min(kStrip, n_out - row), column,
             std::min(kTileDepth, n_in - column), out);
}

// Right operands of products with rows of n_in entries.
Operand packed_weights(const float* weight, int64_t n_out, int64_t n_in) {
  Operand packed(n_out, n_in);
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t strip = 0; strip < ceil_div(n_out, kStrip); ++strip)
    for (int64_t step = 0; step < packed.n_steps; ++step) {
      alignas(64) Pairs entries[kStepSize];
      round_weights(weight, n_out, n_in, strip * kStrip, step * kTileDepth, entries);
      transpose_step(entries, packed.at(strip, step));
    }
  return packed;
}

// Right operands of products with rows of n_out entries, which are gradients.
Operand packed_transposed(const float* weight, int64_t n_out, int64_t n_in) {
  Operand packed(n_in, n_out);
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t step = 0; step < packed.n_steps; ++step)
    for (int64_t strip = 0; strip < ceil_div(n_in, kStrip); ++strip) {
      alignas(64) Pairs entries[kStepSize];
      round_weights(weight, n_out, n_in, step * kTileDepth, strip * kStrip, entries);
      pair_rows(entries, packed.at(strip, step));
    }
  return packed;
}

// Calls `function` with the place of every 32 x 32 products of rows and weights, and the products.
template <typename Function>
void for_each_products(const Operand& rows, int64_t n_rows, const Operand& weights, int64_t n_out,
                       Function&& function) {
  alignas(64) Products products;
  for (int64_t column = 0; column < n_out; column += kStrip)
    for (int64_t row = 0; row < n_rows; row += kStrip) {
      multiply(rows.at(row / kStrip, 0), weights.at(column / kStrip, 0), rows.n_steps, products);
      function(row, column, products);
    }
}

template <typename T>
Matrix<T> from_row(const Matrix<T>& matrix, int64_t row) {
  return {matrix.data + row * matrix.row_stride, matrix.row_stride, matrix.column_stride};
}

// As many rows as stay in the cache, and as many blocks for every thread.
inline int64_t rows_of_block(int64_t n_samples, int64_t widest) {
  const int64_t most = std::clamp(kBlockEntries / widest, kStrip, kMostRows);
  const int64_t n_threads = omp_get_max_threads();
  const int64_t n_blocks = ceil_div(ceil_div(n_samples, most), n_threads) * n_threads;
  return ceil_div(ceil_div(n_samples, n_blocks), kStrip) * kStrip;
}

}  // namespace
}  // namespace fastinn

#endif
