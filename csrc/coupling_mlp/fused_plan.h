// How the fused coupling layer cuts its work and where every element lies. The same functions serve
// the kernel, the packing of the weights and the emulation on the host.
//
// A block computes tiles of 128 whole rows. Activations stay in shared memory as float16 "slabs" of
// 128 rows x 64 columns, which every layer overwrites with its own. Weights arrive in "stages" of
// instruction_columns outputs x 64 inputs, packed in the very order in which they are used, so that
// each stage is one contiguous copy.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace fastinn {
namespace fused {

constexpr int kConsumers = 2;      // warpgroups that compute
constexpr int kConsumerRows = 64;  // rows of each: what a wgmma instruction has
constexpr int kTileRows = kConsumers * kConsumerRows;
constexpr int kSlabColumns = 64;  // 128 bytes, the span of the swizzle
constexpr int kRowBytes = 2 * kSlabColumns;
constexpr int kSlabBytes = kTileRows * kRowBytes;
constexpr int kStepColumns = 16;  // columns of A and B that a wgmma instruction reads
constexpr int kSwizzleRows = 8;   // the swizzle repeats after 8 rows, 1024 bytes
constexpr int kAlignment = kSwizzleRows * kRowBytes;
constexpr int kMaxHidden = 3;
constexpr int kMaxStages = 8;
constexpr int kMinStages = 3;
constexpr int kWidths[] = {128, 256, 384};  // wider: the sums no longer fit into registers
constexpr int kSharedMemory = 232448;       // bytes that a block may have on sm_90

// Sums of 384 columns take two instructions: one has at most 256.
FASTINN_HOST_DEVICE constexpr int instruction_columns(int width) {
  return width > 256 ? width / 2 : width;
}
FASTINN_HOST_DEVICE constexpr int stage_bytes(int width) {
  return instruction_columns(width) * kRowBytes;
}

struct Plan {
  int width;     // columns that a pass over the inputs sums; every hidden layer is padded to it
  int n_hidden;  // linear layers are n_hidden + 1
  int n_kept;
  int n_moved;
  int n_slabs;                  // of the activations
  int n_stages;                 // of weights in shared memory at a time
  int k_slabs[kMaxHidden + 1];  // slabs of inputs that each linear layer reads
  int n_chunks;  // passes of the last layer, of width / 2 shifts and the log-scales beside them
};

FASTINN_HOST_DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }

FASTINN_HOST_DEVICE int passes(const Plan& plan, int layer) {
  return layer == plan.n_hidden ? plan.n_chunks : 1;
}

FASTINN_HOST_DEVICE int stages_of_layer(const Plan& plan, int layer) {
  return passes(plan, layer) * plan.k_slabs[layer] * (plan.width / instruction_columns(plan.width));
}

// Stages before those of `layer`; with layer = n_hidden + 1, all stages of a tile.
FASTINN_HOST_DEVICE int first_stage(const Plan& plan, int layer) {
  int n = 0;
  for (int before = 0; before < layer; ++before) n += stages_of_layer(plan, before);
  return n;
}

FASTINN_HOST_DEVICE int stages_of_tile(const Plan& plan) {
  return first_stage(plan, plan.n_hidden + 1);
}

// Packed weights are followed by the biases, float32, `width` of them a pass.
FASTINN_HOST_DEVICE int64_t packed_bias_offset(const Plan& plan) {
  return static_cast<int64_t>(stages_of_tile(plan)) * stage_bytes(plan.width);
}

FASTINN_HOST_DEVICE int64_t packed_bytes(const Plan& plan) {
  return packed_bias_offset(plan) + int64_t{4} * plan.width * (plan.n_hidden + plan.n_chunks);
}

// Shared memory: the stages, the slabs, two barriers a stage; and room to align the first.
FASTINN_HOST_DEVICE int slabs_offset(const Plan& plan) {
  return plan.n_stages * stage_bytes(plan.width);
}

FASTINN_HOST_DEVICE int barriers_offset(const Plan& plan) {
  return slabs_offset(plan) + plan.n_slabs * kSlabBytes;
}

FASTINN_HOST_DEVICE int shared_bytes(const Plan& plan) {
  return barriers_offset(plan) + 2 * 8 * plan.n_stages + kAlignment;
}

// Byte offset in a slab, or in a stage, of an element: chunks of 16 bytes change places within a
// row, by its number, so that 8 rows of the same columns lie in different banks.
FASTINN_HOST_DEVICE uint32_t swizzled(int row, int column) {
  return row * kRowBytes + ((2 * column) ^ ((row % kSwizzleRows) * 16));
}

// Tells wgmma where an operand starts in shared memory. The operand's rows are 128 bytes apart and
// swizzled as above. 16 columns further is 32 bytes further: the hardware swizzles addresses, not
// offsets, and rows start at multiples of 1024 bytes.
FASTINN_HOST_DEVICE uint64_t matrix_descriptor(uint32_t address) {
  constexpr uint64_t kUnusedLeadingOffset = 1;
  constexpr uint64_t kEightRows = kAlignment >> 4;
  constexpr uint64_t kSwizzle128 = 1;
  return ((address & 0x3ffff) >> 4) | kUnusedLeadingOffset << 16 | kEightRows << 32 |
         kSwizzle128 << 62;
}

// Which output of linear layer `layer` is summed in `column` of `pass`; -1: padding.
FASTINN_HOST_DEVICE int network_output(const Plan& plan, int layer, int n_outputs, int pass,
                                       int column) {
  if (layer < plan.n_hidden) return column < n_outputs ? column : -1;
  const int half = plan.width / 2;
  const int moved = pass * half + column % half;
  if (moved >= plan.n_moved) return -1;
  return column < half ? moved : plan.n_moved + moved;
}

// What a thread packs: eight inputs, 16 bytes, of one output.
struct PackedChunk {
  int64_t offset;  // bytes, in the packed weights
  int pass;
  int column;
  int first_input;
  bool has_bias;  // exactly one chunk of each column of a pass
};

constexpr int kChunkInputs = 8;

FASTINN_HOST_DEVICE int chunks_of_layer(const Plan& plan, int layer) {
  return stages_of_layer(plan, layer) * instruction_columns(plan.width) *
         (kSlabColumns / kChunkInputs);
}

FASTINN_HOST_DEVICE PackedChunk packed_chunk(const Plan& plan, int layer, int index) {
  constexpr int kChunksOfRow = kSlabColumns / kChunkInputs;
  const int rows = instruction_columns(plan.width);
  const int parts = plan.width / rows;
  const int input = index % kChunksOfRow * kChunkInputs;
  const int row = index / kChunksOfRow % rows;
  const int stage = index / kChunksOfRow / rows;
  const int slab = stage / parts % plan.k_slabs[layer];
  const int64_t stage_offset =
      static_cast<int64_t>(first_stage(plan, layer) + stage) * stage_bytes(plan.width);
  return {stage_offset + swizzled(row, input), stage / parts / plan.k_slabs[layer],
          stage % parts * rows + row, slab * kSlabColumns + input, slab == 0 && input == 0};
}

// The plan of a layer with hidden widths `hidden`, or one of width 0 where the kernel is not made
// for it.
inline Plan make_plan(int n_kept, int n_moved, int n_hidden, const int* hidden) {
  Plan plan{};
  if (n_kept < 1 || n_moved < 1 || n_hidden < 1 || n_hidden > kMaxHidden) return plan;
  int widest = 0;
  for (int layer = 0; layer < n_hidden; ++layer) {
    if (hidden[layer] < 1) return plan;
    widest = hidden[layer] > widest ? hidden[layer] : widest;
  }
  int width = 0;
  for (int candidate : kWidths)
    if (width == 0 && widest <= candidate) width = candidate;
  if (width == 0) return plan;
  plan.n_hidden = n_hidden;
  plan.n_kept = n_kept;
  plan.n_moved = n_moved;
  plan.k_slabs[0] = ceil_div(n_kept, kSlabColumns);
  for (int layer = 1; layer <= n_hidden; ++layer)
    plan.k_slabs[layer] = ceil_div(hidden[layer - 1], kSlabColumns);
  plan.n_chunks = ceil_div(n_moved, width / 2);
  const int of_width = width / kSlabColumns;
  plan.n_slabs = plan.k_slabs[0] > of_width ? plan.k_slabs[0] : of_width;
  plan.width = width;
  // Slabs first; stages take what is left.
  for (plan.n_stages = kMaxStages; plan.n_stages >= kMinStages; --plan.n_stages)
    if (shared_bytes(plan) <= kSharedMemory) return plan;
  return Plan{};
}

}  // namespace fused
}  // namespace fastinn
