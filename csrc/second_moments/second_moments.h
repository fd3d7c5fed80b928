// Weighted sums of products of paired rows, out = sum_i w_i (x_i - a) (y_i - b)^T, in one pass over
// the rows: they are shifted, weighted and converted while they are packed for the products.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace fastinn {

enum class Element { float16, bfloat16, float32, float64 };

// Entry (b, i, j) is at b * batch_stride + i * row_stride + j * column_stride; strides count
// elements.
struct Rows {
  const void* data;
  Element element;
  int64_t n_features;
  int64_t batch_stride;
  int64_t row_stride;
  int64_t column_stride;
  const double* shift;  // (n_batches, n_features), contiguous
};

struct SecondMoments {
  int64_t n_batches;
  int64_t n_rows;
  Rows left;
  Rows right;           // symmetric: not read
  bool symmetric;       // right stands for left; only the lower triangle is computed, then mirrored
  const double* root;   // square root of the weight of each row, (n_rows,)
  bool round_bfloat16;  // round the packed rows to bfloat16
  double* out;          // (n_batches, left.n_features, right.n_features), contiguous
};

// `T` is the type of the products; sums of kPromotedRows of them are added up in float64.
template <Isa isa, typename T>
void second_moments_cpu(const SecondMoments& op);

}  // namespace fastinn
