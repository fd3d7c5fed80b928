// exp, tanh and expm1_of_negative under the same names on every processor, and how functions of one
// element are marked.
#pragma once

#if defined(__CUDACC__)
#define FASTINN_ELEMENTWISE __device__ inline

namespace fastinn {
namespace {

template <typename T>
FASTINN_ELEMENTWISE T expm1_of_negative(T x) {
  return expm1(x);
}

}  // namespace
}  // namespace fastinn
#else
// A call that is left in a loop keeps the loop from being vectorised.
#define FASTINN_ELEMENTWISE __attribute__((always_inline)) inline
#include "common/vector_math.h"
#endif
