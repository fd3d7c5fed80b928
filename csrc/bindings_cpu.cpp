// fastinn._cpu: CPU kernels on memory that Python owns.
#include <pybind11/pybind11.h>

#include <string>

#include "affine_coupling/bindings.h"
#include "common/isa.h"
#include "second_moments/bindings.h"

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
  template <Direction direction, typename T>
  static void run(const Coupling<T>& op) {
    with_isa(chosen_isa, [&](auto isa) { affine_coupling_cpu<isa, direction>(op); });
  }

  template <Direction direction, typename T>
  static void run(const CouplingGradient<T>& op) {
    with_isa(chosen_isa, [&](auto isa) { affine_coupling_backward_cpu<isa, direction>(op); });
  }

  template <typename T>
  static void run(const SecondMoments& op) {
    with_isa(chosen_isa, [&](auto isa) { second_moments_cpu<isa, T>(op); });
  }
};

}  // namespace
}  // namespace fastinn

PYBIND11_MODULE(_cpu, m) {
  using namespace fastinn;
  m.def("build_info", &build_info);
  m.def("supported_isas", &supported_isas);
  m.def("use_isa", &use_isa);
  bind_affine_coupling<Cpu>(m);
  bind_second_moments<Cpu>(m);
}
