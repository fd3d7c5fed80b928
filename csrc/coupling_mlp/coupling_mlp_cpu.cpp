#include "coupling_mlp/coupling_rows.h"
#include "coupling_mlp/formula.h"

namespace fastinn {
namespace {

template <Activation activation, bool keeps_pre, typename P, typename S, typename T>
void activate(P* __restrict post, const T* __restrict bias, int64_t n, S* __restrict pre) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T sum = widen(post[i]) + bias[i];
    if constexpr (keeps_pre) narrow(sum, pre[i]);
    narrow(activated<activation>(sum).value, post[i]);
  }
}

template <Activation activation, bool keeps_pre, typename P, typename S>
void hidden_rows(const Hidden<P, S>& op) {
#pragma omp parallel for schedule(static) if (op.n_samples * op.n_features > kSerial)
  for (int64_t row = 0; row < op.n_samples; ++row) {
    const int64_t first = row * op.n_features;
    activate<activation, keeps_pre>(op.post + first, op.bias, op.n_features,
                                    keeps_pre ? op.pre + first : nullptr);
  }
}

template <Activation activation, typename P, typename S>
void differentiate_hidden(const S* __restrict pre, int64_t n, P* __restrict grad,
                          P* __restrict post) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const auto hidden = activated<activation>(widen(pre[i]));
    narrow(widen(grad[i]) * hidden.slope, grad[i]);
    narrow(hidden.value, post[i]);
  }
}

template <Direction direction, bool clamped, typename P>
void couple_rows(const MlpCoupling<P>& op) {
#pragma omp parallel for schedule(static) if (op.n_samples * op.n_moved > kSerial)
  for (int64_t row = 0; row < op.n_samples; ++row) {
    couple_row<direction, clamped>(op, row);
    copy_row(op.kept, row, op.n_kept, op.kept_output);
  }
}

template <Direction direction, bool clamped, typename P>
void differentiate_rows(const MlpCouplingGradient<P>& op) {
#pragma omp parallel for schedule(static) if (op.n_samples * op.n_moved > kSerial)
  for (int64_t row = 0; row < op.n_samples; ++row) differentiate_row<direction, clamped>(op, row);
}

}  // namespace

template <Isa isa, Activation activation, typename P, typename S>
void hidden_cpu(const Hidden<P, S>& op) {
  op.pre ? hidden_rows<activation, true>(op) : hidden_rows<activation, false>(op);
}

template <Isa isa, Activation activation, typename P, typename S>
void hidden_backward_cpu(const HiddenGradient<P, S>& op) {
#pragma omp parallel for schedule(static) if (op.n_elements > kSerial)
  for (int64_t first = 0; first < op.n_elements; first += kTile)
    differentiate_hidden<activation>(op.pre + first, tile_width(op.n_elements - first),
                                     op.grad + first, op.post + first);
}

template <Isa isa, Direction direction, typename P>
void mlp_coupling_cpu(const MlpCoupling<P>& op) {
  op.clamp > 0 ? couple_rows<direction, true>(op) : couple_rows<direction, false>(op);
}

template <Isa isa, Direction direction, typename P>
void mlp_coupling_backward_cpu(const MlpCouplingGradient<P>& op) {
  op.clamp > 0 ? differentiate_rows<direction, true>(op) : differentiate_rows<direction, false>(op);
}

#define INSTANTIATE_ACTIVATION(activation, P, S)                                     \
  template void hidden_cpu<Isa::FASTINN_ISA, activation, P, S>(const Hidden<P, S>&); \
  template void hidden_backward_cpu<Isa::FASTINN_ISA, activation, P, S>(             \
      const HiddenGradient<P, S>&);
#define INSTANTIATE_HIDDEN(P, S)                 \
  INSTANTIATE_ACTIVATION(Activation::relu, P, S) \
  INSTANTIATE_ACTIVATION(Activation::selu, P, S) \
  INSTANTIATE_ACTIVATION(Activation::gelu, P, S) \
  INSTANTIATE_ACTIVATION(Activation::silu, P, S)
INSTANTIATE_HIDDEN(float, float)
INSTANTIATE_HIDDEN(float, BFloat16)
INSTANTIATE_HIDDEN(BFloat16, BFloat16)
INSTANTIATE_HIDDEN(double, double)
#undef INSTANTIATE_HIDDEN
#undef INSTANTIATE_ACTIVATION

#define INSTANTIATE(direction, P)                                                        \
  template void mlp_coupling_cpu<Isa::FASTINN_ISA, direction, P>(const MlpCoupling<P>&); \
  template void mlp_coupling_backward_cpu<Isa::FASTINN_ISA, direction, P>(               \
      const MlpCouplingGradient<P>&);
INSTANTIATE(Direction::forward, float)
INSTANTIATE(Direction::inverse, float)
INSTANTIATE(Direction::forward, BFloat16)
INSTANTIATE(Direction::inverse, BFloat16)
INSTANTIATE(Direction::forward, double)
INSTANTIATE(Direction::inverse, double)
#undef INSTANTIATE

}  // namespace fastinn
