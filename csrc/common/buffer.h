// Memory of a kernel's own, aligned for its vectors. CPU only; internal linkage: see vector_math.h.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "common/large_outputs.h"

namespace fastinn {
namespace {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Operands of products are read through more pages than the processor keeps translations of.
constexpr int64_t kManyPages = int64_t{2} << 20;

template <typename T>
struct Free {
  void operator()(T* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};

template <typename T>
using Buffer = std::unique_ptr<T[], Free<T>>;

template <typename T>
Buffer<T> allocate(int64_t n) {
  Buffer<T> buffer(static_cast<T*>(::operator new[](n * sizeof(T), std::align_val_t(64))));
  const auto bytes = static_cast<int64_t>(n * sizeof(T));
  if (bytes >= kManyPages) prefer_huge_pages(buffer.get(), bytes);
  return buffer;
}

}  // namespace
}  // namespace fastinn
