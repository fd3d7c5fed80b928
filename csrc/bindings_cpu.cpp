// fastinn._cpu: CPU kernels on memory that Python owns.
#include <pybind11/pybind11.h>

#include <string>

#include "affine_coupling/bindings.h"
#include "common/bfloat16.h"
#include "common/isa.h"
#include "coupling_mlp/bindings.h"
#include "second_moments/bindings.h"

#if defined(FASTINN_HAS_BFLOAT16)
#include "coupling_mlp/tiled_bindings.h"
#endif

namespace py = pybind11;

namespace fastinn {
namespace {

Isa chosen_isa = best_isa();

py::list supported_isas() {
  py::list names;
  for (int isa = 0; isa <= static_cast<int>(best_isa()); ++isa) names.append(kIsaNames[isa]);
  return names;
}

void use_isa(const std::string& name) {
  for (int isa = 0; isa <= static_cast<int>(best_isa()); ++isa)
    if (name == kIsaNames[isa]) {
      chosen_isa = static_cast<Isa>(isa);
      return;
    }
  throw py::value_error("this CPU or build has no instruction set named " + name);
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = FASTINN_COMPILER;
  info["isa"] = kIsaNames[static_cast<int>(chosen_isa)];
  return info;
}

struct Cpu {
  using BFloat16 = fastinn::BFloat16;

  template <Direction direction, typename T>
  static void run(const Coupling<T>& op) {
    with_isa(chosen_isa, [&](auto isa) { affine_coupling_cpu<isa, direction>(op); });
  }

  template <Direction direction, typename T>
  static void run(const CouplingGradient<T>& op) {
    with_isa(chosen_isa, [&](auto isa) { affine_coupling_backward_cpu<isa, direction>(op); });
  }

  template <typename Function>
  static void with_operand(const std::string& dtype, Function&& function) {
    dtype == "bfloat16" ? function(BFloat16{}) : with_dtype(dtype, function);
  }

  template <Activation activation, typename P, typename S>
  static void run(const Hidden<P, S>& op) {
    with_isa(chosen_isa, [&](auto isa) { hidden_cpu<isa, activation>(op); });
  }

  template <Activation activation, typename P, typename S>
  static void run(const HiddenGradient<P, S>& op) {
    with_isa(chosen_isa, [&](auto isa) { hidden_backward_cpu<isa, activation>(op); });
  }

  template <Direction direction, typename P>
  static void run(const MlpCoupling<P>& op) {
    with_isa(chosen_isa, [&](auto isa) { mlp_coupling_cpu<isa, direction>(op); });
  }

  template <Direction direction, typename P>
  static void run(const MlpCouplingGradient<P>& op) {
    with_isa(chosen_isa, [&](auto isa) { mlp_coupling_backward_cpu<isa, direction>(op); });
  }

  template <typename T>
  static void run(const SecondMoments& op) {
    with_isa(chosen_isa, [&](auto isa) { second_moments_cpu<isa, T>(op); });
  }

#if defined(FASTINN_HAS_BFLOAT16)
  template <Direction direction>
  static void run(const TiledCoupling& op) {
    with_bfloat16_isa(chosen_isa, [&](auto isa) { tiled_coupling_cpu<isa, direction>(op); });
  }

  template <Direction direction>
  static void run(const TiledGradient& op) {
    with_bfloat16_isa(chosen_isa, [&](auto isa) { tiled_gradient_cpu<isa, direction>(op); });
  }
#endif
};

}  // namespace
}  // namespace fastinn

PYBIND11_MODULE(_cpu, m) {
  using namespace fastinn;
  m.def("build_info", &build_info);
  m.def("supported_isas", &supported_isas);
  m.def("use_isa", &use_isa);
  bind_affine_coupling<Cpu>(m);
  bind_coupling_mlp<Cpu>(m);
  bind_second_moments<Cpu>(m);
#if defined(FASTINN_HAS_BFLOAT16)
  bind_tiled_coupling<Cpu>(m);
  bind_tiled_gradient<Cpu>(m);
#endif
}
