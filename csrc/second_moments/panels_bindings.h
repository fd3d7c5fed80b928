// The Python side of the three steps that CUDA computes second moments in.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <tuple>

#include "second_moments/bindings.h"
#include "second_moments/panels.h"

namespace fastinn {

inline panels::Form form_named(const std::string& form) {
  if (form == "double") return panels::Form::real;
  if (form == "split") return panels::Form::split;
  if (form == "single") return panels::Form::single;
  throw pybind11::value_error("no rows are staged as " + form);
}

// Addresses of `high`, `low` and `scale`, and columns.
using PackedStaged = std::tuple<Address, Address, Address, int64_t>;

inline panels::Side side_of(const PackedStaged& staged) {
  const auto& [high, low, scale, columns] = staged;
  return {pointer<const char>(high), pointer<const char>(low), columns};
}

// Address, strides of layer, row and column, and numbers of rows and columns.
using PackedResult = std::tuple<Address, int64_t, int64_t, int64_t, int64_t, int64_t>;

// `Processor::run(step, form, op, device, stream)` launches.
template <typename Processor>
void bind_panels(pybind11::module_& m) {
  m.def("second_moments_stage", [](const std::string& form, int64_t n_layers, int64_t n_rows,
                                   const PackedRows& source, Address root, int64_t rows,
                                   int64_t panel, const PackedStaged& staged, int device,
                                   Address stream) {
    const auto& [high, low, scale, columns] = staged;
    const panels::Stage op{
        n_layers, n_rows, rows_of(source),     pointer<const double>(root), rows,
        columns,  panel,  pointer<char>(high), pointer<char>(low),          pointer<double>(scale)};
    Processor::run(panels::stage, form_named(form), op, device, stream);
  });
  m.def("second_moments_multiply", [](const std::string& form, int64_t n_layers, int64_t rows,
                                      int64_t panel, const PackedStaged& x, const PackedStaged& y,
                                      Address tiles, int64_t n_tiles, Address partial, int device,
                                      Address stream) {
    const panels::Products op{side_of(x), side_of(y), pointer<const int>(tiles), n_layers, n_tiles,
                              rows,       panel,      pointer<void>(partial)};
    Processor::run(panels::multiply, form_named(form), op, device, stream);
  });
  m.def("second_moments_merge",
        [](const std::string& form, int64_t n_layers, int64_t n_panels, const PackedStaged& x,
           const PackedStaged& y, Address tiles, int64_t n_tiles, int height, int width,
           Address partial, const PackedResult& result, bool symmetric, bool add, int device,
           Address stream) {
          const auto& [out, layer_stride, row_stride, column_stride, n_rows, n_columns] = result;
          const panels::Merge op{pointer<const double>(std::get<2>(x)),
                                 pointer<const double>(std::get<2>(y)),
                                 std::get<3>(x),
                                 std::get<3>(y),
                                 pointer<const int>(tiles),
                                 n_layers,
                                 n_panels,
                                 n_tiles,
                                 height,
                                 width,
                                 pointer<const void>(partial),
                                 pointer<double>(out),
                                 layer_stride,
                                 row_stride,
                                 column_stride,
                                 n_rows,
                                 n_columns,
                                 symmetric,
                                 add};
          Processor::run(panels::merge, form_named(form), op, device, stream);
        });
}

}  // namespace fastinn
