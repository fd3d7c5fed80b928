// The fused coupling layer for sm_90a: rows are read once and written once, and no activation
// leaves the chip. A persistent block of three warpgroups computes tiles of 128 rows: one thread
// streams weights from the L2 cache, two warpgroups of 64 rows each multiply, in float16 with
// float32 sums.
//
// What keeps it free of races and deadlocks:
// 1. The weights of a tile are the same stages in the same order for everybody. Producer and
//    consumers count through them with a Ring each, over all tiles, and never skip one: also a tile
//    with a single row, or a warpgroup without any, goes through all stages.
// 2. full[s] completes when the copy into stage s has landed (one arrival and its bytes). Consumers
//    wait for the phase they are in, so it cannot be overtaken by two phases.
// 3. empty[s] completes when each consumer warp (8) has arrived, which it does after the products
//    that read stage s are over. The producer waits for the phase before its own; on the first
//    round that is the phase before the first, which counts as over.
// 4. A stage is released one stage late, so at most two stages are held: 3 in the ring suffice.
// 5. A warpgroup reads and writes only its own 64 rows of the slabs. Before writing them, all its
//    warps have waited for their products (barrier); after, each writing thread makes its writes
//    visible to the matrix units (fence), then all warps meet again (barrier).
// 6. Every copy is waited for by consumers, so none is in flight when the block ends.
#pragma once

#include "affine_coupling/affine_coupling.h"
#include "common/sm90.cuh"
#include "coupling_mlp/fused_coupling.h"

namespace fastinn {
namespace fused {
namespace {

using namespace sm90;

constexpr int kConsumerThreads = kConsumers * kWarpgroup;
constexpr int kThreads = kConsumerThreads + kWarpgroup;
constexpr int kConsumerWarps = kConsumerThreads / kWarp;
constexpr int kWarpRows = kConsumerRows * kWarp / kWarpgroup;
// 168 a thread at launch; what the producer gives back, consumers take: 2 * 240 + 24 <= 3 * 168.
constexpr int kProducerRegisters = 24;
constexpr int kConsumerRegisters = 240;
constexpr int64_t kPrefetchBytes = 1 << 14;
constexpr float kLog2E = 1.4426950408889634f;

// --- Shared memory of a block.

struct Shared {
  uint32_t stages;
  uint32_t slabs;
  uint32_t barriers;  // full[0], empty[0], full[1], ...

  __device__ uint32_t full(int stage) const { return barriers + 16 * stage; }
  __device__ uint32_t empty(int stage) const { return barriers + 16 * stage + 8; }
};

__device__ Shared shared_of(const Plan& plan, const void* memory) {
  // Swizzling is by address, so stages and slabs start at multiples of 1024 bytes.
  const uint32_t start = (shared_address(memory) + kAlignment - 1) / kAlignment * kAlignment;
  return {start, start + slabs_offset(plan), start + barriers_offset(plan)};
}

// Where somebody is in the stream of stages.
struct Ring {
  int stage = 0;
  uint32_t phase = 0;

  __device__ void advance(int n_stages) {
    if (++stage < n_stages) return;
    stage = 0;
    phase ^= 1;
  }
};

// --- The producer: one thread.

// Lets the rows of a tile travel to the L2 cache while the tile before is computed.
__device__ void prefetch_tile(const FusedCoupling& op, int64_t tile) {
  const int64_t first = tile * kTileRows;
  const int64_t rows = op.n_samples - first < kTileRows ? op.n_samples - first : kTileRows;
  if (!op.prefetch || rows <= 0) return;
  const char* start = reinterpret_cast<const char*>(op.input + first * op.n_features);
  const int64_t bytes = rows * op.n_features * static_cast<int64_t>(sizeof(float)) / 16 * 16;
  for (int64_t done = 0; done < bytes; done += kPrefetchBytes)
    bulk_prefetch(start + done, bytes - done < kPrefetchBytes ? bytes - done : kPrefetchBytes);
}

template <int width>
__device__ void stream_weights(const FusedCoupling& op, const Shared& shared) {
  Ring ring;
  const int n_stages = stages_of_tile(op.plan);
  for (int64_t tile = blockIdx.x; tile < op.n_tiles; tile += gridDim.x) {
    prefetch_tile(op, tile + gridDim.x);
    for (int stage = 0; stage < n_stages; ++stage) {
      barrier_wait(shared.empty(ring.stage), ring.phase ^ 1);
      barrier_arrive_expect(shared.full(ring.stage), stage_bytes(width));
      bulk_copy(shared.stages + ring.stage * stage_bytes(width),
                op.packed_weights + static_cast<int64_t>(stage) * stage_bytes(width),
                stage_bytes(width), shared.full(ring.stage));
      ring.advance(op.plan.n_stages);
    }
  }
}

// --- Activations, to the last places of float16 and beyond: tanh.approx would not be.

__device__ float sigmoid(float x) { return reciprocal_approx(1.0f + exp2_approx(-kLog2E * x)); }

struct Relu {
  __device__ float operator()(float x) const { return x < 0.0f ? 0.0f : x; }  // NaN stays
};

struct Selu {
  __device__ float operator()(float x) const {
    constexpr float kScale = 1.0507009873554805f;
    constexpr float kAlpha = 1.6732632423543772f;
    return x > 0.0f ? kScale * x : kScale * kAlpha * (exp2_approx(kLog2E * x) - 1.0f);
  }
};

struct Gelu {
  __device__ float operator()(float x) const {
    constexpr float kTwiceSqrtTwoOverPi = 1.5957691216057308f;
    return x * sigmoid(kTwiceSqrtTwoOverPi * x * (1.0f + 0.044715f * x * x));
  }
};

struct Silu {
  __device__ float operator()(float x) const { return x * sigmoid(x); }
};

// --- Rows in global memory.

// Two features of a half, the first at `at`, of which `left` are left in the row. Those past the
// end are zero and are not written. In pairs: halves are contiguous, of even length and aligned.
template <bool pairs>
__device__ float2 load_two(const float* at, int step, int left) {
  float2 two = make_float2(0.0f, 0.0f);
  if constexpr (pairs) {
    if (left > 0) two = *reinterpret_cast<const float2*>(at);
  } else {
    if (left > 0) two.x = at[0];
    if (left > 1) two.y = at[step];
  }
  return two;
}

template <bool pairs>
__device__ void store_two(float* at, int step, int left, float2 two) {
  if constexpr (pairs) {
    if (left > 0) *reinterpret_cast<float2*>(at) = two;
  } else {
    if (left > 0) at[0] = two.x;
    if (left > 1) at[step] = two.y;
  }
}

// --- A consumer: one thread of a warpgroup, which computes 64 rows of each tile.

template <int width, Direction direction>
struct Consumer {
  static constexpr int kColumns = instruction_columns(width);
  static constexpr int kParts = width / kColumns;
  static constexpr int kSums = width * kConsumerRows / kWarpgroup;
  using Sums = float[kSums];
  static constexpr int kSumsOfPart = kSums / kParts;
  // Loads in flight together: rows of kept features, groups of 8 moved columns.
  static constexpr int kKeptBatch = 16;
  static constexpr int kMovedBatch = width > 256 ? 4 : 8;

  const FusedCoupling& op;
  const Shared shared;
  const int group = threadIdx.x / kWarpgroup;
  const int lane = threadIdx.x % kWarp;
  // Of the warp, in the tile; a warp has the sums of 16 rows.
  const int first_row = threadIdx.x / kWarp * kWarpRows;
  Ring ring{};

  // Of the warpgroup.
  __device__ void synchronize() const { warpgroup_sync(1 + group); }

  __device__ void release(int stage) const {
    if (lane == 0) barrier_arrive(shared.empty(stage));
  }

  __device__ uint32_t in_slabs(int row, int column) const {
    return shared.slabs + column / kSlabColumns * kSlabBytes + swizzled(row, column % kSlabColumns);
  }

  // Rows in the slabs and the next stages of weights -> sums.
  __device__ void multiply(Sums& sums, int n_slabs) {
    int unreleased = -1;
    // Not left to the first product: what it would ignore still had to be kept in registers.
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] = 0.0f;
    pin(sums);
#pragma unroll 1
    for (int slab = 0; slab < n_slabs; ++slab) {
      const uint32_t a = shared.slabs + slab * kSlabBytes + group * kConsumerRows * kRowBytes;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        barrier_wait(shared.full(ring.stage), ring.phase);
        const uint32_t b = shared.stages + ring.stage * stage_bytes(width);
        product_fence();
#pragma unroll
        for (int k = 0; k < kSlabColumns; k += kStepColumns)
          product<kColumns>(sums + part * kSumsOfPart, matrix_descriptor(a + 2 * k),
                            matrix_descriptor(b + 2 * k));
        product_commit();
        product_wait<1>();  // those of the stage before are over
        if (unreleased >= 0) release(unreleased);
        unreleased = ring.stage;
        ring.advance(op.plan.n_stages);
      }
    }
    product_wait<0>();
    release(unreleased);
    pin(sums);
  }

  // Kept features -> output, as they are, and the slabs, rounded.
  template <bool pairs>
  __device__ void load_kept(int64_t tile) const {
    const int step = pairs ? 1 : op.kept.step;
    for (int slab = 0; slab < op.plan.k_slabs[0]; ++slab) {
      const int column = slab * kSlabColumns + 2 * lane;
#pragma unroll 1
      for (int batch = 0; batch < kWarpRows; batch += kKeptBatch) {
        const int64_t row = tile * kTileRows + first_row + batch;
        const int64_t offset = row * op.n_features + op.kept.first + column * step;
        const auto left = [&](int i) { return row + i < op.n_samples ? op.kept.n - column : 0; };
        float2 two[kKeptBatch];
#pragma unroll
        for (int i = 0; i < kKeptBatch; ++i)
          two[i] = load_two<pairs>(op.input + offset + i * op.n_features, step, left(i));
#pragma unroll
        for (int i = 0; i < kKeptBatch; ++i) {
          store_two<pairs>(op.output + offset + i * op.n_features, step, left(i), two[i]);
          store_word(in_slabs(first_row + batch + i, column), halves_of(two[i].x, two[i].y));
        }
      }
    }
  }

  // Sums -> activations in the slabs, 16 columns at a time.
  template <typename Activation>
  __device__ void store_hidden(const Sums& sums, const float* bias, Activation activation) const {
#pragma unroll
    for (int j = 0; j < width / 16; ++j) {
      const int row = first_row + lane % 16;
      const int column = 16 * j + lane / 16 * 8;
      const auto two = [&](int i) {
        const float2 sum = with_bias(sums + 8 * j + 2 * i, bias + 16 * j + i / 2 * 8);
        return halves_of(activation(sum.x), activation(sum.y));
      };
      store_matrices(in_slabs(row, column), two(0), two(1), two(2), two(3));
    }
  }

  __device__ void activate(const Sums& sums, const float* bias) const {
    switch (op.activation) {
      case Activation::relu: return store_hidden(sums, bias, Relu{});
      case Activation::selu: return store_hidden(sums, bias, Selu{});
      case Activation::gelu: return store_hidden(sums, bias, Gelu{});
      case Activation::silu: return store_hidden(sums, bias, Silu{});
    }
  }

  // Two neighbouring sums of this thread, whose biases are among the eight at `bias`.
  __device__ float2 with_bias(const float* sums, const float* bias) const {
    const float2 two = reinterpret_cast<const float2*>(bias)[lane % 4];
    return make_float2(sums[0] + two.x, sums[1] + two.y);
  }

  struct Coupled {
    float result;
    float log;  // of the scale
  };

  __device__ Coupled couple_one(float moved, float shift, float log_scale) const {
    // c tanh(s / c), in the form that saturates for large |s|
    const float log =
        op.clamp > 0.0f
            ? fmaf(-2.0f * op.clamp,
                   reciprocal_approx(1.0f + exp2_approx(op.two_log2e_over_clamp * log_scale)),
                   op.clamp)
            : log_scale;
    const float gain = exp2_approx(kLog2E * log) + op.eps;
    const float result = direction == Direction::forward
                             ? fmaf(moved, gain, shift)
                             : (moved - shift) * reciprocal_approx(gain);
    return {result, log};
  }

  // Sums of a pass of the last layer, width / 2 shifts and log-scales, and moved features ->
  // output.
  template <bool pairs>
  __device__ void couple(int64_t tile, int pass, const Sums& sums, const float* bias,
                         float (&log_det)[2]) const {
    const int step = pairs ? 1 : op.moved.step;
    const int first_column = pass * (width / 2) + 2 * (lane % 4);
    const int64_t row = tile * kTileRows + first_row + lane / 4;
    const int64_t offset = row * op.n_features + op.moved.first + first_column * step;
    const int64_t eight_rows = 8 * op.n_features;
    const float* input = op.input + offset;
    float* output = op.output + offset;
    const auto left = [&](int i, int j) {
      return row + 8 * i < op.n_samples ? op.moved.n - first_column - 8 * j : 0;
    };
#pragma unroll
    for (int batch = 0; batch < width / 16; batch += kMovedBatch) {
      float2 moved[kMovedBatch][2];
#pragma unroll
      for (int k = 0; k < 2 * kMovedBatch; ++k) {
        const int i = k % 2, j = batch + k / 2;
        moved[k / 2][i] = load_two<pairs>(input + i * eight_rows + 8 * j * step, step, left(i, j));
      }
#pragma unroll
      for (int k = 0; k < 2 * kMovedBatch; ++k) {
        const int i = k % 2, j = batch + k / 2;
        const float2 shift = with_bias(sums + 4 * j + 2 * i, bias + 8 * j);
        const float2 log_scale =
            with_bias(sums + kSums / 2 + 4 * j + 2 * i, bias + width / 2 + 8 * j);
        const Coupled x = couple_one(moved[k / 2][i].x, shift.x, log_scale.x);
        const Coupled y = couple_one(moved[k / 2][i].y, shift.y, log_scale.y);
        store_two<pairs>(output + i * eight_rows + 8 * j * step, step, left(i, j),
                         make_float2(x.result, y.result));
        if (left(i, j) > 0) log_det[i] += x.log;
        if (left(i, j) > 1) log_det[i] += y.log;
      }
    }
  }

  // Four neighbouring lanes have the columns of a row; always in the same order.
  __device__ void store_log_det(int64_t tile, const float (&log_det)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = log_det[i];
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      const int64_t row = tile * kTileRows + first_row + lane / 4 + 8 * i;
      if (lane % 4 == 0 && row < op.n_samples)
        op.log_det[row] = direction == Direction::forward ? sum : -sum;
    }
  }

  __device__ void compute(int64_t tile) {
    synchronize();  // the products of the tile before are over
    op.pairs ? load_kept<true>(tile) : load_kept<false>(tile);
    async_proxy_fence();
    synchronize();
    const float* bias = op.packed_biases;
#pragma unroll 1
    for (int layer = 0; layer < op.plan.n_hidden; ++layer, bias += width) {
      Sums sums;
      multiply(sums, op.plan.k_slabs[layer]);
      synchronize();
      activate(sums, bias);
      async_proxy_fence();
      synchronize();
    }
    float log_det[2] = {0.0f, 0.0f};
#pragma unroll 1
    for (int pass = 0; pass < op.plan.n_chunks; ++pass, bias += width) {
      Sums sums;
      multiply(sums, op.plan.k_slabs[op.plan.n_hidden]);
      op.pairs ? couple<true>(tile, pass, sums, bias, log_det)
               : couple<false>(tile, pass, sums, bias, log_det);
    }
    store_log_det(tile, log_det);
  }
};

// --- Weights in the order and the places in which the kernel reads them.

__device__ void pack_chunk(const Plan& plan, const Linear& linear, int layer, int index,
                           char* packed) {
  const PackedChunk chunk = packed_chunk(plan, layer, index);
  const int output = network_output(plan, layer, linear.n_outputs, chunk.pass, chunk.column);
  const auto weight = [&](int input) {
    if (output < 0 || input >= linear.n_inputs) return 0.0f;
    return linear.weight
        .data[output * linear.weight.row_stride + input * linear.weight.column_stride];
  };
  auto* words = reinterpret_cast<uint32_t*>(packed + chunk.offset);
  for (int i = 0; i < kChunkInputs; i += 2)
    words[i / 2] = halves_of(weight(chunk.first_input + i), weight(chunk.first_input + i + 1));
  if (!chunk.has_bias) return;
  auto* biases = reinterpret_cast<float*>(packed + packed_bias_offset(plan));
  biases[(layer + chunk.pass) * plan.width + chunk.column] = output < 0 ? 0 : linear.bias[output];
}

// --- A block.

template <int width, Direction direction>
__device__ void run_block(const FusedCoupling& op, const void* memory) {
  const Shared shared = shared_of(op.plan, memory);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < op.plan.n_stages; ++stage) {
      barrier_init(shared.full(stage), 1);
      barrier_init(shared.empty(stage), kConsumerWarps);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= kConsumerThreads) {
    release_registers<kProducerRegisters>();
    if (threadIdx.x == kConsumerThreads) stream_weights<width>(op, shared);
  } else {
    claim_registers<kConsumerRegisters>();
    Consumer<width, direction> consumer{op, shared};
    for (int64_t tile = blockIdx.x; tile < op.n_tiles; tile += gridDim.x) consumer.compute(tile);
  }
}

}  // namespace
}  // namespace fused
}  // namespace fastinn
