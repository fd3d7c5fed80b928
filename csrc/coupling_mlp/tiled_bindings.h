// The Python side of coupling layers on matrix tiles.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <vector>

#include "common/bfloat16.h"
#include "coupling_mlp/bindings.h"
#include "coupling_mlp/tiled_coupling.h"
#include "coupling_mlp/tiled_gradient.h"

namespace fastinn {

// Addresses of weight and bias, widths of what goes in and out, address of what is kept of it.
using PackedLinear = std::tuple<Address, Address, int64_t, int64_t, Address>;

inline std::vector<LinearLayer> linear_layers(const std::vector<PackedLinear>& packed) {
  std::vector<LinearLayer> layers;
  for (const auto& [weight, bias, n_in, n_out, pre] : packed)
    layers.push_back({pointer<const float>(weight), pointer<const float>(bias), n_in, n_out,
                      pointer<BFloat16>(pre)});
  return layers;
}

// Addresses of the weight, of what went into the activation and of both gradients; widths.
using PackedGradient = std::tuple<Address, int64_t, int64_t, Address, Address, Address>;

inline std::vector<LinearGradient> linear_gradients(const std::vector<PackedGradient>& packed) {
  std::vector<LinearGradient> layers;
  for (const auto& [weight, n_in, n_out, pre, grad_weight, grad_bias] : packed)
    layers.push_back({pointer<const float>(weight), n_in, n_out, pointer<const BFloat16>(pre),
                      pointer<float>(grad_weight), pointer<float>(grad_bias)});
  return layers;
}

template <typename Cpu>
void bind_tiled_gradient(pybind11::module_& m) {
  m.def("coupling_mlp_tiled_backward",
        [](bool inverse, const std::string& activation, int64_t n_networks,
           const std::vector<PackedGradient>& linears, int64_t n_samples, int64_t n_kept,
           int64_t n_moved, const Strided& kept, const Strided& grad_kept_output,
           const Strided& grad_kept, const Strided& grad_output, const Strided& grad_log_det,
           const Strided& known, Address log_scale, double clamp, double eps,
           const Strided& grad_input) {
          pybind11::gil_scoped_release release;
          const MlpCouplingGradient<float> coupling{n_samples,
                                                    n_moved,
                                                    matrix<const float>(grad_output),
                                                    matrix<const float>(grad_log_det),
                                                    matrix<const float>(known),
                                                    pointer<const float>(log_scale),
                                                    {nullptr, nullptr},
                                                    static_cast<float>(clamp),
                                                    static_cast<float>(eps),
                                                    {nullptr, 0, 0},
                                                    matrix<float>(grad_input),
                                                    nullptr};
          with_activation(activation, [&](auto a) {
            const TiledGradient op{a.value,
                                   n_networks,
                                   linear_gradients(linears),
                                   n_kept,
                                   matrix<const float>(kept),
                                   matrix<const float>(grad_kept_output),
                                   matrix<float>(grad_kept),
                                   coupling};
            inverse ? Cpu::template run<Direction::inverse>(op)
                    : Cpu::template run<Direction::forward>(op);
          });
        });
}

template <typename Cpu>
void bind_tiled_coupling(pybind11::module_& m) {
  m.def("coupling_mlp_tiled",
        [](bool inverse, const std::string& activation, int64_t n_networks,
           const std::vector<PackedLinear>& linears, int64_t n_samples, int64_t n_kept,
           int64_t n_moved, const Strided& kept, const Strided& moved, double clamp, double eps,
           const Strided& kept_output, const Strided& moved_output, Address log_det,
           Address log_scale) {
          pybind11::gil_scoped_release release;
          const std::vector<LinearLayer> layers = linear_layers(linears);
          const MlpCoupling<float> coupling{n_samples,
                                            n_kept,
                                            n_moved,
                                            {nullptr, layers.back().bias},
                                            matrix<const float>(kept),
                                            matrix<const float>(moved),
                                            static_cast<float>(clamp),
                                            static_cast<float>(eps),
                                            matrix<float>(kept_output),
                                            matrix<float>(moved_output),
                                            pointer<float>(log_det),
                                            pointer<float>(log_scale)};
          with_activation(activation, [&](auto a) {
            const TiledCoupling op{a.value, n_networks, layers, coupling};
            inverse ? Cpu::template run<Direction::inverse>(op)
                    : Cpu::template run<Direction::forward>(op);
          });
        });
}

}  // namespace fastinn
