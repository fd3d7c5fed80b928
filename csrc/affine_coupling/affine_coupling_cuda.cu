#include "affine_coupling/affine_coupling.h"
#include "affine_coupling/formula.h"
#include "common/rows.cuh"
#include "common/vectors.cuh"

namespace fastinn {
namespace {

// `n` columns at a time.
template <Direction direction, bool clamped, int n, typename T>
__global__ void transform(Coupling<T> op) {
  const int64_t row = row_of_warp();
  if (row >= op.n_samples) return;
  T log_det = 0;
  for (int64_t column = n * threadIdx.x; column < op.n_features; column += n * kWarp) {
    const auto input = load<n>(address<n>(op.input, row, column));
    const auto shift = load<n>(address<n>(op.shift, row, column));
    const auto log_scale = load<n>(address<n>(op.log_scale, row, column));
    Vector<T, n> output;
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const Scale<T> scale = scale_of<clamped>(log_scale.values[i], op.clamp);
      output.values[i] =
          transformed<direction>(input.values[i], shift.values[i], scale.exp + op.eps);
      log_det += scale.log;
    }
    store(op.output + row * op.n_features + column, output);
  }
  log_det = sum_over_warp(log_det);
  if (threadIdx.x == 0) op.log_det[row] = direction == Direction::forward ? log_det : -log_det;
}

template <Direction direction, bool clamped, int n, typename T>
__global__ void differentiate(CouplingGradient<T> op) {
  const int64_t row = row_of_warp();
  if (row >= op.n_samples) return;
  const T grad_log_det = *address<1>(op.grad_log_det, row, 0);
  for (int64_t column = n * threadIdx.x; column < op.n_features; column += n * kWarp) {
    const auto log_scale = load<n>(address<n>(op.log_scale, row, column));
    const auto grad_output = load<n>(address<n>(op.grad_output, row, column));
    const auto x = load<n>(address<n>(op.x, row, column));
    Vector<T, n> grad_input, grad_log_scale, grad_shift;
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const Scale<T> scale = scale_of<clamped>(log_scale.values[i], op.clamp);
      const T grad = gradient_of_input<direction>(grad_output.values[i], scale.exp + op.eps);
      const T through = direction == Direction::forward ? grad_output.values[i] : grad;
      grad_input.values[i] = grad;
      grad_log_scale.values[i] = gradient_of_log_scale<direction>(
          through, grad_log_det, x.values[i], scale.exp, scale.slope);
      grad_shift.values[i] = -grad;
    }
    const int64_t offset = row * op.n_features + column;
    store(op.grad_input + offset, grad_input);
    store(op.grad_log_scale + offset, grad_log_scale);
    if constexpr (direction == Direction::inverse) store(op.grad_shift + offset, grad_shift);
  }
}

template <int n, typename T>
bool in_vectors(const Coupling<T>& op) {
  return fits<n>(op.input) && fits<n>(op.shift) && fits<n>(op.log_scale) &&
         fits<n>(op.output, op.n_features);
}

template <int n, typename T>
bool in_vectors(const CouplingGradient<T>& op) {
  return fits<n>(op.grad_output) && fits<n>(op.x) && fits<n>(op.log_scale) &&
         fits<n>(op.grad_input, op.n_features) && fits<n>(op.grad_log_scale, op.n_features) &&
         fits<n>(op.grad_shift, op.n_features);
}

template <Direction direction, int n, typename T>
int launch(const Coupling<T>& op, void* stream) {
  return launch_rows(
      op.clamp > 0 ? transform<direction, true, n, T> : transform<direction, false, n, T>, op,
      op.n_samples, stream);
}

template <Direction direction, int n, typename T>
int launch(const CouplingGradient<T>& op, void* stream) {
  return launch_rows(
      op.clamp > 0 ? differentiate<direction, true, n, T> : differentiate<direction, false, n, T>,
      op, op.n_samples, stream);
}

template <Direction direction, typename T, template <typename> typename Op>
int launch_widest(const Op<T>& op, void* stream) {
  constexpr int kWidest = kVectorBytes / sizeof(T);
  return in_vectors<kWidest>(op) ? launch<direction, kWidest>(op, stream)
                                 : launch<direction, 1>(op, stream);
}

}  // namespace

template <Direction direction, typename T>
int affine_coupling_cuda(const Coupling<T>& op, void* stream) {
  return launch_widest<direction>(op, stream);
}

template <Direction direction, typename T>
int affine_coupling_backward_cuda(const CouplingGradient<T>& op, void* stream) {
  return launch_widest<direction>(op, stream);
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
