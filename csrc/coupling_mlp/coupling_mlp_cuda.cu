#include "affine_coupling/formula.h"
#include "common/rows.cuh"
#include "common/vectors.cuh"
#include "coupling_mlp/coupling_mlp.h"
#include "coupling_mlp/formula.h"

namespace fastinn {
namespace {

// --- Hidden layers. `n` columns at a time, here and below.

template <Activation activation, int n, typename P, typename S>
__global__ void hidden(Hidden<P, S> op) {
  using T = Arithmetic<P>;
  const int64_t row = row_of_warp();
  if (row >= op.n_samples) return;
  for (int64_t column = n * threadIdx.x; column < op.n_features; column += n * kWarp) {
    const int64_t offset = row * op.n_features + column;
    auto post = load<n>(op.post + offset);
    const auto bias = load<n>(op.bias + column);
    Vector<S, n> pre;
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const T sum = widen(post.values[i]) + bias.values[i];
      narrow(sum, pre.values[i]);
      narrow(activated<activation>(sum).value, post.values[i]);
    }
    store(op.post + offset, post);
    if (op.pre != nullptr) store(op.pre + offset, pre);
  }
}

constexpr int kThreads = 256;

template <Activation activation, int n, typename P, typename S>
__global__ void differentiate_hidden(HiddenGradient<P, S> op) {
  const int64_t first = n * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (first >= op.n_elements) return;
  const auto pre = load<n>(op.pre + first);
  auto grad = load<n>(op.grad + first);
  Vector<P, n> post;
#pragma unroll
  for (int i = 0; i < n; ++i) {
    const auto result = activated<activation>(widen(pre.values[i]));
    narrow(widen(grad.values[i]) * result.slope, grad.values[i]);
    narrow(result.value, post.values[i]);
  }
  store(op.grad + first, grad);
  store(op.post + first, post);
}

template <Activation activation, int n, typename P, typename S>
int launch(const HiddenGradient<P, S>& op, void* stream) {
  if (op.n_elements == 0) return cudaSuccess;
  const int64_t elements = int64_t{n} * kThreads;
  const auto blocks = static_cast<unsigned>((op.n_elements + elements - 1) / elements);
  differentiate_hidden<activation, n>
      <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(op);
  return cudaGetLastError();
}

// --- The coupling. What the last product and its biases ask for, `n` columns of a row.

template <int n, typename P>
__device__ Vector<Arithmetic<P>, n> asked(const LastProduct<P>& product, int64_t n_moved,
                                          int64_t row, int64_t column) {
  const auto sums = load<n>(product.data + row * 2 * n_moved + column);
  const auto bias = load<n>(product.bias + column);
  Vector<Arithmetic<P>, n> result;
#pragma unroll
  for (int i = 0; i < n; ++i) result.values[i] = widen(sums.values[i]) + bias.values[i];
  return result;
}

template <Direction direction, bool clamped, int n, typename P>
__global__ void couple(MlpCoupling<P> op) {
  using T = Arithmetic<P>;
  const int64_t row = row_of_warp();
  if (row >= op.n_samples) return;
  T log_det = 0;
  for (int64_t column = n * threadIdx.x; column < op.n_moved; column += n * kWarp) {
    const auto shift = asked<n>(op.product, op.n_moved, row, column);
    const auto log_scale = asked<n>(op.product, op.n_moved, row, op.n_moved + column);
    auto moved = load<n>(address<n>(op.moved, row, column));
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const Scale<T> scale = scale_of<clamped>(log_scale.values[i], op.clamp);
      moved.values[i] =
          transformed<direction>(moved.values[i], shift.values[i], scale.exp + op.eps);
      log_det += scale.log;
    }
    store(address<n>(op.moved_output, row, column), moved);
    if (op.log_scale != nullptr) store(op.log_scale + row * op.n_moved + column, log_scale);
  }
  for (int64_t column = n * threadIdx.x; column < op.n_kept; column += n * kWarp)
    store(address<n>(op.kept_output, row, column), load<n>(address<n>(op.kept, row, column)));
  log_det = sum_over_warp(log_det);
  if (threadIdx.x == 0) op.log_det[row] = direction == Direction::forward ? log_det : -log_det;
}

template <Direction direction, bool clamped, int n, typename P>
__global__ void differentiate(MlpCouplingGradient<P> op) {
  using T = Arithmetic<P>;
  constexpr Direction kBack =
      direction == Direction::forward ? Direction::inverse : Direction::forward;
  const int64_t row = row_of_warp();
  if (row >= op.n_samples) return;
  const bool stored = op.log_scale != nullptr;
  const T grad_log_det = *address<1>(op.grad_log_det, row, 0);
  for (int64_t column = n * threadIdx.x; column < op.n_moved; column += n * kWarp) {
    const auto grad_output = load<n>(address<n>(op.grad_output, row, column));
    const auto known = load<n>(address<n>(op.known, row, column));
    Vector<T, n> log_scale, shift{}, input, grad_input;
    Vector<P, n> grad_shift, grad_log_scale;
    if (stored) {
      log_scale = load<n>(op.log_scale + row * op.n_moved + column);
    } else {
      shift = asked<n>(op.product, op.n_moved, row, column);
      log_scale = asked<n>(op.product, op.n_moved, row, op.n_moved + column);
    }
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const Scale<T> scale = scale_of<clamped>(log_scale.values[i], op.clamp);
      const T gain = scale.exp + op.eps;
      input.values[i] = transformed<kBack>(known.values[i], shift.values[i], gain);
      // The side without a scale: forward the input, inverse the output.
      const T x = direction == Direction::forward && !stored ? input.values[i] : known.values[i];
      const T grad = gradient_of_input<direction>(grad_output.values[i], gain);
      const T through = direction == Direction::forward ? grad_output.values[i] : grad;
      grad_input.values[i] = grad;
      narrow(direction == Direction::forward ? through : -grad, grad_shift.values[i]);
      narrow(gradient_of_log_scale<direction>(through, grad_log_det, x, scale.exp, scale.slope),
             grad_log_scale.values[i]);
    }
    store(address<n>(op.grad_input, row, column), grad_input);
    P* grad_product = op.grad_product + row * 2 * op.n_moved + column;
    store(grad_product, grad_shift);
    store(grad_product + op.n_moved, grad_log_scale);
    if (!stored) store(address<n>(op.input, row, column), input);
  }
}

template <int n, typename P>
bool fits(const LastProduct<P>& product, int64_t n_moved) {
  return fits<n>(product.data, n_moved) && fits<n>(product.bias, n_moved);
}

template <int n, typename P>
bool in_vectors(const MlpCoupling<P>& op) {
  return op.n_kept % n == 0 && fits<n>(op.product, op.n_moved) && fits<n>(op.kept) &&
         fits<n>(op.moved) && fits<n>(op.kept_output) && fits<n>(op.moved_output) &&
         fits<n>(op.log_scale, op.n_moved);
}

template <int n, typename P>
bool in_vectors(const MlpCouplingGradient<P>& op) {
  return fits<n>(op.grad_output) && fits<n>(op.known) && fits<n>(op.log_scale, op.n_moved) &&
         fits<n>(op.product, op.n_moved) && fits<n>(op.input) && fits<n>(op.grad_input) &&
         fits<n>(op.grad_product, op.n_moved);
}

template <Direction direction, int n, typename P>
int launch(const MlpCoupling<P>& op, void* stream) {
  return launch_rows(op.clamp > 0 ? couple<direction, true, n, P> : couple<direction, false, n, P>,
                     op, op.n_samples, stream);
}

template <Direction direction, int n, typename P>
int launch(const MlpCouplingGradient<P>& op, void* stream) {
  return launch_rows(
      op.clamp > 0 ? differentiate<direction, true, n, P> : differentiate<direction, false, n, P>,
      op, op.n_samples, stream);
}

template <Direction direction, typename P, template <typename> typename Op>
int launch_widest(const Op<P>& op, void* stream) {
  constexpr int kWidest = kVectorBytes / sizeof(Arithmetic<P>);
  return in_vectors<kWidest>(op) ? launch<direction, kWidest>(op, stream)
                                 : launch<direction, 1>(op, stream);
}

}  // namespace

template <Activation activation, typename P, typename S>
int hidden_cuda(const Hidden<P, S>& op, void* stream) {
  constexpr int kWidest = kVectorBytes / sizeof(P);
  const bool vectors = fits<kWidest>(op.post, op.n_features) &&
                       fits<kWidest>(op.bias, op.n_features) &&
                       fits<kWidest>(op.pre, op.n_features);
  return launch_rows(vectors ? hidden<activation, kWidest, P, S> : hidden<activation, 1, P, S>, op,
                     op.n_samples, stream);
}

template <Activation activation, typename P, typename S>
int hidden_backward_cuda(const HiddenGradient<P, S>& op, void* stream) {
  constexpr int kWidest = kVectorBytes / sizeof(P);
  const bool vectors = fits<kWidest>(op.pre, op.n_elements) &&
                       fits<kWidest>(op.grad, op.n_elements) &&
                       fits<kWidest>(op.post, op.n_elements);
  return vectors ? launch<activation, kWidest>(op, stream) : launch<activation, 1>(op, stream);
}

template <Direction direction, typename P>
int mlp_coupling_cuda(const MlpCoupling<P>& op, void* stream) {
  return launch_widest<direction>(op, stream);
}

template <Direction direction, typename P>
int mlp_coupling_backward_cuda(const MlpCouplingGradient<P>& op, void* stream) {
  return launch_widest<direction>(op, stream);
}

#define INSTANTIATE_ACTIVATION(activation, P, S)                          \
  template int hidden_cuda<activation, P, S>(const Hidden<P, S>&, void*); \
  template int hidden_backward_cuda<activation, P, S>(const HiddenGradient<P, S>&, void*);
#define INSTANTIATE_HIDDEN(P, S)                 \
  INSTANTIATE_ACTIVATION(Activation::relu, P, S) \
  INSTANTIATE_ACTIVATION(Activation::selu, P, S) \
  INSTANTIATE_ACTIVATION(Activation::gelu, P, S) \
  INSTANTIATE_ACTIVATION(Activation::silu, P, S)
INSTANTIATE_HIDDEN(float, float)
INSTANTIATE_HIDDEN(float, __nv_bfloat16)
INSTANTIATE_HIDDEN(__half, __half)
INSTANTIATE_HIDDEN(__half, __nv_bfloat16)
INSTANTIATE_HIDDEN(__nv_bfloat16, __nv_bfloat16)
#undef INSTANTIATE_HIDDEN
#undef INSTANTIATE_ACTIVATION

#define INSTANTIATE(direction, P)                                             \
  template int mlp_coupling_cuda<direction, P>(const MlpCoupling<P>&, void*); \
  template int mlp_coupling_backward_cuda<direction, P>(const MlpCouplingGradient<P>&, void*);
INSTANTIATE(Direction::forward, float)
INSTANTIATE(Direction::inverse, float)
INSTANTIATE(Direction::forward, __half)
INSTANTIATE(Direction::inverse, __half)
INSTANTIATE(Direction::forward, __nv_bfloat16)
INSTANTIATE(Direction::inverse, __nv_bfloat16)
#undef INSTANTIATE

}  // namespace fastinn
