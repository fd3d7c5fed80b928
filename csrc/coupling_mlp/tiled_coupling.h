// A whole coupling layer with bfloat16 operands, in one pass over the rows: a block of them goes
// through all products while its activations stay in the second-level cache.
#pragma once

#include <cstdint>
#include <vector>

#include "coupling_mlp/coupling_mlp.h"

namespace fastinn {

struct BFloat16;

// One linear layer of all sub-networks, one after the other in memory, all contiguous.
struct LinearLayer {
  const float* weight;  // (n_networks, n_out, n_in)
  const float* bias;    // (n_networks, n_out)
  int64_t n_in;
  int64_t n_out;
  BFloat16* pre;  // what goes into the activation, (n_samples, n_networks, n_out), unless null
};

struct TiledCoupling {
  Activation activation;
  int64_t n_networks;
  std::vector<LinearLayer> layers;
  MlpCoupling<float> coupling;  // its product is computed here
};

// For CPUs that multiply bfloat16 pairs, Isa::avx512_bf16 and better.
template <Isa isa, Direction direction>
void tiled_coupling_cpu(const TiledCoupling& op);

}  // namespace fastinn
