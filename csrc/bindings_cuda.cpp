// fastinn._cuda: CUDA kernels on memory that Python owns. Imports without a driver: cudart is
// linked statically and nothing touches the device before a kernel is called.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "affine_coupling/bindings.h"
#include "second_moments/bindings_cuda.h"

namespace py = pybind11;

namespace fastinn {
namespace {

void check(int status) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA: ") +
                           cudaGetErrorString(static_cast<cudaError_t>(status)));
}

// Makes `device` the current one for as long as it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_));
    check(cudaSetDevice(device));
  }
  ~DeviceGuard() { cudaSetDevice(previous_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
};

struct Cuda {
  template <Direction direction, typename T>
  static void run(const Coupling<T>& op, int device, Address stream) {
    const DeviceGuard guard(device);
    check(affine_coupling_cuda<direction>(op, pointer<void>(stream)));
  }

  template <Direction direction, typename T>
  static void run(const CouplingGradient<T>& op, int device, Address stream) {
    const DeviceGuard guard(device);
    check(affine_coupling_backward_cuda<direction>(op, pointer<void>(stream)));
  }

  template <typename Op>
  static void run(int (*step)(panels::Form, const Op&, void*), panels::Form form, const Op& op,
                  int device, Address stream) {
    const DeviceGuard guard(device);
    check(step(form, op, pointer<void>(stream)));
  }
};

py::dict build_info() {
  py::dict info;
  info["compiler"] = FASTINN_COMPILER;
  info["architectures"] = FASTINN_ARCHITECTURES;
  return info;
}

}  // namespace
}  // namespace fastinn

PYBIND11_MODULE(_cuda, m) {
  using namespace fastinn;
  m.def("build_info", &build_info);
  bind_affine_coupling<Cuda, int, Address>(m);
  bind_panels<Cuda>(m);
}
