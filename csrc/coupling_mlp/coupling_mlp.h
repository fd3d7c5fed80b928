// What a coupling layer does between its matrix products: bias and activation, the affine coupling
// of what the last product asks for, and the gradients of both, each in one pass over a block of
// rows. Operands of products have type P; everything else has the type of arithmetic on it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "affine_coupling/affine_coupling.h"
#include "common/isa.h"
#include "common/matrix.h"

namespace fastinn {

enum class Activation { relu, selu, gelu, silu };

// 16-bit operands are added and multiplied in float32.
template <typename P>
using Arithmetic = std::conditional_t<std::is_same_v<P, double>, double, float>;

// post = activation(post + bias), in place: it arrives as the product. What goes into the
// activation is kept in type S.
template <typename P, typename S>
struct Hidden {
  int64_t n_samples;
  int64_t n_features;
  P* post;                    // contiguous, as is `pre`
  const Arithmetic<P>* bias;  // one value a feature
  S* pre;                     // not kept where null
};

// grad = grad * activation'(pre), in place, and post = activation(pre) again.
template <typename P, typename S>
struct HiddenGradient {
  int64_t n_elements;
  const S* pre;
  P* grad;
  P* post;
};

// The last product holds the shift in its first n_moved columns, the log-scale in the others.
template <typename P>
struct LastProduct {
  const P* data;  // contiguous, n_samples x (2 n_moved)
  const Arithmetic<P>* bias;
};

// The moved features go through the affine coupling and the kept ones are copied.
template <typename P>
struct MlpCoupling {
  using T = Arithmetic<P>;
  int64_t n_samples;
  int64_t n_kept;
  int64_t n_moved;
  LastProduct<P> product;
  Matrix<const T> kept;
  Matrix<const T> moved;
  T clamp;  // 0: unbounded
  T eps;
  Matrix<T> kept_output;
  Matrix<T> moved_output;
  T* log_det;    // one value a row
  T* log_scale;  // before clamping, contiguous; not kept where null
};

template <typename P>
struct MlpCouplingGradient {
  using T = Arithmetic<P>;
  int64_t n_samples;
  int64_t n_moved;
  Matrix<const T> grad_output;   // of the moved features, as all matrices here
  Matrix<const T> grad_log_det;  // one column
  // Stored: x and its log-scale. Recomputed (`log_scale` is null): the coupling's output and the
  // last product, from which its input is recovered and written.
  Matrix<const T> known;
  const T* log_scale;
  LastProduct<P> product;
  T clamp;
  T eps;
  Matrix<T> input;
  Matrix<T> grad_input;
  P* grad_product;  // laid out like the product
};

template <Isa isa, Activation activation, typename P, typename S>
void hidden_cpu(const Hidden<P, S>& op);

template <Isa isa, Activation activation, typename P, typename S>
void hidden_backward_cpu(const HiddenGradient<P, S>& op);

template <Isa isa, Direction direction, typename P>
void mlp_coupling_cpu(const MlpCoupling<P>& op);

template <Isa isa, Direction direction, typename P>
void mlp_coupling_backward_cpu(const MlpCouplingGradient<P>& op);

// Launch on the current device; they return a cudaError_t.
template <Activation activation, typename P, typename S>
int hidden_cuda(const Hidden<P, S>& op, void* stream);

template <Activation activation, typename P, typename S>
int hidden_backward_cuda(const HiddenGradient<P, S>& op, void* stream);

template <Direction direction, typename P>
int mlp_coupling_cuda(const MlpCoupling<P>& op, void* stream);

template <Direction direction, typename P>
int mlp_coupling_backward_cuda(const MlpCouplingGradient<P>& op, void* stream);

}  // namespace fastinn
