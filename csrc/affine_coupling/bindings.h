// The Python side of the coupling kernels, the same for every processor.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "affine_coupling/affine_coupling.h"
#include "common/bindings.h"

namespace fastinn {

// `Processor::run<direction>(op, where...)` computes; `Where` is what it needs to know beyond the
// tensors (nothing on the CPU, a device and a stream with CUDA).
template <typename Processor, typename... Where>
void bind_affine_coupling(pybind11::module_& m) {
  m.def("affine_coupling",
        [](bool inverse, const std::string& dtype, int64_t n_samples, int64_t n_features,
           const Strided& input, const Strided& shift, const Strided& log_scale, double clamp,
           double eps, Address output, Address log_det, Where... where) {
          pybind11::gil_scoped_release release;
          with_dtype(dtype, [&](auto zero) {
            using T = decltype(zero);
            const Coupling<T> op{n_samples,
                                 n_features,
                                 matrix<const T>(input),
                                 matrix<const T>(shift),
                                 matrix<const T>(log_scale),
                                 static_cast<T>(clamp),
                                 static_cast<T>(eps),
                                 pointer<T>(output),
                                 pointer<T>(log_det)};
            inverse ? Processor::template run<Direction::inverse>(op, where...)
                    : Processor::template run<Direction::forward>(op, where...);
          });
        });
  m.def("affine_coupling_backward",
        [](bool inverse, const std::string& dtype, int64_t n_samples, int64_t n_features,
           const Strided& grad_output, const Strided& grad_log_det, const Strided& x,
           const Strided& log_scale, double clamp, double eps, Address grad_input,
           Address grad_log_scale, Address grad_shift, Where... where) {
          pybind11::gil_scoped_release release;
          with_dtype(dtype, [&](auto zero) {
            using T = decltype(zero);
            const CouplingGradient<T> op{n_samples,
                                         n_features,
                                         matrix<const T>(grad_output),
                                         matrix<const T>(grad_log_det),
                                         matrix<const T>(x),
                                         matrix<const T>(log_scale),
                                         static_cast<T>(clamp),
                                         static_cast<T>(eps),
                                         pointer<T>(grad_input),
                                         pointer<T>(grad_log_scale),
                                         pointer<T>(grad_shift)};
            inverse ? Processor::template run<Direction::inverse>(op, where...)
                    : Processor::template run<Direction::forward>(op, where...);
          });
        });
}

}  // namespace fastinn
