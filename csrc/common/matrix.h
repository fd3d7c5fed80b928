// A strided view of memory that Python owns.
#pragma once

#include <cstdint>

namespace fastinn {

// Element (i, j) is data[i * row_stride + j * column_stride]; strides count elements.
template <typename T>
struct Matrix {
  T* data;
  int64_t row_stride;
  int64_t column_stride;
};

}  // namespace fastinn
