// Run-time choice between the instruction sets that the CPU kernels are compiled for.
#pragma once

#include <stdexcept>
#include <type_traits>

#if defined(FASTINN_HAS_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastinn {

// In ascending order: a CPU that has one has all before it.
enum class Isa { baseline, avx2, avx512, avx512_bf16, amx };

constexpr const char* kIsaNames[] = {"baseline", "avx2", "avx512", "avx512_bf16", "amx"};

#if defined(FASTINN_HAS_AMX)
// Whether this CPU has matrix tiles for bfloat16 and the system lets this process use them.
inline bool has_amx() {
  constexpr unsigned bfloat16_tiles = 1u << 22, tiles = 1u << 24;
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if (!(d & bfloat16_tiles) || !(d & tiles)) return false;
  // Tiles are large, so Linux saves them only for processes that ask it to.
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

// The best instruction set that this CPU has.
inline Isa best_isa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
#if defined(FASTINN_HAS_BFLOAT16)
    if (__builtin_cpu_supports("avx512bf16")) {
#if defined(FASTINN_HAS_AMX)
      if (has_amx()) return Isa::amx;
#endif
      return Isa::avx512_bf16;
    }
#endif
    return Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return Isa::avx2;
#endif
  return Isa::baseline;
}

// Calls `kernel` with the instruction set as a type, std::integral_constant<Isa, ...>.
template <typename Kernel>
void with_isa(Isa isa, Kernel&& kernel) {
  switch (isa) {
#if defined(FASTINN_HAS_AMX)
    case Isa::amx: return kernel(std::integral_constant<Isa, Isa::amx>{});
#endif
#if defined(FASTINN_HAS_BFLOAT16)
    case Isa::avx512_bf16: return kernel(std::integral_constant<Isa, Isa::avx512_bf16>{});
#endif
#if defined(__x86_64__)
    case Isa::avx512: return kernel(std::integral_constant<Isa, Isa::avx512>{});
    case Isa::avx2: return kernel(std::integral_constant<Isa, Isa::avx2>{});
#endif
    default: return kernel(std::integral_constant<Isa, Isa::baseline>{});
  }
}

#if defined(FASTINN_HAS_BFLOAT16)
// The same for kernels that there are where bfloat16 pairs are multiplied, and nowhere else.
template <typename Kernel>
void with_bfloat16_isa(Isa isa, Kernel&& kernel) {
  switch (isa) {
#if defined(FASTINN_HAS_AMX)
    case Isa::amx: return kernel(std::integral_constant<Isa, Isa::amx>{});
#endif
    case Isa::avx512_bf16: return kernel(std::integral_constant<Isa, Isa::avx512_bf16>{});
    default: throw std::invalid_argument("the instruction set in use has no bfloat16 products");
  }
}
#endif

}  // namespace fastinn
