// The affine coupling of a row by what the last product asks for. CPU only; internal linkage: each
// instruction set keeps its own copy.
#pragma once

#include "affine_coupling/tiles.h"
#include "common/bfloat16.h"
#include "coupling_mlp/coupling_mlp.h"

namespace fastinn {
namespace {

// product + bias of `n` columns.
template <typename P, typename T>
void add_bias(const P* __restrict product, const T* __restrict bias, int64_t n,
              T* __restrict sums) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) sums[i] = widen(product[i]) + bias[i];
}

template <typename P, typename T>
void narrow_all(const T* __restrict values, int64_t n, P* __restrict out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) narrow(values[i], out[i]);
}

template <typename T>
void copy_row(const Matrix<const T>& from, int64_t row, int64_t n, const Matrix<T>& to) {
  T buffer[kTile];
  for (int64_t column = 0; column < n; column += kTile) {
    const int64_t width = tile_width(n - column);
    scatter(gather(from, row, column, width, buffer), width, to, row, column);
  }
}

// The shift and the log-scale of one tile.
template <typename P>
struct Asked {
  using T = Arithmetic<P>;
  T shift[kTile];
  T log_scale[kTile];

  void read(const LastProduct<P>& product, int64_t n_moved, int64_t row, int64_t column,
            int64_t n) {
    const P* of_row = product.data + row * 2 * n_moved;
    const int64_t of_log_scale = n_moved + column;
    add_bias(of_row + column, product.bias + column, n, shift);
    add_bias(of_row + of_log_scale, product.bias + of_log_scale, n, log_scale);
  }
};

template <Direction direction, bool clamped, typename P>
void couple_row(const MlpCoupling<P>& op, int64_t row) {
  using T = Arithmetic<P>;
  Asked<P> asked;
  T moved[kTile], output[kTile];
  T log_det = 0;
  for (int64_t column = 0; column < op.n_moved; column += kTile) {
    const int64_t n = tile_width(op.n_moved - column);
    asked.read(op.product, op.n_moved, row, column, n);
    log_det += transform<direction, clamped>(gather(op.moved, row, column, n, moved), asked.shift,
                                             asked.log_scale, n, op.clamp, op.eps, output);
    scatter(output, n, op.moved_output, row, column);
    if (op.log_scale) narrow_all(asked.log_scale, n, op.log_scale + row * op.n_moved + column);
  }
  op.log_det[row] = log_det;
}

}  // namespace
}  // namespace fastinn
