// exp and tanh under the same names on every processor, and how functions of one element are
// marked.
#pragma once

#if defined(__CUDACC__)
#define FASTINN_ELEMENTWISE __device__ inline
#else
// A call that is left in a loop keeps the loop from being vectorised.
#define FASTINN_ELEMENTWISE __attribute__((always_inline)) inline
#include "common/vector_math.h"
#endif
