// How elementwise kernels walk a matrix: one warp a row, so that a row is summed without shared
// memory and always in the same order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fastinn {
namespace {

constexpr int kWarp = 32;
constexpr int kRowsPerBlock = 8;

__device__ inline int64_t row_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.y;
}

template <typename T>
__device__ T sum_over_warp(T value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Launches `kernel(op)` with a warp for each row.
template <typename Kernel, typename Op>
int launch_rows(Kernel kernel, const Op& op, int64_t n_rows, void* stream) {
  if (n_rows == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((n_rows + kRowsPerBlock - 1) / kRowsPerBlock);
  kernel<<<blocks, dim3(kWarp, kRowsPerBlock), 0, static_cast<cudaStream_t>(stream)>>>(op);
  return cudaGetLastError();
}

}  // namespace
}  // namespace fastinn
