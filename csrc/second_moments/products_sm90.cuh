// Tiles of the product on sm_90a. A persistent block of three warpgroups takes one tile over one
// panel after the other: one thread streams both operands through a ring of slots in shared memory,
// two warpgroups multiply 64 x 192 each.
//
// Tensor cores truncate what they add, so a long sum drifts. Sums are started afresh every 64 rows
// and promoted to float32 totals with rounding; the small products of a split come first, where
// truncation cuts least. While one warpgroup promotes, the other's products keep the units busy.
//
// What keeps it free of races and deadlocks:
// 1. A slot holds 64 rows of both operands, of `high` or of `low`. Producer and consumers count
//    through the same slots in the same order, over all tiles, and never skip one.
// 2. full[s] completes when both copies into slot s have landed (one arrival and their bytes).
//    Consumers wait for the phase they are in; it cannot be overtaken by two phases, since
// 3. empty[s] completes when each consumer warp (8) has arrived, after its products that read slot
//    s are over. The producer waits for the phase before its own; on the first round that is the
//    phase before the first, which counts as over.
// 4. A split holds two slots at a time and waits for no third: 5 in the ring suffice.
// 5. Every copy is waited for by consumers, so none is in flight when the block ends.
#pragma once

#include "common/sm90.cuh"
#include "second_moments/panels.h"

namespace fastinn {
namespace panels {
namespace {

using namespace sm90;

constexpr int kConsumers = 2;
constexpr int kConsumerHeight = kTileHeight / kConsumers;  // what a wgmma instruction has
constexpr int kConsumerThreads = kConsumers * kWarpgroup;
constexpr int kConsumerWarps = kConsumerThreads / kWarp;
constexpr int kThreads = kConsumerThreads + kWarpgroup;
constexpr int kSums = kConsumerHeight * kTileWidth / kWarpgroup;
constexpr int kInstructionRows = 16;  // rows that a wgmma instruction sums over
// 168 a thread at launch; what the producer gives back, consumers take: 2 * 240 + 24 <= 3 * 168.
constexpr int kProducerRegisters = 24;
constexpr int kConsumerRegisters = 240;

constexpr int kSlots = 5;
constexpr int kLeftBytes = kTileHeight * kFeatureBytes;
constexpr int kSlotBytes = kLeftBytes + kTileWidth * kFeatureBytes;
constexpr int kAlignment = kSwizzledFeatures * kFeatureBytes;  // of what is swizzled by address
constexpr int kSharedBytes = kAlignment + kSlots * (kSlotBytes + 2 * 8);
static_assert(kSharedBytes <= 232448, "more than a block may have on sm_90");

// Tells wgmma where an operand starts: 128 bytes a feature, swizzled, 8 features every 1024 bytes.
// 16 rows further is 32 bytes further: the hardware swizzles addresses, not offsets.
__device__ uint64_t operand_descriptor(uint32_t address) {
  constexpr uint64_t kUnusedLeadingOffset = 1;
  constexpr uint64_t kEightFeatures = kAlignment >> 4;
  constexpr uint64_t kSwizzle128 = 1;
  return ((address & 0x3ffff) >> 4) | kUnusedLeadingOffset << 16 | kEightFeatures << 32 |
         kSwizzle128 << 62;
}

// The slots in shared memory, and where somebody is in the stream of them.
struct Ring {
  uint32_t start;
  int slot = 0;
  uint32_t phase = 0;

  __device__ explicit Ring(const void* memory)
      : start((shared_address(memory) + kAlignment - 1) / kAlignment * kAlignment) {}

  __device__ uint32_t left(int at) const { return start + at * kSlotBytes; }
  __device__ uint32_t right(int at) const { return left(at) + kLeftBytes; }
  __device__ uint32_t full(int at) const { return start + kSlots * kSlotBytes + 16 * at; }
  __device__ uint32_t empty(int at) const { return full(at) + 8; }

  __device__ void advance() {
    if (++slot < kSlots) return;
    slot = 0;
    phase ^= 1;
  }
};

// --- The producer: one thread.

__device__ void copy_step(Ring& ring, const char* x, const char* y) {
  barrier_wait(ring.empty(ring.slot), ring.phase ^ 1);
  barrier_arrive_expect(ring.full(ring.slot), kSlotBytes);
  bulk_copy(ring.left(ring.slot), x, kLeftBytes, ring.full(ring.slot));
  bulk_copy(ring.right(ring.slot), y, kSlotBytes - kLeftBytes, ring.full(ring.slot));
  ring.advance();
}

template <bool split>
__device__ void stream_operands(const Products& op, Ring ring) {
  for (int64_t index = blockIdx.x; index < n_works(op); index += gridDim.x) {
    const Work work = work_at(op, index, kStepRows, kTileHeight, kTileWidth);
    for (int64_t step = work.first_step; step < work.first_step + work.n_steps; ++step) {
      const int64_t x = step_offset(step, op.x.columns) + work.i * kFeatureBytes;
      const int64_t y = step_offset(step, op.y.columns) + work.j * kFeatureBytes;
      copy_step(ring, op.x.high + x, op.y.high + y);
      if (split) copy_step(ring, op.x.low + x, op.y.low + y);
    }
  }
}

// --- A consumer: one thread of a warpgroup, which computes 64 rows of each tile.

template <bool split>
struct Consumer {
  Ring ring;
  const int lane = threadIdx.x % kWarp;
  const int group = threadIdx.x / kWarpgroup;
  float sums[kSums];
  float totals[kSums];

  __device__ explicit Consumer(const Ring& start) : ring(start) {}

  // Waits for the next slot to be filled.
  __device__ int take() {
    const int slot = ring.slot;
    barrier_wait(ring.full(slot), ring.phase);
    ring.advance();
    return slot;
  }

  __device__ void release(int slot) const {
    if (lane == 0) barrier_arrive(ring.empty(slot));
  }

  // 64 rows of the left operand in one slot times those of the right one in another.
  __device__ void multiply_step(int left, int right) {
    const uint32_t a = ring.left(left) + group * kConsumerHeight * kFeatureBytes;
    const uint32_t b = ring.right(right);
#pragma unroll
    for (int row = 0; row < kStepRows; row += kInstructionRows)
      product<kTileWidth>(sums, operand_descriptor(a + 2 * row), operand_descriptor(b + 2 * row));
  }

  __device__ void sum_step() {
    const int high = take();
    const int low = split ? take() : high;
    product_fence();
    if constexpr (split) {
      multiply_step(high, low);
      multiply_step(low, high);
      product_commit();
    }
    multiply_step(high, high);
    product_commit();
    if constexpr (split) {
      product_wait<1>();  // those with `low` are over
      release(low);
    }
    product_wait<0>();
    release(high);
  }

  // Sums -> totals, with rounding.
  __device__ void promote() {
    pin(sums);
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      totals[k] += sums[k];
      sums[k] = 0.0f;
    }
    pin(sums);
  }

  __device__ void store(float* tile) const {
    const int first = threadIdx.x / kWarp * 16 + lane / 4;
#pragma unroll
    for (int k = 0; k < kSums; k += 2) {
      const int row = first + 8 * (k / 2 % 2), column = k / 4 * 8 + 2 * (lane % 4);
      *reinterpret_cast<float2*>(tile + row * kTileWidth + column) =
          make_float2(totals[k], totals[k + 1]);
    }
  }

  __device__ void compute(const Products& op) {
#pragma unroll
    for (int k = 0; k < kSums; ++k) sums[k] = 0.0f;
    for (int64_t index = blockIdx.x; index < n_works(op); index += gridDim.x) {
      const Work work = work_at(op, index, kStepRows, kTileHeight, kTileWidth);
#pragma unroll
      for (int k = 0; k < kSums; ++k) totals[k] = 0.0f;
#pragma unroll 1
      for (int64_t step = 0; step < work.n_steps; ++step) {
        sum_step();
        promote();
      }
      store(static_cast<float*>(op.partial) + index * (kTileHeight * kTileWidth));
    }
  }
};

template <bool split>
__device__ void run_block(const Products& op, const void* memory) {
  const Ring ring(memory);
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < kSlots; ++slot) {
      barrier_init(ring.full(slot), 1);
      barrier_init(ring.empty(slot), kConsumerWarps);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= kConsumerThreads) {
    release_registers<kProducerRegisters>();
    if (threadIdx.x == kConsumerThreads) stream_operands<split>(op, ring);
  } else {
    claim_registers<kConsumerRegisters>();
    Consumer<split>(ring).compute(op);
  }
}

}  // namespace
}  // namespace panels
}  // namespace fastinn
