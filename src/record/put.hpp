#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.hpp"
#include "system/hdf5.hpp"

/// Datasets as study.h5 has them: chunked and compressed from a size on, with their unit.
namespace moevar::record {

using hdf5::Layout;
using hdf5::Shape;

/// Data below this stay in one piece: a chunk index would cost more than compression wins.
inline constexpr std::size_t kSmallBytes = 4096;
/// Large enough for gzip and for striped file systems, small enough to read one device alone.
inline constexpr std::size_t kChunkBytes = std::size_t{512} << 10U;
inline constexpr unsigned kDeflate = 1;

/// Chunks fill the last axes first, so that a chunk holds whole device rows where they fit, and cut
/// an axis into even pieces.
inline Layout layout_of(const Shape& shape, std::size_t element_bytes) {
  std::size_t bytes = element_bytes;
  for (const auto extent : shape) {
    bytes *= extent;
  }
  if (bytes < kSmallBytes) {
    return {};
  }
  Layout layout{Shape(shape.size()), kDeflate};
  std::size_t filled = element_bytes;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    const hsize_t fits = std::max<hsize_t>(kChunkBytes / filled, 1);
    const hsize_t pieces = (shape[axis] + fits - 1) / fits;
    layout.chunk[axis] = (shape[axis] + pieces - 1) / pieces;
    filled *= layout.chunk[axis];
  }
  return layout;
}

template <class T>
void put(const hdf5::Location& where, const std::string& name, const Shape& shape,
         std::span<const T> values, const char* unit) {
  auto dataset = where.create_dataset<T>(name, shape, layout_of(shape, sizeof(T)));
  dataset.write(values);
  dataset.set_attribute("unit", unit);
  dataset.close();
}

template <class T>
void put(const hdf5::Location& where, const std::string& name, const std::vector<T>& values,
         const char* unit) {
  put(where, name, {values.size()}, std::span<const T>(values), unit);
}

template <class T>
void put(const hdf5::Location& where, const std::string& name, const Matrix<T>& values,
         const char* unit) {
  put(where, name, {values.extent(0), values.extent(1)}, values.flat(), unit);
}

/// One value per element of `items`, by `member`, as a dataset.
template <class T, class Items, class Member>
void put_column(const hdf5::Location& where, const std::string& name, const Items& items,
                Member member, const char* unit) {
  std::vector<T> column;
  column.reserve(items.size());
  for (const auto& item : items) {
    column.push_back(static_cast<T>(item.*member));
  }
  put(where, name, column, unit);
}

/// A text for each row of a table.
inline void put_texts(const hdf5::Location& where, const std::string& name,
                      const std::vector<std::string>& column) {
  // the text length is known to create_texts alone; rows of 32 bytes are typical
  auto dataset = where.create_texts(name, column, layout_of({column.size()}, 32));
  dataset.set_attribute("unit", "text");
  dataset.close();
}

}  // namespace moevar::record
