// A whole coupling layer in one kernel: sub-network, coupling and log-determinant, on sm_90a.
#pragma once

#include <cstdint>

#include "affine_coupling/affine_coupling.h"
#include "common/matrix.h"
#include "coupling_mlp/coupling_mlp.h"
#include "coupling_mlp/fused_plan.h"

namespace fastinn {
namespace fused {

// Which features of a row: first, first + step, ...
struct Half {
  int first;
  int step;
  int n;
};

// Forward, `input` is x and `output` is y; inverse, the other way round. Both are contiguous.
struct FusedCoupling {
  Plan plan;
  int64_t n_samples;
  int64_t n_features;
  int64_t n_tiles;
  Half kept;
  Half moved;
  const float* input;
  float* output;
  float* log_det;
  const char* packed_weights;
  const float* packed_biases;
  Activation activation;
  float clamp;  // 0: unbounded
  float two_log2e_over_clamp;
  float eps;
  bool pairs;     // features can be read two at a time
  bool prefetch;  // the input is aligned to 16 bytes
};

struct Linear {
  Matrix<const float> weight;
  const float* bias;
  int n_outputs;
  int n_inputs;
};

struct Network {
  Linear layers[kMaxHidden + 1];
};

inline bool in_pairs(const Half& half) {
  return half.step == 1 && half.first % 2 == 0 && half.n % 2 == 0;
}

inline bool aligned(const void* pointer, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// Completes an op whose plan, sizes, halves, tensors, activation, clamp and eps are set.
inline FusedCoupling prepared(FusedCoupling op, const char* packed) {
  op.n_tiles = (op.n_samples + kTileRows - 1) / kTileRows;
  op.packed_weights = packed;
  op.packed_biases = reinterpret_cast<const float*>(packed + packed_bias_offset(op.plan));
  op.two_log2e_over_clamp = op.clamp > 0 ? 2.8853900817779268f / op.clamp : 0;
  op.pairs = op.n_features % 2 == 0 && in_pairs(op.kept) && in_pairs(op.moved) &&
             aligned(op.input, 8) && aligned(op.output, 8);
  op.prefetch = aligned(op.input, 16);
  return op;
}

// Launch on the current device; they return a cudaError_t. Packing fills packed_bytes(plan).
int pack(const Plan& plan, const Network& network, char* packed, void* stream);
int run(Direction direction, const FusedCoupling& op, void* stream);

}  // namespace fused
}  // namespace fastinn
