// The coupling of one tile of a row, and how strided tiles are read and written. CPU only; internal
// linkage: each instruction set keeps its own copy.
#pragma once

#include "affine_coupling/formula.h"
#include "common/matrix.h"

namespace fastinn {
namespace {

// Columns handled at a time: strided tiles are gathered into buffers of this size.
constexpr int64_t kTile = 512;
// Below this many elements, waking the threads costs more than it saves.
constexpr int64_t kSerial = 1 << 14;

inline int64_t tile_width(int64_t columns_left) {
  return columns_left < kTile ? columns_left : kTile;
}

// Returns `n` columns of a row side by side, in `buffer` unless they already are.
template <typename T>
const T* gather(const Matrix<const T>& m, int64_t row, int64_t column, int64_t n, T* buffer) {
  const T* first = m.data + row * m.row_stride + column * m.column_stride;
  if (m.column_stride == 1) return first;
  for (int64_t i = 0; i < n; ++i) buffer[i] = first[i * m.column_stride];
  return buffer;
}

template <typename T>
void scatter(const T* values, int64_t n, const Matrix<T>& m, int64_t row, int64_t column) {
  T* first = m.data + row * m.row_stride + column * m.column_stride;
  if (m.column_stride == 1) {
    for (int64_t i = 0; i < n; ++i) first[i] = values[i];
  } else {
    for (int64_t i = 0; i < n; ++i) first[i * m.column_stride] = values[i];
  }
}

template <Direction direction, bool clamped, typename T>
T transform(const T* __restrict input, const T* __restrict shift, const T* __restrict log_scale,
            int64_t n, T clamp, T eps, T* __restrict output) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const Scale<T> scale = scale_of<clamped>(log_scale[i], clamp);
    output[i] = transformed<direction>(input[i], shift[i], scale.exp + eps);
    sum += scale.log;
  }
  return direction == Direction::forward ? sum : -sum;
}

template <Direction direction, bool clamped, typename T>
void differentiate(const T* __restrict grad_output, T grad_log_det, const T* __restrict x,
                   const T* __restrict log_scale, int64_t n, T clamp, T eps,
                   T* __restrict grad_input, T* __restrict grad_log_scale,
                   T* __restrict grad_shift) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Scale<T> scale = scale_of<clamped>(log_scale[i], clamp);
    const T grad = gradient_of_input<direction>(grad_output[i], scale.exp + eps);
    const T through = direction == Direction::forward ? grad_output[i] : grad;
    grad_input[i] = grad;
    grad_log_scale[i] =
        gradient_of_log_scale<direction>(through, grad_log_det, x[i], scale.exp, scale.slope);
    if constexpr (direction == Direction::inverse) grad_shift[i] = -grad;
  }
}

}  // namespace
}  // namespace fastinn
