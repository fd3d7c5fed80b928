// What goes wrong in a thread of a parallel region, such as memory that runs out: an exception that
// left the region would end the process. CPU only; internal linkage: see vector_math.h.
#pragma once

#include <exception>

namespace fastinn {
namespace {

class Failure {
 public:
  // Calls `function` and keeps what it throws, the first of all threads.
  template <typename Function>
  void watch(Function&& function) {
    try {
      function();
    } catch (...) {
#pragma omp critical(fastinn_failure)
      if (!first_) first_ = std::current_exception();
    }
  }

  // Whether anything was thrown; threads agree behind a barrier.
  explicit operator bool() const { return first_ != nullptr; }

  // Throws it, behind the region.
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::exception_ptr first_;
};

}  // namespace
}  // namespace fastinn
