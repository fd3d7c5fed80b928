// fastinn._cuda: CUDA kernels on memory that Python owns. Imports without a driver: cudart is
// linked statically and nothing touches the device before a kernel is called.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "affine_coupling/bindings.h"
#include "coupling_mlp/bindings.h"
#include "coupling_mlp/fused_bindings.h"
#include "second_moments/panels_bindings.h"

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
  using BFloat16 = __nv_bfloat16;

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

  // Wider than float32 is left to the reference: products of float64 gain nothing here.
  template <typename Function>
  static void with_operand(const std::string& dtype, Function&& function) {
    if (dtype == "float32") return function(0.0f);
    if (dtype == "float16") return function(__half{});
    if (dtype == "bfloat16") return function(BFloat16{});
    throw py::type_error("no kernel for " + dtype + ", expected float32, float16 or bfloat16");
  }

  template <Activation activation, typename P, typename S>
  static void run(const Hidden<P, S>& op, int device, Address stream) {
    const DeviceGuard guard(device);
    check(hidden_cuda<activation>(op, pointer<void>(stream)));
  }

  template <Activation activation, typename P, typename S>
  static void run(const HiddenGradient<P, S>& op, int device, Address stream) {
    const DeviceGuard guard(device);
    check(hidden_backward_cuda<activation>(op, pointer<void>(stream)));
  }

  template <Direction direction, typename P>
  static void run(const MlpCoupling<P>& op, int device, Address stream) {
    const DeviceGuard guard(device);
    check(mlp_coupling_cuda<direction>(op, pointer<void>(stream)));
  }

  template <Direction direction, typename P>
  static void run(const MlpCouplingGradient<P>& op, int device, Address stream) {
    const DeviceGuard guard(device);
    check(mlp_coupling_backward_cuda<direction>(op, pointer<void>(stream)));
  }

  static void run(Direction direction, const fused::FusedCoupling& op,
                  const fused::Network& network, char* packed, int device, Address stream) {
    const DeviceGuard guard(device);
    check(fused::pack(op.plan, network, packed, pointer<void>(stream)));
    check(fused::run(direction, op, pointer<void>(stream)));
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
  bind_coupling_mlp<Cuda, int, Address>(m);
  bind_fused_coupling<Cuda, int, Address>(m);
  bind_panels<Cuda>(m);
}
