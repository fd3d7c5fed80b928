// The affine coupling of a row by what the last product asks for, and its gradients. CPU only;
// internal linkage: each instruction set keeps its own copy.
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

template <Direction direction, bool clamped, typename P>
void differentiate_row(const MlpCouplingGradient<P>& op, int64_t row) {
  using T = Arithmetic<P>;
  constexpr Direction back =
      direction == Direction::forward ? Direction::inverse : Direction::forward;
  Asked<P> asked;
  T known_buffer[kTile], recovered[kTile], grad_output_buffer[kTile];
  T grad_input[kTile], grad_log_scale[kTile], grad_shift[kTile];
  const T grad_log_det = op.grad_log_det.data[row * op.grad_log_det.row_stride];
  for (int64_t column = 0; column < op.n_moved; column += kTile) {
    const int64_t n = tile_width(op.n_moved - column);
    const T* x = gather(op.known, row, column, n, known_buffer);
    const T* log_scale = op.log_scale + row * op.n_moved + column;
    if (!op.log_scale) {
      asked.read(op.product, op.n_moved, row, column, n);
      log_scale = asked.log_scale;
      transform<back, clamped>(x, asked.shift, log_scale, n, op.clamp, op.eps, recovered);
      scatter(recovered, n, op.input, row, column);
      if constexpr (direction == Direction::forward) x = recovered;
    }
    const T* grad_output = gather(op.grad_output, row, column, n, grad_output_buffer);
    differentiate<direction, clamped>(grad_output, grad_log_det, x, log_scale, n, op.clamp, op.eps,
                                      grad_input, grad_log_scale, grad_shift);
    scatter(grad_input, n, op.grad_input, row, column);
    P* grad_product = op.grad_product + row * 2 * op.n_moved + column;
    narrow_all(direction == Direction::forward ? grad_output : grad_shift, n, grad_product);
    narrow_all(grad_log_scale, n, grad_product + op.n_moved);
  }
}

}  // namespace
}  // namespace fastinn
