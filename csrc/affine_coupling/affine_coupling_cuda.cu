#include <cuda_runtime.h>

#include "affine_coupling/affine_coupling.h"
#include "affine_coupling/formula.h"

namespace fastinn {
namespace {

// One warp a row, so that a row is summed without shared memory and always in the same order.
constexpr int kWarp = 32;
constexpr int kRowsPerBlock = 8;

template <typename T>
__device__ T at(const Matrix<const T>& m, int64_t row, int64_t column) {
  return m.data[row * m.row_stride + column * m.column_stride];
}

template <typename T>
__device__ T sum_over_warp(T value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

__device__ int64_t row_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.y;
}

template <Direction direction, bool clamped, typename T>
__global__ void transform(Coupling<T> op) {
  const int64_t row = row_of_warp();
  if (row >= op.n_samples) return;
  T log_det = 0;
#pragma unroll 4
  for (int64_t column = threadIdx.x; column < op.n_features; column += kWarp) {
    const Scale<T> scale = scale_of<clamped>(at(op.log_scale, row, column), op.clamp);
    op.output[row * op.n_features + column] = transformed<direction>(
        at(op.input, row, column), at(op.shift, row, column), scale.exp + op.eps);
    log_det += scale.log;
  }
  log_det = sum_over_warp(log_det);
  if (threadIdx.x == 0) op.log_det[row] = direction == Direction::forward ? log_det : -log_det;
}

template <Direction direction, bool clamped, typename T>
__global__ void differentiate(CouplingGradient<T> op) {
  const int64_t row = row_of_warp();
  if (row >= op.n_samples) return;
  const T grad_log_det = at(op.grad_log_det, row, 0);
#pragma unroll 4
  for (int64_t column = threadIdx.x; column < op.n_features; column += kWarp) {
    const Scale<T> scale = scale_of<clamped>(at(op.log_scale, row, column), op.clamp);
    const T grad_output = at(op.grad_output, row, column);
    const T grad = gradient_of_input<direction>(grad_output, scale.exp + op.eps);
    const T through = direction == Direction::forward ? grad_output : grad;
    const int64_t offset = row * op.n_features + column;
    op.grad_input[offset] = grad;
    op.grad_log_scale[offset] = gradient_of_log_scale<direction>(
        through, grad_log_det, at(op.x, row, column), scale.exp, scale.slope);
    if constexpr (direction == Direction::inverse) op.grad_shift[offset] = -grad;
  }
}

template <typename Kernel, typename Op>
int launch(Kernel kernel, const Op& op, void* stream) {
  if (op.n_samples == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((op.n_samples + kRowsPerBlock - 1) / kRowsPerBlock);
  kernel<<<blocks, dim3(kWarp, kRowsPerBlock), 0, static_cast<cudaStream_t>(stream)>>>(op);
  return cudaGetLastError();
}

}  // namespace

template <Direction direction, typename T>
int affine_coupling_cuda(const Coupling<T>& op, void* stream) {
  return launch(op.clamp > 0 ? transform<direction, true, T> : transform<direction, false, T>, op,
                stream);
}

template <Direction direction, typename T>
int affine_coupling_backward_cuda(const CouplingGradient<T>& op, void* stream) {
  return launch(
      op.clamp > 0 ? differentiate<direction, true, T> : differentiate<direction, false, T>, op,
      stream);
}

#define INSTANTIATE(direction, T)                                             \
  template int affine_coupling_cuda<direction, T>(const Coupling<T>&, void*); \
  template int affine_coupling_backward_cuda<direction, T>(const CouplingGradient<T>&, void*);
INSTANTIATE(Direction::forward, float)
INSTANTIATE(Direction::inverse, float)
INSTANTIATE(Direction::forward, double)
INSTANTIATE(Direction::inverse, double)
#undef INSTANTIATE

}  // namespace fastinn
