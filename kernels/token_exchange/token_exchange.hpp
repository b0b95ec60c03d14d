#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/// The reordering around the two all-to-alls of a MoE layer. A token goes out as one row for each
/// of its top_k experts, addressed to a slot (a place for one expert on one device); slots of one
/// device are consecutive, so that rows in slot order are also in device order. All arrays are
/// row-major.
///
///     tokens ─permute─▶ rows by slot ═all-to-all═▶ rows by (source, slot) ─group─▶ rows by slot
///     tokens ◀unpermute─ rows by slot ◀═all-to-all═ rows by (source, slot) ◀ungroup─ rows by slot
namespace moevar::token_exchange {

/// Where every row of a device's tokens goes in slot order.
struct Permutation {
  /// Memory for `rows` = tokens × top_k rows and `slots` slots, so that plan() allocates nothing.
  Permutation(std::size_t rows, std::size_t slots);

  std::vector<std::uint32_t> place;         ///< [tokens, top_k]: the row's place in slot order
  std::vector<std::int64_t> rows_per_slot;  ///< [slots]
};

/// Fills `permutation` for the slots that tokens go to, [tokens, top_k], each in [0, slots). Rows
/// of one slot keep the order of their tokens.
void plan(std::span<const std::int32_t> slot_of_row, Permutation& permutation);

/// Bytes read and written by permute (or read by unpermute and written): each row crosses once, the
/// tokens once.
constexpr double bytes(std::size_t hidden, std::size_t tokens, std::size_t top_k) noexcept {
  return 4.0 * static_cast<double>(hidden) * static_cast<double>(tokens) *
         static_cast<double>(top_k + 1);
}

/// Floating-point operations of unpermute's weighted sum; permute has none.
constexpr double flops(std::size_t hidden, std::size_t tokens, std::size_t top_k) noexcept {
  return 2.0 * static_cast<double>(hidden) * static_cast<double>(tokens) *
         static_cast<double>(top_k);
}

/// rows[place(t, k)] = x[t]: `x` is [tokens, hidden], `rows` [tokens × top_k, hidden].
void permute_cpu(std::size_t hidden, std::size_t top_k, const Permutation& permutation,
                 std::span<const float> x, std::span<float> rows);

/// y[t] = Σ_k weights[t, k] rows[place(t, k)]: `weights` is [tokens, top_k], `y` [tokens, hidden].
void unpermute_cpu(std::size_t hidden, std::size_t top_k, const Permutation& permutation,
                   std::span<const float> rows, std::span<const float> weights, std::span<float> y);

/// Rows that came from several devices, each in slot order, brought together by slot: `from` and
/// `to` are [sum of counts, hidden] and do not overlap; `counts` is [sources, slots]. Within a slot
/// rows stay in the order of their sources. `next` is scratch, [slots].
void group_cpu(std::size_t hidden, std::span<const std::int64_t> counts,
               std::span<std::int64_t> next, std::span<const float> from, std::span<float> to);

/// The way back: undoes group_cpu.
void ungroup_cpu(std::size_t hidden, std::span<const std::int64_t> counts,
                 std::span<std::int64_t> next, std::span<const float> from, std::span<float> to);

/// plan + permute without a plan: rows in slot order, by a stable sort.
void permute_reference(std::size_t hidden, std::size_t top_k,
                       std::span<const std::int32_t> slot_of_row, std::span<const float> x,
                       std::span<double> rows);

/// plan + unpermute without a plan, in double precision.
void unpermute_reference(std::size_t hidden, std::size_t top_k,
                         std::span<const std::int32_t> slot_of_row, std::span<const float> rows,
                         std::span<const float> weights, std::span<double> y);

}  // namespace moevar::token_exchange
