// Tiles of the product on every GPU from sm_80 on: plain, for those without the instructions of
// sm_90a. A block of 8 warps takes one tile over one panel; see products_sm90.cuh for the
// promotion.
#pragma once

#include <cuda_runtime.h>

#include "common/sm80.cuh"
#include "second_moments/panels.h"

namespace fastinn {
namespace panels {
namespace portable {

constexpr int kWarp = 32;
constexpr int kWarpsDown = 4, kWarpsAcross = 2;
constexpr int kThreads = kWarpsDown * kWarpsAcross * kWarp;
constexpr int kWarpHeight = kTileHeight / kWarpsDown;
constexpr int kWarpWidth = kTileWidth / kWarpsAcross;
constexpr int kDown = kWarpHeight / 16, kAcross = kWarpWidth / 8;  // instructions
constexpr int kLeftBytes = kTileHeight * kFeatureBytes;
constexpr int kRightBytes = kTileWidth * kFeatureBytes;
constexpr int kOperandBytes = kLeftBytes + kRightBytes;  // of `high`; those of `low` follow

using Sums = float[kDown][kAcross][4];

// Two neighbouring rows of a feature.
__device__ uint32_t two_rows(const char* operand, int feature, int row) {
  const int within = 2 * (row % kChunkRows);
  return *reinterpret_cast<const uint32_t*>(operand + chunk_offset(feature, row / kChunkRows) +
                                            within);
}

// 64 rows of both operands.
__device__ void multiply_step(Sums& sums, const char* left, const char* right) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int x = warp / kWarpsAcross * kWarpHeight + lane / 4;
  const int y = warp % kWarpsAcross * kWarpWidth + lane / 4;
#pragma unroll 1
  for (int step = 0; step < kStepRows; step += 16) {
    const int row = step + 2 * (lane % 4);
    uint32_t a[kDown][4];
#pragma unroll
    for (int i = 0; i < kDown; ++i)
#pragma unroll
      for (int word = 0; word < 4; ++word)
        a[i][word] = two_rows(left, x + 16 * i + 8 * (word % 2), row + 8 * (word / 2));
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
      const uint32_t b[2] = {two_rows(right, y + 8 * j, row), two_rows(right, y + 8 * j, row + 8)};
#pragma unroll
      for (int i = 0; i < kDown; ++i) sm80::product(sums[i][j], a[i], b);
    }
  }
}

__device__ void copy(char* to, const char* from, int bytes) {
  for (int at = 16 * threadIdx.x; at < bytes; at += 16 * kThreads)
    *reinterpret_cast<uint4*>(to + at) = *reinterpret_cast<const uint4*>(from + at);
}

__device__ void store(const Sums& totals, float* tile) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int x = warp / kWarpsAcross * kWarpHeight + lane / 4;
  const int y = warp % kWarpsAcross * kWarpWidth + 2 * (lane % 4);
#pragma unroll
  for (int i = 0; i < kDown; ++i)
#pragma unroll
    for (int j = 0; j < kAcross; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<float2*>(tile + (x + 16 * i + 8 * half) * kTileWidth + y + 8 * j) =
            make_float2(totals[i][j][2 * half], totals[i][j][2 * half + 1]);
}

template <bool split>
__global__ void __launch_bounds__(kThreads, 1) multiply(const __grid_constant__ Products op) {
  extern __shared__ __align__(16) char shared[];
  const Work work = work_at(op, blockIdx.x, kStepRows, kTileHeight, kTileWidth);
  Sums totals = {};
#pragma unroll 1
  for (int64_t step = work.first_step; step < work.first_step + work.n_steps; ++step) {
    const int64_t x = step_offset(step, op.x.columns) + work.i * kFeatureBytes;
    const int64_t y = step_offset(step, op.y.columns) + work.j * kFeatureBytes;
    __syncthreads();
    copy(shared, op.x.high + x, kLeftBytes);
    copy(shared + kLeftBytes, op.y.high + y, kRightBytes);
    if constexpr (split) {
      copy(shared + kOperandBytes, op.x.low + x, kLeftBytes);
      copy(shared + kOperandBytes + kLeftBytes, op.y.low + y, kRightBytes);
    }
    __syncthreads();
    Sums sums = {};
    if constexpr (split) {
      multiply_step(sums, shared, shared + kOperandBytes + kLeftBytes);
      multiply_step(sums, shared + kOperandBytes, shared + kLeftBytes);
    }
    multiply_step(sums, shared, shared + kLeftBytes);
#pragma unroll
    for (int k = 0; k < kDown * kAcross * 4; ++k) (&totals[0][0][0])[k] += (&sums[0][0][0])[k];
  }
  store(totals, static_cast<float*>(op.partial) +
                    static_cast<int64_t>(blockIdx.x) * (kTileHeight * kTileWidth));
}

// --- float64 rows, row by row: 16 x 16 threads, each with every 16th feature of both sides.

constexpr int kRealRows = 32;
constexpr int kRealSide = 16;
constexpr int kRealEach = kRealTile / kRealSide;

__global__ void __launch_bounds__(kRealSide* kRealSide)
    multiply_real(const __grid_constant__ Products op) {
  __shared__ double left[kRealRows][kRealTile], right[kRealRows][kRealTile];
  const Work work = work_at(op, blockIdx.x, kRealRows, kRealTile, kRealTile);
  const auto* x = reinterpret_cast<const double*>(op.x.high) + work.i;
  const auto* y = reinterpret_cast<const double*>(op.y.high) + work.j;
  const int across = threadIdx.x % kRealSide, down = threadIdx.x / kRealSide;
  double totals[kRealEach][kRealEach] = {};
  for (int64_t step = work.first_step; step < work.first_step + work.n_steps; ++step) {
    __syncthreads();
    for (int at = threadIdx.x; at < kRealRows * kRealTile; at += kRealSide * kRealSide) {
      const int64_t row = step * kRealRows + at / kRealTile;
      left[at / kRealTile][at % kRealTile] = x[row * op.x.columns + at % kRealTile];
      right[at / kRealTile][at % kRealTile] = y[row * op.y.columns + at % kRealTile];
    }
    __syncthreads();
#pragma unroll 8
    for (int row = 0; row < kRealRows; ++row)
#pragma unroll
      for (int i = 0; i < kRealEach; ++i)
#pragma unroll
        for (int j = 0; j < kRealEach; ++j)
          totals[i][j] += left[row][down + kRealSide * i] * right[row][across + kRealSide * j];
  }
  auto* tile =
      static_cast<double*>(op.partial) + static_cast<int64_t>(blockIdx.x) * (kRealTile * kRealTile);
#pragma unroll
  for (int i = 0; i < kRealEach; ++i)
#pragma unroll
    for (int j = 0; j < kRealEach; ++j)
      tile[(down + kRealSide * i) * kRealTile + across + kRealSide * j] = totals[i][j];
}

}  // namespace portable
}  // namespace panels
}  // namespace fastinn
