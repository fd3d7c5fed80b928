// The Python side of what a coupling layer does between its products, for every processor.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "common/bindings.h"
#include "coupling_mlp/coupling_mlp.h"

namespace fastinn {

template <Activation value>
using ActivationConstant = std::integral_constant<Activation, value>;

// Calls `function` with the activation of that name as a type.
template <typename Function>
void with_activation(const std::string& name, Function&& function) {
  if (name == "relu") return function(ActivationConstant<Activation::relu>{});
  if (name == "selu") return function(ActivationConstant<Activation::selu>{});
  if (name == "gelu") return function(ActivationConstant<Activation::gelu>{});
  if (name == "silu") return function(ActivationConstant<Activation::silu>{});
  throw pybind11::value_error("no activation named " + name);
}

// Calls `function` with zeros of the type of operands and of the type in which what goes into an
// activation is kept: that of operands, or 16 bits in the place of float32 or of other 16 bits.
template <typename Processor, typename Function>
void with_kept(const std::string& dtype, const std::string& kept_dtype, Function&& function) {
  Processor::with_operand(dtype, [&](auto operand) {
    if (kept_dtype == dtype) return function(operand, operand);
    if constexpr (!std::is_same_v<decltype(operand), double>)
      if (kept_dtype == "bfloat16") return function(operand, typename Processor::BFloat16{});
    throw pybind11::type_error("no kernel that keeps " + kept_dtype + " of " + dtype);
  });
}

// `Processor::with_operand(dtype, f)` calls f with a zero of the type of operands that `dtype`
// names, `Processor::run<activation or direction>(op, where...)` computes; see
// affine_coupling/bindings.h.
template <typename Processor, typename... Where>
void bind_coupling_mlp(pybind11::module_& m) {
  m.def("coupling_mlp_hidden", [](const std::string& activation, const std::string& dtype,
                                  const std::string& kept_dtype, int64_t n_samples,
                                  int64_t n_features, Address post, Address bias, Address pre,
                                  Where... where) {
    pybind11::gil_scoped_release release;
    with_kept<Processor>(dtype, kept_dtype, [&](auto operand, auto kept) {
      using P = decltype(operand);
      using S = decltype(kept);
      const Hidden<P, S> op{n_samples, n_features, pointer<P>(post),
                            pointer<const Arithmetic<P>>(bias), pointer<S>(pre)};
      with_activation(activation, [&](auto a) { Processor::template run<a.value>(op, where...); });
    });
  });
  m.def("coupling_mlp_hidden_backward",
        [](const std::string& activation, const std::string& dtype, const std::string& kept_dtype,
           int64_t n_elements, Address pre, Address grad, Address post, Where... where) {
          pybind11::gil_scoped_release release;
          with_kept<Processor>(dtype, kept_dtype, [&](auto operand, auto kept) {
            using P = decltype(operand);
            using S = decltype(kept);
            const HiddenGradient<P, S> op{n_elements, pointer<const S>(pre), pointer<P>(grad),
                                          pointer<P>(post)};
            with_activation(activation,
                            [&](auto a) { Processor::template run<a.value>(op, where...); });
          });
        });
  m.def("coupling_mlp_couple",
        [](bool inverse, const std::string& dtype, int64_t n_samples, int64_t n_kept,
           int64_t n_moved, Address product, Address bias, const Strided& kept,
           const Strided& moved, double clamp, double eps, const Strided& kept_output,
           const Strided& moved_output, Address log_det, Address log_scale, Where... where) {
          pybind11::gil_scoped_release release;
          Processor::with_operand(dtype, [&](auto zero) {
            using P = decltype(zero);
            using T = Arithmetic<P>;
            const MlpCoupling<P> op{n_samples,
                                    n_kept,
                                    n_moved,
                                    {pointer<const P>(product), pointer<const T>(bias)},
                                    matrix<const T>(kept),
                                    matrix<const T>(moved),
                                    static_cast<T>(clamp),
                                    static_cast<T>(eps),
                                    matrix<T>(kept_output),
                                    matrix<T>(moved_output),
                                    pointer<T>(log_det),
                                    pointer<T>(log_scale)};
            inverse ? Processor::template run<Direction::inverse>(op, where...)
                    : Processor::template run<Direction::forward>(op, where...);
          });
        });
  m.def("coupling_mlp_couple_backward",
        [](bool inverse, const std::string& dtype, int64_t n_samples, int64_t n_moved,
           const Strided& grad_output, const Strided& grad_log_det, const Strided& known,
           Address log_scale, Address product, Address bias, double clamp, double eps,
           const Strided& input, const Strided& grad_input, Address grad_product, Where... where) {
          pybind11::gil_scoped_release release;
          Processor::with_operand(dtype, [&](auto zero) {
            using P = decltype(zero);
            using T = Arithmetic<P>;
            const MlpCouplingGradient<P> op{n_samples,
                                            n_moved,
                                            matrix<const T>(grad_output),
                                            matrix<const T>(grad_log_det),
                                            matrix<const T>(known),
                                            pointer<const T>(log_scale),
                                            {pointer<const P>(product), pointer<const T>(bias)},
                                            static_cast<T>(clamp),
                                            static_cast<T>(eps),
                                            matrix<T>(input),
                                            matrix<T>(grad_input),
                                            pointer<P>(grad_product)};
            inverse ? Processor::template run<Direction::inverse>(op, where...)
                    : Processor::template run<Direction::forward>(op, where...);
          });
        });
}

}  // namespace fastinn
