#include <cuda_runtime.h>

#include "coupling_mlp/fused_sm90.cuh"

namespace fastinn {
namespace fused {
namespace {

// Only sm_90a has wgmma. What is compiled for others is not launched, and would stop the program.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define FASTINN_SM90A(...) __VA_ARGS__
#else
#define FASTINN_SM90A(...) __trap();
#endif

template <int width, Direction direction>
__global__ void __launch_bounds__(kThreads, 1)
    couple_rows(const __grid_constant__ FusedCoupling op) {
  extern __shared__ char shared_memory[];
  FASTINN_SM90A((run_block<width, direction>(op, shared_memory));)
}

template <int width, Direction direction>
int launch(const FusedCoupling& op, void* stream) {
  const auto kernel = couple_rows<width, direction>;
  const int bytes = shared_bytes(op.plan);
  int device = 0, processors = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess)
    status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (status == cudaSuccess)
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (status != cudaSuccess) return status;
  const auto blocks = static_cast<unsigned>(op.n_tiles < processors ? op.n_tiles : processors);
  kernel<<<blocks, kThreads, bytes, static_cast<cudaStream_t>(stream)>>>(op);
  return cudaGetLastError();
}

template <Direction direction>
int launch_width(const FusedCoupling& op, void* stream) {
  switch (op.plan.width) {
    case 128: return launch<128, direction>(op, stream);
    case 256: return launch<256, direction>(op, stream);
    case 384: return launch<384, direction>(op, stream);
    default: return cudaErrorInvalidValue;
  }
}

constexpr int kPackThreads = 256;

__global__ void pack_layer(const __grid_constant__ Plan plan,
                           const __grid_constant__ Network network, char* packed) {
  const int layer = blockIdx.y;
  const int index = blockIdx.x * kPackThreads + threadIdx.x;
  if (index >= chunks_of_layer(plan, layer)) return;
  pack_chunk(plan, network.layers[layer], layer, index, packed);
}

}  // namespace

int pack(const Plan& plan, const Network& network, char* packed, void* stream) {
  int most = 0;
  for (int layer = 0; layer <= plan.n_hidden; ++layer)
    most = chunks_of_layer(plan, layer) > most ? chunks_of_layer(plan, layer) : most;
  const dim3 blocks(ceil_div(most, kPackThreads), plan.n_hidden + 1);
  pack_layer<<<blocks, kPackThreads, 0, static_cast<cudaStream_t>(stream)>>>(plan, network, packed);
  return cudaGetLastError();
}

int run(Direction direction, const FusedCoupling& op, void* stream) {
  if (op.n_samples == 0) return cudaSuccess;
  return direction == Direction::forward ? launch_width<Direction::forward>(op, stream)
                                         : launch_width<Direction::inverse>(op, stream);
}

}  // namespace fused
}  // namespace fastinn
