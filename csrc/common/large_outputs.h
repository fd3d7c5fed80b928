// Writing outputs that do not fit in the cache. CPU only; internal linkage: see vector_math.h.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastinn {
namespace {

// Smaller outputs are likely to be read again while they are still in the cache.
constexpr int64_t kLarge = int64_t{32} << 20;

inline bool is_large(int64_t bytes) { return bytes >= kLarge; }

// Asks for the memory in huge pages, as far as it holds whole ones.
inline void prefer_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t huge_page = uintptr_t{2} << 20;
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (address + huge_page - 1) / huge_page * huge_page;
  const uintptr_t last = (address + static_cast<uintptr_t>(bytes)) / huge_page * huge_page;
  // A hint: kernels that do not know it refuse, and nothing else changes.
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// A fresh output of this size is unmapped memory; faulting it in by 4 KiB pages costs more than
// writing it.
inline void expect_large_output(void* data, int64_t bytes) {
  if (is_large(bytes)) prefer_huge_pages(data, bytes);
}

// Copies past the cache, which would first read the lines that are about to be overwritten. Call
// stream_fence before another thread reads `out`.
template <typename T>
void stream(const T* values, int64_t n, T* out) {
#if defined(__SSE2__)
  constexpr int64_t width = sizeof(__m128i) / sizeof(T);
  int64_t i = 0;
  for (; i < n && reinterpret_cast<uintptr_t>(out + i) % sizeof(__m128i) != 0; ++i)
    out[i] = values[i];
  for (; i + width <= n; i += width)
    _mm_stream_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + i)));
  for (; i < n; ++i) out[i] = values[i];
#else
  std::memcpy(out, values, static_cast<size_t>(n) * sizeof(T));
#endif
}

inline void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace
}  // namespace fastinn
