#include "affine_coupling/affine_coupling.h"
#include "affine_coupling/tiles.h"

namespace fastinn {
namespace {

template <Direction direction, bool clamped, typename T>
void forward_rows(const Coupling<T>& op) {
#pragma omp parallel for schedule(static) if (op.n_samples * op.n_features > kSerial)
  for (int64_t row = 0; row < op.n_samples; ++row) {
    T input[kTile], shift[kTile], log_scale[kTile];
    T log_det = 0;
    for (int64_t column = 0; column < op.n_features; column += kTile) {
      const int64_t n = tile_width(op.n_features - column);
      log_det += transform<direction, clamped>(
          gather(op.input, row, column, n, input), gather(op.shift, row, column, n, shift),
          gather(op.log_scale, row, column, n, log_scale), n, op.clamp, op.eps,
          op.output + row * op.n_features + column);
    }
    op.log_det[row] = log_det;
  }
}

template <Direction direction, bool clamped, typename T>
void backward_rows(const CouplingGradient<T>& op) {
#pragma omp parallel for schedule(static) if (op.n_samples * op.n_features > kSerial)
  for (int64_t row = 0; row < op.n_samples; ++row) {
    T grad_output[kTile], x[kTile], log_scale[kTile];
    const T grad_log_det = op.grad_log_det.data[row * op.grad_log_det.row_stride];
    for (int64_t column = 0; column < op.n_features; column += kTile) {
      const int64_t n = tile_width(op.n_features - column);
      const int64_t offset = row * op.n_features + column;
      differentiate<direction, clamped>(
          gather(op.grad_output, row, column, n, grad_output), grad_log_det,
          gather(op.x, row, column, n, x), gather(op.log_scale, row, column, n, log_scale), n,
          op.clamp, op.eps, op.grad_input + offset, op.grad_log_scale + offset,
          direction == Direction::inverse ? op.grad_shift + offset : nullptr);
    }
  }
}

}  // namespace

template <Isa isa, Direction direction, typename T>
void affine_coupling_cpu(const Coupling<T>& op) {
  op.clamp > 0 ? forward_rows<direction, true>(op) : forward_rows<direction, false>(op);
}

template <Isa isa, Direction direction, typename T>
void affine_coupling_backward_cpu(const CouplingGradient<T>& op) {
  op.clamp > 0 ? backward_rows<direction, true>(op) : backward_rows<direction, false>(op);
}

#define INSTANTIATE(direction, T)                                                        \
  template void affine_coupling_cpu<Isa::FASTINN_ISA, direction, T>(const Coupling<T>&); \
  template void affine_coupling_backward_cpu<Isa::FASTINN_ISA, direction, T>(            \
      const CouplingGradient<T>&);
INSTANTIATE(Direction::forward, float)
INSTANTIATE(Direction::inverse, float)
INSTANTIATE(Direction::forward, double)
INSTANTIATE(Direction::inverse, double)
#undef INSTANTIATE

}  // namespace fastinn
