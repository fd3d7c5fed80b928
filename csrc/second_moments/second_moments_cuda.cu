#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "second_moments/panels.h"
#include "second_moments/products_sm80.cuh"
#include "second_moments/products_sm90.cuh"

namespace fastinn {
namespace panels {
namespace {

// --- Rows -> staged rows. A block has one panel of 32 features, a warp 8 rows at a time: the rows
// of a chunk. It reads the panel twice, the second time from the L2 cache.

constexpr int kStageWarps = kStepRows / kChunkRows;

// The largest staged entry of a column is 2^14 or more and below 2^15, which float16 holds. Its
// smallest step, 2^-24, is then 2^-38 of that entry: subnormals cost nothing.
constexpr int kStagedExponent = 14;

__device__ double wide(float x) { return x; }
__device__ double wide(double x) { return x; }
__device__ double wide(__half x) { return __half2float(x); }
__device__ double wide(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ double power_of_two(int64_t exponent) {
  return __longlong_as_double((exponent + 1023) << 52);
}

// k with 2^k <= x < 2^(k+1), bounded so that 2^k and 2^-k are float64.
__device__ int64_t exponent_of(double x) {
  const int64_t k = (__double_as_longlong(x) >> 52) - 1023;
  return k < -900 ? -900 : k > 900 ? 900 : k;
}

// One feature of a layer.
template <typename T>
struct Column {
  const T* data;
  const double* root;
  double shift;
  int64_t row_stride, n_rows;

  __device__ Column(const Stage& op, int64_t layer, int64_t feature)
      : data(static_cast<const T*>(op.source.data) + layer * op.source.batch_stride +
             feature * op.source.column_stride),
        root(op.root),
        shift(0),
        row_stride(op.source.row_stride),
        n_rows(feature < op.source.n_features ? op.n_rows : 0) {
    if (op.source.shift && n_rows > 0)
      shift = op.source.shift[layer * op.source.n_features + feature];
  }

  // In float64, where any mean leaves without a trace; 0 outside.
  __device__ double operator[](int64_t row) const {
    if (row >= n_rows) return 0;
    const double x = wide(data[row * row_stride]) - shift;
    return root ? x * root[row] : x;
  }
};

// The largest magnitude of a panel of a column, the same in all warps of a block.
template <typename T>
__device__ double largest_in(const Column<T>& column, int64_t first, int64_t last) {
  __shared__ double of_warp[kStageWarps][kWarp];
  double largest = 0;
#pragma unroll 8
  for (int64_t row = first + threadIdx.y; row < last; row += kStageWarps)
    largest = fmax(largest, fabs(column[row]));
  of_warp[threadIdx.y][threadIdx.x] = largest;
  __syncthreads();
  for (int warp = 0; warp < kStageWarps; ++warp)
    largest = fmax(largest, of_warp[warp][threadIdx.x]);
  return largest;
}

template <Form form>
__device__ void store_chunk(char* high, char* low, const double (&x)[kChunkRows]) {
  alignas(kChunkBytes) __half first[kChunkRows], rest[kChunkRows];
#pragma unroll
  for (int i = 0; i < kChunkRows; ++i) {
    first[i] = __float2half_rn(static_cast<float>(x[i]));
    if constexpr (form == Form::split)
      rest[i] = __float2half_rn(static_cast<float>(x[i] - wide(first[i])));
  }
  *reinterpret_cast<uint4*>(high) = reinterpret_cast<const uint4&>(first);
  if constexpr (form == Form::split)
    *reinterpret_cast<uint4*>(low) = reinterpret_cast<const uint4&>(rest);
}

template <Form form, typename T>
__global__ void __launch_bounds__(kStageWarps* kWarp)
    stage_panel(const __grid_constant__ Stage op) {
  const int64_t blocks = op.columns / kWarp, n_panels = ceil_div(op.rows, op.panel);
  const int64_t feature = blockIdx.x % blocks * kWarp + threadIdx.x;
  const int64_t panel = blockIdx.x / blocks % n_panels, layer = blockIdx.x / blocks / n_panels;
  const int64_t first = panel * op.panel;
  const int64_t last = first + op.panel < op.rows ? first + op.panel : op.rows;
  const Column<T> column(op, layer, feature);
  double factor = 1, scale = 1;
  if constexpr (form != Form::real) {
    const int64_t exponent = exponent_of(largest_in(column, first, last));
    factor = power_of_two(kStagedExponent - exponent);
    scale = power_of_two(exponent - kStagedExponent);
  }
  if (threadIdx.y == 0) op.scale[(layer * n_panels + panel) * op.columns + feature] = scale;
  for (int64_t start = first; start < last; start += kStepRows) {
    const int64_t row = start + kChunkRows * threadIdx.y;
    double x[kChunkRows];
#pragma unroll
    for (int i = 0; i < kChunkRows; ++i) x[i] = column[row + i] * factor;
    if constexpr (form == Form::real) {
      auto* staged = reinterpret_cast<double*>(op.high) + (layer * op.rows + row) * op.columns;
#pragma unroll
      for (int i = 0; i < kChunkRows; ++i) staged[i * op.columns + feature] = x[i];
    } else {
      const int64_t offset = step_offset((layer * op.rows + start) / kStepRows, op.columns) +
                             chunk_offset(feature, threadIdx.y);
      store_chunk<form>(op.high + offset, op.low + offset, x);
    }
  }
}

// --- Panels -> result. A block has a square part of a tile; the panels always in the same order.

constexpr int kMergedSide = 32;
constexpr int kMergedRows = 8;  // that a block's threads have at a time

template <typename T>
__global__ void __launch_bounds__(kMergedSide* kMergedRows)
    merge_panels(const __grid_constant__ Merge op) {
  __shared__ double mirrored[kMergedSide][kMergedSide + 1];
  const int across = op.width / kMergedSide, parts = op.height / kMergedSide * across;
  const int64_t tile = blockIdx.x / parts, layer = blockIdx.y;
  const int top = blockIdx.x % parts / across * kMergedSide;
  const int left = blockIdx.x % across * kMergedSide;
  const int64_t i0 = static_cast<int64_t>(op.tiles[2 * tile]) * op.height + top;
  const int64_t j0 = static_cast<int64_t>(op.tiles[2 * tile + 1]) * op.width + left;
  if (op.symmetric && j0 > i0) return;
  const int64_t area = static_cast<int64_t>(op.height) * op.width;
  const T* partial = static_cast<const T*>(op.partial);
  double* out = op.out + layer * op.layer_stride;
  const int64_t j = j0 + threadIdx.x;
#pragma unroll
  for (int part = 0; part < kMergedSide; part += kMergedRows) {
    const int row = part + threadIdx.y;
    const int64_t i = i0 + row;
    double total = 0;
    for (int64_t panel = layer * op.n_panels; panel < (layer + 1) * op.n_panels; ++panel) {
      const T product =
          partial[(panel * op.n_tiles + tile) * area + (top + row) * op.width + left + threadIdx.x];
      total +=
          product * op.x_scale[panel * op.x_columns + i] * op.y_scale[panel * op.y_columns + j];
    }
    if (i < op.n_rows && j < op.n_columns && !(op.symmetric && j > i)) {
      double& entry = out[i * op.row_stride + j * op.column_stride];
      total = op.add ? entry + total : total;
      entry = total;
    }
    mirrored[row][threadIdx.x] = total;
  }
  if (!op.symmetric) return;
  __syncthreads();
  const int64_t i = i0 + threadIdx.x;
  for (int row = threadIdx.y; row < kMergedSide; row += kMergedRows)
    if (i < op.n_rows && i > j0 + row)
      out[(j0 + row) * op.row_stride + i * op.column_stride] = mirrored[threadIdx.x][row];
}

// --- Launches.

// Only sm_90a has wgmma. What is compiled for others is not launched, and would stop the program.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define FASTINN_SM90A(...) __VA_ARGS__
#else
#define FASTINN_SM90A(...) __trap();
#endif

template <bool split>
__global__ void __launch_bounds__(kThreads, 1) multiply_tiles(const __grid_constant__ Products op) {
  extern __shared__ char shared_memory[];
  FASTINN_SM90A((run_block<split>(op, shared_memory));)
}

struct Device {
  int capability = 0;
  int processors = 0;
};

cudaError_t current(Device& device) {
  int number = 0;
  cudaError_t status = cudaGetDevice(&number);
  if (status == cudaSuccess)
    status = cudaDeviceGetAttribute(&device.capability, cudaDevAttrComputeCapabilityMajor, number);
  if (status == cudaSuccess)
    status = cudaDeviceGetAttribute(&device.processors, cudaDevAttrMultiProcessorCount, number);
  return status;
}

template <bool split>
int multiply_halves(const Products& op, void* stream) {
  Device device;
  cudaError_t status = current(device);
  if (status != cudaSuccess) return status;
  const int64_t works = n_works(op);
  const bool sm90 = device.capability == 9;
  const auto kernel = sm90 ? multiply_tiles<split> : portable::multiply<split>;
  const int bytes = sm90 ? kSharedBytes : (split ? 2 : 1) * portable::kOperandBytes;
  const auto blocks =
      static_cast<unsigned>(sm90 && device.processors < works ? device.processors : works);
  status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (status != cudaSuccess) return status;
  kernel<<<blocks, sm90 ? kThreads : portable::kThreads, bytes,
           static_cast<cudaStream_t>(stream)>>>(op);
  return cudaGetLastError();
}

template <Form form, typename T>
int launch_stage(const Stage& op, void* stream) {
  const auto blocks =
      static_cast<unsigned>(op.columns / kWarp * ceil_div(op.rows, op.panel) * op.n_layers);
  stage_panel<form, T>
      <<<blocks, dim3(kWarp, kStageWarps), 0, static_cast<cudaStream_t>(stream)>>>(op);
  return cudaGetLastError();
}

template <typename T>
int stage_rows(Form form, const Stage& op, void* stream) {
  switch (form) {
    case Form::real: return launch_stage<Form::real, T>(op, stream);
    case Form::split: return launch_stage<Form::split, T>(op, stream);
    default: return launch_stage<Form::single, T>(op, stream);
  }
}

}  // namespace

int stage(Form form, const Stage& op, void* stream) {
  switch (op.source.element) {
    case Element::float16: return stage_rows<__half>(form, op, stream);
    case Element::bfloat16: return stage_rows<__nv_bfloat16>(form, op, stream);
    case Element::float32: return stage_rows<float>(form, op, stream);
    default: return launch_stage<Form::real, double>(op, stream);
  }
}

int multiply(Form form, const Products& op, void* stream) {
  switch (form) {
    case Form::split: return multiply_halves<true>(op, stream);
    case Form::single: return multiply_halves<false>(op, stream);
    default:
      portable::multiply_real<<<static_cast<unsigned>(n_works(op)),
                                portable::kRealSide * portable::kRealSide, 0,
                                static_cast<cudaStream_t>(stream)>>>(op);
      return cudaGetLastError();
  }
}

int merge(Form form, const Merge& op, void* stream) {
  const int parts = op.height * op.width / (kMergedSide * kMergedSide);
  const dim3 blocks(static_cast<unsigned>(op.n_tiles * parts), static_cast<unsigned>(op.n_layers));
  const auto kernel = form == Form::real ? merge_panels<double> : merge_panels<float>;
  kernel<<<blocks, dim3(kMergedSide, kMergedRows), 0, static_cast<cudaStream_t>(stream)>>>(op);
  return cudaGetLastError();
}

}  // namespace panels
}  // namespace fastinn
