// How functions are marked that a kernel shares with the host.
#pragma once

#if defined(__CUDACC__)
#define FASTINN_HOST_DEVICE __host__ __device__ inline
#else
#define FASTINN_HOST_DEVICE inline
#endif
