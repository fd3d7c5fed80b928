// The Hopper (sm_90a) instructions that kernels here use, one function each: barriers in shared
// memory, bulk copies, the asynchronous matrix product of a warpgroup, register reallocation.
// Nothing else in csrc/ has inline assembly, so that a kernel can be run on the host with these
// functions emulated (tests/ops/sm90_emulator).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace fastinn {
namespace sm90 {

constexpr int kWarp = 32;
constexpr int kWarpgroup = 4 * kWarp;

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// --- Barriers in shared memory. A barrier completes a phase when all arrivals of its count are in
// and all announced bytes have landed; waiting is for the phase of the given parity to be over.

__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised barriers visible to the copy engine; the other threads need a __syncthreads().
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and announces bytes that copies will bring.
__device__ __forceinline__ void barrier_arrive_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ bool barrier_try_wait(uint32_t barrier, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
      "selp.u32 %0, 1, 0, over;\n"
      "}"
      : "=r"(over)
      : "r"(barrier), "r"(parity)
      : "memory");
  return over;
}

__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  while (!barrier_try_wait(barrier, parity)) {
  }
}

// --- Copies by the copy engine; addresses and sizes are multiples of 16 bytes.

__device__ __forceinline__ void bulk_copy(uint32_t to, const void* from, uint32_t bytes,
                                          uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// A hint: brings global memory into the L2 cache.
__device__ __forceinline__ void bulk_prefetch(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

// Ordinary writes to shared memory become visible to the matrix units and the copy engine. Every
// writing thread calls it before the barrier that the readers wait at.
__device__ __forceinline__ void async_proxy_fence() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// --- Within a warpgroup.

// Named barrier `id` (0 is __syncthreads()) of the 128 threads of a warpgroup.
__device__ __forceinline__ void warpgroup_sync(int id) {
  asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory");
}

template <int registers>
__device__ __forceinline__ void release_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers>
__device__ __forceinline__ void claim_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// Stores four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix
// l / 8 and holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of each.
__device__ __forceinline__ void store_matrices(uint32_t row, uint32_t a, uint32_t b, uint32_t c,
                                               uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

__device__ __forceinline__ void store_word(uint32_t address, uint32_t word) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}

__device__ __forceinline__ float shuffle_xor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// --- Arithmetic.

// Two values rounded to float16, the first in the low half.
__device__ __forceinline__ uint32_t halves_of(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// Two units in the last place.
__device__ __forceinline__ float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// One unit in the last place.
__device__ __forceinline__ float reciprocal_approx(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// --- The matrix product of a warpgroup, sums (64 x n) += A (64 x 16) B (n x 16)^T, float16
// operands in shared memory, float32 sums in registers. Thread t of the warpgroup, lane l of warp
// w, has in sums[4 j + i] row 16 w + l / 4 + 8 (i / 2), column 8 j + 2 (l % 4) + i % 2.

// Before the products of a stage: what touched their sums before is done.
__device__ __forceinline__ void product_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Closes a group of products.
__device__ __forceinline__ void product_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most `pending` groups of products are left.
template <int pending>
__device__ __forceinline__ void product_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Keeps the compiler from moving uses of the sums across a wait that it cannot connect with them.
template <int n>
__device__ __forceinline__ void pin(float (&sums)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

#define FASTINN_SUMS_4(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define FASTINN_SUMS_16(i) \
  FASTINN_SUMS_4(i), FASTINN_SUMS_4(i + 4), FASTINN_SUMS_4(i + 8), FASTINN_SUMS_4(i + 12)
#define FASTINN_SUMS_64(i) \
  FASTINN_SUMS_16(i), FASTINN_SUMS_16(i + 16), FASTINN_SUMS_16(i + 32), FASTINN_SUMS_16(i + 48)
#define FASTINN_SUMS_96(i) FASTINN_SUMS_64(i), FASTINN_SUMS_16(i + 64), FASTINN_SUMS_16(i + 80)
#define FASTINN_SUMS_128(i) FASTINN_SUMS_64(i), FASTINN_SUMS_64(i + 64)

// clang-format off
#define FASTINN_NAMES_64                                                                          \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
  "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,"  \
  "%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define FASTINN_NAMES_96                                                                          \
  FASTINN_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82," \
  "%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define FASTINN_NAMES_128                                                                         \
  FASTINN_NAMES_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111," \
  "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
// clang-format on

// The names of the operands follow those of the sums.
#define FASTINN_PRODUCT(n, n_sums, a_name, b_name)                                      \
  asm volatile(                                                                         \
      "{\n"                                                                             \
      ".reg .pred accumulate;\n"                                                        \
      "setp.eq.u32 accumulate, 0, 0;\n"                                                 \
      "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.f16.f16 {" FASTINN_NAMES_##n_sums \
      "}, " a_name ", " b_name                                                          \
      ", accumulate, 1, 1, 0, 0;\n"                                                     \
      "}"                                                                               \
      : FASTINN_SUMS_##n_sums(0)                                                        \
      : "l"(a), "l"(b))

template <int n>
__device__ __forceinline__ void product(float* sums, uint64_t a, uint64_t b) {
  static_assert(n == 128 || n == 192 || n == 256, "no instruction for this width");
  if constexpr (n == 128) FASTINN_PRODUCT(128, 64, "%64", "%65");
  if constexpr (n == 192) FASTINN_PRODUCT(192, 96, "%96", "%97");
  if constexpr (n == 256) FASTINN_PRODUCT(256, 128, "%128", "%129");
}

#undef FASTINN_PRODUCT
#undef FASTINN_NAMES_128
#undef FASTINN_NAMES_96
#undef FASTINN_NAMES_64
#undef FASTINN_SUMS_128
#undef FASTINN_SUMS_96
#undef FASTINN_SUMS_64
#undef FASTINN_SUMS_16
#undef FASTINN_SUMS_4

}  // namespace sm90
}  // namespace fastinn
