// The matrix product of a warp, which every GPU from sm_80 on has.
#pragma once

#include <cstdint>

namespace fastinn {
namespace sm80 {

// sums (16 x 8) += A (16 x 16) B (8 x 16)^T, float16 operands, float32 sums. Lane l has, of A, two
// neighbours at row l / 4 + 8 (i % 2), column 2 (l % 4) + 8 (i / 2) in word i; of B the same at row
// l / 4, column 2 (l % 4) + 8 i; and sums at row l / 4 + 8 (i / 2), column 2 (l % 4) + i % 2.
__device__ __forceinline__ void product(float* sums, const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace sm80
}  // namespace fastinn
