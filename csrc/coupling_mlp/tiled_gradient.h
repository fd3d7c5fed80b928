// The gradients of a whole coupling layer with bfloat16 operands, from what its forward pass kept.
#pragma once

#include <cstdint>
#include <vector>

#include "coupling_mlp/coupling_mlp.h"

namespace fastinn {

struct BFloat16;

// One linear layer of all sub-networks, one after the other in memory, all contiguous.
struct LinearGradient {
  const float* weight;  // (n_networks, n_out, n_in)
  int64_t n_in;
  int64_t n_out;
  const BFloat16* pre;  // into the activation, (n_samples, n_networks, n_out); null after the last
  float* grad_weight;
  float* grad_bias;
};

struct TiledGradient {
  Activation activation;
  int64_t n_networks;
  std::vector<LinearGradient> layers;
  int64_t n_kept;
  Matrix<const float> kept;
  Matrix<const float> grad_kept_output;
  Matrix<float> grad_kept;
  MlpCouplingGradient<float> coupling;  // of a known log-scale; its product's gradient stays here
};

// For CPUs that multiply bfloat16 pairs, Isa::avx512_bf16 and better. Sums over rows do not depend
// on the number of threads.
template <Isa isa, Direction direction>
void tiled_gradient_cpu(const TiledGradient& op);

}  // namespace fastinn
