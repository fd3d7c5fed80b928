// Elementwise affine coupling, y = x (exp(l) + eps) + shift with l = clamp tanh(log_scale / clamp),
// its inverse, and the gradients of both, each in one pass over the data.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/matrix.h"

namespace fastinn {

enum class Direction { forward, inverse };

// Forward, `input` is x and `output` is y; inverse, the other way round.
template <typename T>
struct Coupling {
  int64_t n_samples;
  int64_t n_features;
  Matrix<const T> input;
  Matrix<const T> shift;
  Matrix<const T> log_scale;
  T clamp;  // 0: unbounded
  T eps;
  T* output;   // contiguous, as is everything that is written
  T* log_det;  // one value a row
};

// Both directions differentiate from x, the side that has no scale in it.
template <typename T>
struct CouplingGradient {
  int64_t n_samples;
  int64_t n_features;
  Matrix<const T> grad_output;
  Matrix<const T> grad_log_det;  // one column
  Matrix<const T> x;
  Matrix<const T> log_scale;
  T clamp;
  T eps;
  T* grad_input;
  T* grad_log_scale;
  T* grad_shift;  // inverse only: forward it is grad_output itself
};

template <Isa isa, Direction direction, typename T>
void affine_coupling_cpu(const Coupling<T>& op);

template <Isa isa, Direction direction, typename T>
void affine_coupling_backward_cpu(const CouplingGradient<T>& op);

// Launch on the current device; they return a cudaError_t.
template <Direction direction, typename T>
int affine_coupling_cuda(const Coupling<T>& op, void* stream);

template <Direction direction, typename T>
int affine_coupling_backward_cuda(const CouplingGradient<T>& op, void* stream);

}  // namespace fastinn
