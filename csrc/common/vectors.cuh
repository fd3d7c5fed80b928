// Reading and writing several neighbouring elements at once: 16 bytes a thread where everything is
// contiguous and aligned, single elements elsewhere.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/matrix.h"

namespace fastinn {
namespace {

constexpr int kVectorBytes = 16;

template <typename T, int n>
struct alignas(n * sizeof(T)) Vector {
  T values[n];
};

template <int n, typename T>
__device__ Vector<T, n> load(const T* at) {
  return *reinterpret_cast<const Vector<T, n>*>(at);
}

template <typename T, int n>
__device__ void store(T* at, const Vector<T, n>& vector) {
  *reinterpret_cast<Vector<T, n>*>(at) = vector;
}

// Where more than one element is taken at a time, columns are neighbours.
template <int n, typename T>
__device__ T* address(const Matrix<T>& m, int64_t row, int64_t column) {
  return m.data + row * m.row_stride + (n == 1 ? column * m.column_stride : column);
}

// Whether every row can be read n elements at a time.
template <int n, typename T>
bool fits(const Matrix<T>& m) {
  return m.data == nullptr || (m.column_stride == 1 && m.row_stride % n == 0 &&
                               reinterpret_cast<uintptr_t>(m.data) % (n * sizeof(T)) == 0);
}

template <int n, typename T>
bool fits(T* contiguous, int64_t columns) {
  return fits<n>(Matrix<T>{contiguous, columns, 1});
}

// --- 16-bit floats in memory, float32 in arithmetic.

__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }

__device__ inline void narrow(float value, __half& out) { out = __float2half_rn(value); }
__device__ inline void narrow(float value, __nv_bfloat16& out) { out = __float2bfloat16_rn(value); }
__device__ inline void narrow(float value, float& out) { out = value; }
__device__ inline void narrow(double value, double& out) { out = value; }

}  // namespace
}  // namespace fastinn
