#include "affine_coupling/tiles.h"
#include "common/large_outputs.h"

namespace fastinn {
namespace {

// A tile of a contiguous output: computed in its place, or beside it and then streamed there.
template <typename T>
class OutputTile {
 public:
  T* place(T* output, bool streams) { return streams ? buffer_ : output; }
  void finish(int64_t n, T* output, bool streams) const {
    if (streams) stream(buffer_, n, output);
  }

 private:
  T buffer_[kTile];
};

// Says whether outputs of this shape are streamed, having prepared the memory of all of them.
template <typename Op, typename... T>
bool prepare(const Op& op, T*... outputs) {
  const int64_t bytes = op.n_samples * op.n_features * static_cast<int64_t>(sizeof(op.eps));
  (expect_large_output(outputs, bytes), ...);
  return is_large(bytes);
}

// Calls `compute(row)` for every row, on all threads; what it streamed can then be read.
template <typename Op, typename Compute>
void for_each_row(const Op& op, Compute&& compute) {
#pragma omp parallel if (op.n_samples * op.n_features > kSerial)
  {
#pragma omp for schedule(static) nowait
    for (int64_t row = 0; row < op.n_samples; ++row) compute(row);
    stream_fence();
  }
}

template <Direction direction, bool clamped, typename T>
void forward_row(const Coupling<T>& op, int64_t row, bool streams) {
  T input[kTile], shift[kTile], log_scale[kTile];
  OutputTile<T> tile;
  T log_det = 0;
  for (int64_t column = 0; column < op.n_features; column += kTile) {
    const int64_t n = tile_width(op.n_features - column);
    T* output = op.output + row * op.n_features + column;
    log_det += transform<direction, clamped>(gather(op.input, row, column, n, input),
                                             gather(op.shift, row, column, n, shift),
                                             gather(op.log_scale, row, column, n, log_scale), n,
                                             op.clamp, op.eps, tile.place(output, streams));
    tile.finish(n, output, streams);
  }
  op.log_det[row] = log_det;
}

template <Direction direction, bool clamped, typename T>
void backward_row(const CouplingGradient<T>& op, int64_t row, bool streams) {
  constexpr bool writes_shift = direction == Direction::inverse;
  T grad_output[kTile], x[kTile], log_scale[kTile];
  OutputTile<T> input_tile, log_scale_tile, shift_tile;
  const T grad_log_det = op.grad_log_det.data[row * op.grad_log_det.row_stride];
  for (int64_t column = 0; column < op.n_features; column += kTile) {
    const int64_t n = tile_width(op.n_features - column);
    const int64_t offset = row * op.n_features + column;
    T* grad_input = op.grad_input + offset;
    T* grad_log_scale = op.grad_log_scale + offset;
    T* grad_shift = writes_shift ? op.grad_shift + offset : nullptr;
    differentiate<direction, clamped>(
        gather(op.grad_output, row, column, n, grad_output), grad_log_det,
        gather(op.x, row, column, n, x), gather(op.log_scale, row, column, n, log_scale), n,
        op.clamp, op.eps, input_tile.place(grad_input, streams),
        log_scale_tile.place(grad_log_scale, streams), shift_tile.place(grad_shift, streams));
    input_tile.finish(n, grad_input, streams);
    log_scale_tile.finish(n, grad_log_scale, streams);
    if constexpr (writes_shift) shift_tile.finish(n, grad_shift, streams);
  }
}

}  // namespace

template <Isa isa, Direction direction, typename T>
void affine_coupling_cpu(const Coupling<T>& op) {
  const bool streams = prepare(op, op.output);
  for_each_row(op, [&](int64_t row) {
    op.clamp > 0 ? forward_row<direction, true>(op, row, streams)
                 : forward_row<direction, false>(op, row, streams);
  });
}

template <Isa isa, Direction direction, typename T>
void affine_coupling_backward_cpu(const CouplingGradient<T>& op) {
  const bool streams = direction == Direction::forward
                           ? prepare(op, op.grad_input, op.grad_log_scale)
                           : prepare(op, op.grad_input, op.grad_log_scale, op.grad_shift);
  for_each_row(op, [&](int64_t row) {
    op.clamp > 0 ? backward_row<direction, true>(op, row, streams)
                 : backward_row<direction, false>(op, row, streams);
  });
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
