// Run-time choice between the instruction sets that the CPU kernels are compiled for.
#pragma once

#include <type_traits>

namespace fastinn {

// In ascending order: a CPU that has one has all before it.
enum class Isa { baseline, avx2, avx512 };

constexpr const char* kIsaNames[] = {"baseline", "avx2", "avx512"};

// The best instruction set that this CPU has.
inline Isa best_isa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::avx512;
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
#if defined(__x86_64__)
    case Isa::avx512: return kernel(std::integral_constant<Isa, Isa::avx512>{});
    case Isa::avx2: return kernel(std::integral_constant<Isa, Isa::avx2>{});
#endif
    default: return kernel(std::integral_constant<Isa, Isa::baseline>{});
  }
}

}  // namespace fastinn
