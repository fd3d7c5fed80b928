// The Python side of the fused coupling layer.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <vector>

#include "common/bindings.h"
#include "coupling_mlp/bindings.h"
#include "coupling_mlp/fused_coupling.h"

namespace fastinn {
namespace fused {

using Columns = std::tuple<int, int, int>;                   // first, step, how many
using LinearLayer = std::tuple<Strided, Address, int, int>;  // weight, bias, outputs, inputs

inline Half half_of(const Columns& columns) {
  return {std::get<0>(columns), std::get<1>(columns), std::get<2>(columns)};
}

inline Network network_of(const std::vector<LinearLayer>& layers) {
  Network network{};
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& [weight, bias, n_outputs, n_inputs] = layers[i];
    network.layers[i] = {matrix<const float>(weight), pointer<const float>(bias), n_outputs,
                         n_inputs};
  }
  return network;
}

}  // namespace fused

template <typename Processor, typename... Where>
void bind_fused_coupling(pybind11::module_& m) {
  using namespace fused;
  // Bytes that packed weights take; 0: there is no fused kernel for these widths.
  m.def("fused_coupling_bytes", [](int n_kept, int n_moved, const std::vector<int>& hidden) {
    const Plan plan = make_plan(n_kept, n_moved, static_cast<int>(hidden.size()), hidden.data());
    return plan.width == 0 ? int64_t{0} : packed_bytes(plan);
  });
  m.def("fused_coupling", [](bool inverse, const std::string& activation, int64_t n_samples,
                             int64_t n_features, const Columns& kept, const Columns& moved,
                             const std::vector<LinearLayer>& layers, double clamp, double eps,
                             Address input, Address output, Address log_det, Address packed,
                             Where... where) {
    pybind11::gil_scoped_release release;
    std::vector<int> hidden;
    for (size_t i = 0; i + 1 < layers.size(); ++i) hidden.push_back(std::get<2>(layers[i]));
    FusedCoupling op{};
    op.kept = half_of(kept);
    op.moved = half_of(moved);
    op.plan = make_plan(op.kept.n, op.moved.n, static_cast<int>(hidden.size()), hidden.data());
    if (op.plan.width == 0) throw std::invalid_argument("no fused kernel for these widths");
    op.n_samples = n_samples;
    op.n_features = n_features;
    op.input = pointer<const float>(input);
    op.output = pointer<float>(output);
    op.log_det = pointer<float>(log_det);
    op.clamp = static_cast<float>(clamp);
    op.eps = static_cast<float>(eps);
    with_activation(activation, [&](auto a) { op.activation = a.value; });
    Processor::run(inverse ? Direction::inverse : Direction::forward,
                   prepared(op, pointer<char>(packed)), network_of(layers), pointer<char>(packed),
                   where...);
  });
}

}  // namespace fastinn
