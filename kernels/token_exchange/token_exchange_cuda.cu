#include <algorithm>
#include <bit>
#include <cstdint>
#include <cub/device/device_radix_sort.cuh>
#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>

#include "base/error.hpp"
#include "token_exchange/token_exchange_cuda.hpp"
#include "token_exchange/token_exchange_device.cuh"
#include "token_exchange/token_exchange_parts.hpp"

namespace moevar::token_exchange {

namespace {

unsigned blocks_for(std::uint64_t threads, unsigned per_block = kThreads) {
  return static_cast<unsigned>((threads + per_block - 1) / per_block);
}

std::uint32_t checked_rows(std::size_t rows, std::size_t most, const char* what) {
  if (rows > most) {
    throw InputError(std::string(what) + ": " + std::to_string(rows) +
                     " rows, where memory is for " + std::to_string(most));
  }
  return static_cast<std::uint32_t>(rows);
}

constexpr std::size_t kMostRows = std::numeric_limits<std::int32_t>::max();

std::size_t checked_slots(std::size_t slots, const char* what) {
  if (slots == 0 || slots > kMostRows) {
    throw InputError(std::string(what) + ": " + std::to_string(slots) +
                     " slots or pieces; from 1 to 2^31 - 1 would be right");
  }
  return slots;
}

/// Calls launch(integral_constant<std::uint32_t, words>) with the widest vectors that rows of
/// `hidden` values and the arrays' beginnings allow.
template <class Launch>
void with_words(std::size_t hidden, std::initializer_list<const void*> arrays,
                const Launch& launch) {
  std::uintptr_t addresses = 0;
  for (const void* array : arrays) {
    addresses |= reinterpret_cast<std::uintptr_t>(array);
  }
  switch (words_per_vector(hidden, addresses)) {
    case 4:
      return launch(std::integral_constant<std::uint32_t, 4>{});
    case 2:
      return launch(std::integral_constant<std::uint32_t, 2>{});
    case 1:
      return launch(std::integral_constant<std::uint32_t, 1>{});
    default:
      throw InputError("token_exchange: hidden is " + std::to_string(hidden) +
                       "; an even one, and arrays at multiples of 4 bytes, would be right");
  }
}

template <std::uint32_t kWords>
const Words<kWords>* words(const BFloat16* values) {
  return reinterpret_cast<const Words<kWords>*>(values);
}
template <std::uint32_t kWords>
Words<kWords>* words(BFloat16* values) {
  return reinterpret_cast<Words<kWords>*>(values);
}

/// The sort, or, without `memory`, how much of that it needs.
void sort_rows(void* memory, std::size_t& bytes, const std::int32_t* slot_of_row,
               std::uint32_t* sorted_slot, const std::uint32_t* row, std::uint32_t* sorted_row,
               std::uint32_t rows, int key_bits, cudaStream_t stream) {
  MOEVAR_CUDA(cub::DeviceRadixSort::SortPairs(
      memory, bytes, reinterpret_cast<const std::uint32_t*>(slot_of_row), sorted_slot, row,
      sorted_row, static_cast<int>(rows), 0, key_bits, stream));
}

void scatter_rows(std::size_t hidden, std::size_t top_k, std::size_t tokens,
                  const std::uint32_t* place, const BFloat16* from, BFloat16* to,
                  const cuda::Stream& stream) {
  with_words(hidden, {from, to}, [&](auto wide) {
    constexpr std::uint32_t kWords = decltype(wide)::value;
    const auto vectors = static_cast<std::uint32_t>(hidden / (2 * kWords));
    const std::uint32_t parts = parts_per_row(vectors, kCopyUnroll);
    const std::uint64_t tasks = std::uint64_t{tokens} * parts;
    if (tasks > 0) {
      scatter<kWords><<<blocks_for(tasks * kLanes), kThreads, 0, stream.raw()>>>(
          static_cast<std::uint32_t>(tasks), parts, vectors, static_cast<std::uint32_t>(top_k),
          place, words<kWords>(from), words<kWords>(to));
      MOEVAR_CUDA(cudaGetLastError());
    }
  });
}

std::size_t tokens_of(std::size_t rows, std::size_t top_k) {
  if (top_k == 0 || rows % top_k != 0) {
    throw InputError("token_exchange: " + std::to_string(rows) + " rows are no multiple of top_k " +
                     std::to_string(top_k));
  }
  return rows / top_k;
}

}  // namespace

DevicePlan::DevicePlan(std::size_t most_rows, std::size_t slots)
    : key_bits_(std::max(1, static_cast<int>(std::bit_width(checked_slots(slots, "plan") - 1)))),
      row_(checked_rows(most_rows, kMostRows, "plan")),
      sorted_slot_(most_rows),
      sorted_row_(most_rows),
      place_(most_rows),
      rows_per_slot_(slots) {
  const cuda::Stream stream;
  if (most_rows > 0) {
    const auto rows = static_cast<std::uint32_t>(most_rows);
    std::size_t bytes = 0;
    sort_rows(nullptr, bytes, nullptr, nullptr, nullptr, nullptr, rows, key_bits_, stream.raw());
    sort_memory_ = cuda::DeviceArray<std::byte>(std::max<std::size_t>(bytes, 1));
    count_up<<<blocks_for(rows), kThreads, 0, stream.raw()>>>(row_.data(), rows);
    MOEVAR_CUDA(cudaGetLastError());
    stream.synchronise();
  }
}

void DevicePlan::make(const std::int32_t* slot_of_row, std::size_t rows,
                      const cuda::Stream& stream) {
  const std::uint32_t count = checked_rows(rows, place_.size(), "plan");
  const auto slots = static_cast<std::uint32_t>(rows_per_slot_.size());
  rows_ = rows;
  if (count <= kPlanMostRows && slots <= kPlanMostSlots) {
    const std::size_t shared = kPlanWarps * slots * sizeof(std::uint16_t);
    plan_by_one_block<<<1, kPlanThreads, shared, stream.raw()>>>(
        slot_of_row, count, slots, place_.data(), rows_per_slot_.data());
    MOEVAR_CUDA(cudaGetLastError());
    return;
  }
  if (count > 0) {
    std::size_t bytes = sort_memory_.bytes();
    sort_rows(sort_memory_.data(), bytes, slot_of_row, sorted_slot_.data(), row_.data(),
              sorted_row_.data(), count, key_bits_, stream.raw());
  }
  finish_plan<<<blocks_for(std::max(count, slots)), kThreads, 0, stream.raw()>>>(
      sorted_slot_.data(), sorted_row_.data(), count, slots, place_.data(), rows_per_slot_.data());
  MOEVAR_CUDA(cudaGetLastError());
}

void permute_cuda(std::size_t hidden, std::size_t top_k, const DevicePlan& plan, const BFloat16* x,
                  BFloat16* rows, const cuda::Stream& stream) {
  scatter_rows(hidden, top_k, tokens_of(plan.rows(), top_k), plan.place(), x, rows, stream);
}

void unpermute_cuda(std::size_t hidden, std::size_t top_k, const DevicePlan& plan,
                    const BFloat16* rows, const float* weights, BFloat16* y,
                    const cuda::Stream& stream) {
  const std::size_t tokens = tokens_of(plan.rows(), top_k);
  with_words(hidden, {rows, y}, [&](auto wide) {
    constexpr std::uint32_t kWords = decltype(wide)::value;
    const auto vectors = static_cast<std::uint32_t>(hidden / (2 * kWords));
    const std::uint32_t parts = parts_per_row(vectors, kSumUnroll);
    const std::uint64_t tasks = std::uint64_t{tokens} * parts;
    if (tasks > 0) {
      weighted_sum<kWords><<<blocks_for(tasks * kLanes), kThreads, 0, stream.raw()>>>(
          static_cast<std::uint32_t>(tasks), parts, vectors, static_cast<std::uint32_t>(top_k),
          plan.place(), weights, words<kWords>(rows), words<kWords>(y));
      MOEVAR_CUDA(cudaGetLastError());
    }
  });
}

DeviceGrouping::DeviceGrouping(std::size_t sources, std::size_t slots, std::size_t most_rows)
    : sources_(sources),
      arrived_(checked_slots(sources * checked_slots(slots, "grouping"), "grouping")),
      grouped_(sources * slots),
      place_(checked_rows(most_rows, kMostRows, "grouping")),
      rows_per_slot_(slots) {}

void DeviceGrouping::make(const std::int64_t* counts, std::size_t rows,
                          const cuda::Stream& stream) {
  const std::uint32_t count = checked_rows(rows, place_.size(), "grouping");
  rows_ = rows;
  find_pieces<<<1, kScanThreads, 0, stream.raw()>>>(
      counts, static_cast<std::uint32_t>(sources_), static_cast<std::uint32_t>(slots()),
      arrived_.data(), grouped_.data(), rows_per_slot_.data());
  MOEVAR_CUDA(cudaGetLastError());
  if (count > 0) {
    place_arrived<<<blocks_for(count), kThreads, 0, stream.raw()>>>(
        arrived_.data(), grouped_.data(), static_cast<std::uint32_t>(arrived_.size()), count,
        place_.data());
    MOEVAR_CUDA(cudaGetLastError());
  }
}

void group_cuda(std::size_t hidden, const DeviceGrouping& grouping, const BFloat16* from,
                BFloat16* to, const cuda::Stream& stream) {
  scatter_rows(hidden, 1, grouping.rows(), grouping.place(), from, to, stream);
}

void ungroup_cuda(std::size_t hidden, const DeviceGrouping& grouping, const BFloat16* from,
                  BFloat16* to, const cuda::Stream& stream) {
  with_words(hidden, {from, to}, [&](auto wide) {
    constexpr std::uint32_t kWords = decltype(wide)::value;
    const auto vectors = static_cast<std::uint32_t>(hidden / (2 * kWords));
    const std::uint32_t parts = parts_per_row(vectors, kCopyUnroll);
    const std::uint64_t tasks = std::uint64_t{grouping.rows()} * parts;
    if (tasks > 0) {
      gather<kWords><<<blocks_for(tasks * kLanes), kThreads, 0, stream.raw()>>>(
          static_cast<std::uint32_t>(tasks), parts, vectors, grouping.place(), words<kWords>(from),
          words<kWords>(to));
      MOEVAR_CUDA(cudaGetLastError());
    }
  });
}

}  // namespace moevar::token_exchange
