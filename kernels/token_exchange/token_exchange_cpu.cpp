#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "token_exchange/token_exchange.hpp"

namespace moevar::token_exchange {

Permutation::Permutation(std::size_t rows, std::size_t slots) : place(rows), rows_per_slot(slots) {}

void plan(std::span<const std::int32_t> slot_of_row, Permutation& permutation) {
  auto& counts = permutation.rows_per_slot;
  permutation.place.resize(slot_of_row.size());
  std::ranges::fill(counts, 0);
  // A counting sort: first every row's rank within its slot, then the beginnings of the slots.
  for (std::size_t i = 0; i < slot_of_row.size(); ++i) {
    auto& count = counts[static_cast<std::size_t>(slot_of_row[i])];
    permutation.place[i] = static_cast<std::uint32_t>(count++);
  }
  std::int64_t begin = 0;
  for (auto& count : counts) {
    begin += std::exchange(count, begin);
  }
  for (std::size_t i = 0; i < slot_of_row.size(); ++i) {
    permutation.place[i] +=
        static_cast<std::uint32_t>(counts[static_cast<std::size_t>(slot_of_row[i])]);
  }
  for (std::size_t s = 0; s < counts.size(); ++s) {
    counts[s] = (s + 1 < counts.size() ? counts[s + 1] : begin) - counts[s];
  }
}

void permute_cpu(std::size_t hidden, std::size_t top_k, const Permutation& permutation,
                 std::span<const float> x, std::span<float> rows) {
  for (std::size_t i = 0; i < permutation.place.size(); ++i) {
    std::memcpy(rows.data() + permutation.place[i] * hidden, x.data() + i / top_k * hidden,
                hidden * sizeof(float));
  }
}

void unpermute_cpu(std::size_t hidden, std::size_t top_k, const Permutation& permutation,
                   std::span<const float> rows, std::span<const float> weights,
                   std::span<float> y) {
  const std::size_t tokens = permutation.place.size() / top_k;
  for (std::size_t t = 0; t < tokens; ++t) {
    float* __restrict const out = y.data() + t * hidden;
    std::fill_n(out, hidden, 0.0F);
    for (std::size_t k = 0; k < top_k; ++k) {
      const float weight = weights[t * top_k + k];
      const float* __restrict const row = rows.data() + permutation.place[t * top_k + k] * hidden;
      for (std::size_t h = 0; h < hidden; ++h) {
        out[h] += weight * row[h];
      }
    }
  }
}

namespace {

/// Calls move(place in (source, slot) order, place in (slot, source) order, rows) for every piece.
template <class Move>
void for_each_piece(std::span<const std::int64_t> counts, std::span<std::int64_t> next,
                    const Move& move) {
  const std::size_t slots = next.size();
  std::ranges::fill(next, 0);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    next[i % slots] += counts[i];
  }
  std::exclusive_scan(next.begin(), next.end(), next.begin(), std::int64_t{0});
  std::size_t arrived = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto rows = static_cast<std::size_t>(counts[i]);
    auto& grouped = next[i % slots];
    move(arrived, static_cast<std::size_t>(grouped), rows);
    arrived += rows;
    grouped += counts[i];
  }
}

}  // namespace

void group_cpu(std::size_t hidden, std::span<const std::int64_t> counts,
               std::span<std::int64_t> next, std::span<const float> from, std::span<float> to) {
  for_each_piece(counts, next, [&](std::size_t arrived, std::size_t grouped, std::size_t rows) {
    std::copy_n(from.data() + arrived * hidden, rows * hidden, to.data() + grouped * hidden);
  });
}

void ungroup_cpu(std::size_t hidden, std::span<const std::int64_t> counts,
                 std::span<std::int64_t> next, std::span<const float> from, std::span<float> to) {
  for_each_piece(counts, next, [&](std::size_t arrived, std::size_t grouped, std::size_t rows) {
    std::copy_n(from.data() + grouped * hidden, rows * hidden, to.data() + arrived * hidden);
  });
}

}  // namespace moevar::token_exchange
