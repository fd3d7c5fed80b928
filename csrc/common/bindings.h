// What the two pybind11 modules share: tensors arrive as addresses, sizes and strides.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <tuple>

#include "common/matrix.h"

namespace fastinn {

using Address = uintptr_t;
using Strided = std::tuple<Address, int64_t, int64_t>;  // address, row stride, column stride

template <typename T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

template <typename T>
Matrix<T> matrix(const Strided& view) {
  return {pointer<T>(std::get<0>(view)), std::get<1>(view), std::get<2>(view)};
}

// Calls `function` with a zero of the type that `dtype` names.
template <typename Function>
void with_dtype(const std::string& dtype, Function&& function) {
  if (dtype == "float32") return function(0.0f);
  if (dtype == "float64") return function(0.0);
  throw pybind11::type_error("no kernel for " + dtype + ", expected float32 or float64");
}

}  // namespace fastinn
