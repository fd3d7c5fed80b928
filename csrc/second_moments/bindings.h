// The Python side of the second moments, the same for every processor.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <tuple>

#include "common/bindings.h"
#include "second_moments/second_moments.h"

namespace fastinn {

// Address, dtype, number of features, strides of batch, row and column, address of the shift.
using PackedRows = std::tuple<Address, std::string, int64_t, int64_t, int64_t, int64_t, Address>;

inline Element element_named(const std::string& dtype) {
  if (dtype == "float16") return Element::float16;
  if (dtype == "bfloat16") return Element::bfloat16;
  if (dtype == "float32") return Element::float32;
  if (dtype == "float64") return Element::float64;
  throw pybind11::type_error("no kernel for " + dtype + ", expected a floating-point dtype");
}

inline Rows rows_of(const PackedRows& rows) {
  const auto& [data, dtype, n_features, batch_stride, row_stride, column_stride, shift] = rows;
  return {pointer<const void>(data),
          element_named(dtype),
          n_features,
          batch_stride,
          row_stride,
          column_stride,
          pointer<const double>(shift)};
}

// `Processor::run<T>(op)` computes with products of type T, which `products` names.
template <typename Processor>
void bind_second_moments(pybind11::module_& m) {
  m.def("second_moments", [](const std::string& products, bool round_bfloat16, int64_t n_batches,
                             int64_t n_rows, const PackedRows& left, const PackedRows& right,
                             bool symmetric, Address root, Address out) {
    pybind11::gil_scoped_release release;
    const SecondMoments op{n_batches,      n_rows,
                           rows_of(left),  rows_of(right),
                           symmetric,      pointer<const double>(root),
                           round_bfloat16, pointer<double>(out)};
    with_dtype(products, [&](auto zero) { Processor::template run<decltype(zero)>(op); });
  });
}

}  // namespace fastinn
