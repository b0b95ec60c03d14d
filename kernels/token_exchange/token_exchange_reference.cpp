#include <algorithm>
#include <numeric>

#include "token_exchange/token_exchange.hpp"

namespace moevar::token_exchange {

namespace {

/// Rows in slot order, first come first.
std::vector<std::size_t> rows_in_slot_order(std::span<const std::int32_t> slot_of_row) {
  std::vector<std::size_t> order(slot_of_row.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t row) { return slot_of_row[row]; });
  return order;
}

}  // namespace

void permute_reference(std::size_t hidden, std::size_t top_k,
                       std::span<const std::int32_t> slot_of_row, std::span<const float> x,
                       std::span<double> rows) {
  const auto order = rows_in_slot_order(slot_of_row);
  for (std::size_t place = 0; place < order.size(); ++place) {
    for (std::size_t h = 0; h < hidden; ++h) {
      rows[place * hidden + h] = x[order[place] / top_k * hidden + h];
    }
  }
}

void unpermute_reference(std::size_t hidden, std::size_t top_k,
                         std::span<const std::int32_t> slot_of_row, std::span<const float> rows,
                         std::span<const float> weights, std::span<double> y) {
  const auto order = rows_in_slot_order(slot_of_row);
  std::ranges::fill(y, 0.0);
  for (std::size_t place = 0; place < order.size(); ++place) {
    for (std::size_t h = 0; h < hidden; ++h) {
      y[order[place] / top_k * hidden + h] += static_cast<double>(weights[order[place]]) *
                                              static_cast<double>(rows[place * hidden + h]);
    }
  }
}

}  // namespace moevar::token_exchange
