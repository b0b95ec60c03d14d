#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/tensor.hpp"
#include "system/hdf5.hpp"

namespace moevar::record {

/// A dataset of two axes; throws where it has another shape than `rows` × `columns`, of which 0
/// stands for any.
template <class T>
Matrix<T> read_matrix(const hdf5::Group& group, const std::string& name, std::size_t rows,
                      std::size_t columns) {
  constexpr std::size_t kMost = std::size_t{1} << 34U;
  const auto dataset = group.dataset(name);
  const auto shape = dataset.shape();
  if (shape.size() != 2 || (rows != 0 && shape[0] != rows) ||
      (columns != 0 && shape[1] != columns) || shape[0] > kMost || shape[1] > kMost ||
      shape[0] * shape[1] > kMost) {
    throw InputError(fmt::format("{} has another shape than its phase", name));
  }
  const auto flat = dataset.read<T>();  // which refuses a shape that the file cannot hold
  Matrix<T> values({shape[0], shape[1]});
  std::ranges::copy(flat, values.flat().begin());
  return values;
}

}  // namespace moevar::record
