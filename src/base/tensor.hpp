#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

namespace moevar {

/// Row-major array with Rank axes: what every [devices][steps][layers] in moevar is.
template <class T, std::size_t Rank>
class Tensor {
 public:
  using Shape = std::array<std::size_t, Rank>;

  Tensor() = default;
  explicit Tensor(const Shape& shape, const T& value = T{})
      : shape_(shape), data_(element_count(shape), value) {}

  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] std::size_t extent(std::size_t axis) const noexcept { return shape_[axis]; }
  [[nodiscard]] std::size_t size() const noexcept { return data_.size(); }
  [[nodiscard]] bool empty() const noexcept { return data_.empty(); }

  [[nodiscard]] std::span<T> flat() noexcept { return data_; }
  [[nodiscard]] std::span<const T> flat() const noexcept { return data_; }

  template <class... Index>
  [[nodiscard]] T& operator()(Index... index) noexcept {
    static_assert(sizeof...(Index) == Rank);
    return data_[offset(static_cast<std::size_t>(index)...)];
  }
  template <class... Index>
  [[nodiscard]] const T& operator()(Index... index) const noexcept {
    static_assert(sizeof...(Index) == Rank);
    return data_[offset(static_cast<std::size_t>(index)...)];
  }

  /// All elements that share the given leading indices: row(step) of [steps][layers][experts] is
  /// the step's layers × experts, row(step, layer) its experts.
  template <class... Index>
  [[nodiscard]] std::span<T> row(Index... index) noexcept {
    const auto [begin, length] = slice(static_cast<std::size_t>(index)...);
    return std::span<T>(data_).subspan(begin, length);
  }
  template <class... Index>
  [[nodiscard]] std::span<const T> row(Index... index) const noexcept {
    const auto [begin, length] = slice(static_cast<std::size_t>(index)...);
    return std::span<const T>(data_).subspan(begin, length);
  }

  bool operator==(const Tensor&) const = default;

 private:
  static std::size_t element_count(const Shape& shape) noexcept {
    return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>{});
  }

  template <class... Index>
  [[nodiscard]] std::size_t offset(Index... index) const noexcept {
    const std::array<std::size_t, sizeof...(Index)> indices{index...};
    std::size_t position = 0;
    for (std::size_t axis = 0; axis < sizeof...(Index); ++axis) {
      position = position * shape_[axis] + indices[axis];
    }
    return position;
  }

  template <class... Index>
  [[nodiscard]] std::array<std::size_t, 2> slice(Index... index) const noexcept {
    static_assert(sizeof...(Index) < Rank);
    std::size_t length = 1;
    for (std::size_t axis = sizeof...(Index); axis < Rank; ++axis) {
      length *= shape_[axis];
    }
    return {offset(index...) * length, length};
  }

  Shape shape_{};
  std::vector<T> data_;
};

template <class T>
using Matrix = Tensor<T, 2>;

}  // namespace moevar
