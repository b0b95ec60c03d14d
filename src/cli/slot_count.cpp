#include "cli/slot_count.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::cli {

namespace {

constexpr std::string_view kFill = "fill";
constexpr std::int64_t kMostSlots = 1 << 28;  ///< over all layers

/// Slots per device that the memory holds, for all layers alike; nothing without a limit.
std::optional<std::int64_t> slots_that_fit(const SlotCount& wanted, int layers) {
  if (wanted.memory_gib.has_value() != wanted.expert_mib.has_value()) {
    throw InputError(fmt::format("--{} without --{}; give both, or neither",
                                 wanted.memory_gib ? "memory-gib" : "expert-mib",
                                 wanted.memory_gib ? "expert-mib" : "memory-gib"));
  }
  if (!wanted.memory_gib) {
    return std::nullopt;
  }
  constexpr double kMibPerGib = 1024.0;
  const double slots = *wanted.memory_gib * kMibPerGib / (*wanted.expert_mib * layers);
  constexpr double kRounding = 1e-9;  // sizes such as 0.1 GiB that are not whole in binary
  return static_cast<std::int64_t>(std::min(std::floor(slots * (1.0 + kRounding)), 1e15));
}

std::int64_t redundancy(const SlotCount& wanted, std::int64_t experts) {
  std::int64_t value = 0;
  const char* end = wanted.redundant.data() + wanted.redundant.size();
  const auto [stop, error] = std::from_chars(wanted.redundant.data(), end, value);
  if (error != std::errc{} || stop != end) {
    throw InputError(fmt::format("--redundant {}; expected a whole number from 0, or {}",
                                 printable(wanted.redundant), kFill));
  }
  if (value < 0) {
    throw InputError(fmt::format(
        "--redundant {}: fewer slots than experts; expected a whole number from 0", value));
  }
  const std::int64_t most = experts * (wanted.devices - 1);
  if (value > most) {
    throw InputError(fmt::format(
        "--redundant {}: more slots than a copy of each of {} experts on each of {} devices "
        "takes; expected at most {}",
        value, experts, wanted.devices, most));
  }
  return value;
}

/// As many slots as fit, a copy of each expert on each device at most.
std::int64_t fill(const SlotCount& wanted, std::int64_t experts, std::optional<std::int64_t> fit) {
  if (!fit) {
    throw InputError(fmt::format(
        "--redundant {} uses the memory that is there; give --memory-gib and --expert-mib", kFill));
  }
  return std::min(*fit * wanted.devices, experts * wanted.devices);
}

void refuse_uneven(std::int64_t experts, std::int64_t redundant, int devices) {
  const std::int64_t slots = experts + redundant;
  if (slots % devices == 0) {
    return;
  }
  const std::int64_t below = slots / devices * devices - experts;
  const std::int64_t above = below + devices;
  throw InputError(fmt::format(
      "--redundant {}: {} experts + {} are {} slots, which do not divide over {} devices; the "
      "nearest that do: {}{}",
      redundant, experts, redundant, slots, devices, below < 0 ? "" : fmt::format("{} and ", below),
      above));
}

void refuse_too_large(const SlotCount& wanted, int layers, std::int64_t experts, std::int64_t slots,
                      std::int64_t fit) {
  const std::int64_t per_device = slots / wanted.devices;
  const std::int64_t largest = fit * wanted.devices - experts;
  const auto gib = [&](std::int64_t slots_a_device) {
    return static_cast<double>(slots_a_device) * layers * *wanted.expert_mib / 1024.0;
  };
  const std::string right = largest >= 0
                                ? fmt::format("the largest --redundant that fits is {}", largest)
                                : fmt::format("without redundancy it takes {:.6g} GiB",
                                              gib((experts + wanted.devices - 1) / wanted.devices));
  throw InputError(fmt::format(
      "--memory-gib {:g}: {} layers × {} slots × {:g} MiB take {:.6g} GiB on each device; {}",
      *wanted.memory_gib, layers, per_device, *wanted.expert_mib, gib(per_device), right));
}

}  // namespace

int slots_per_device(const SlotCount& wanted, int layers, int experts, std::optional<int> present) {
  const std::int64_t all = experts;
  const auto fit = slots_that_fit(wanted, layers);
  std::int64_t slots = all;
  if (wanted.redundant == kFill) {
    slots = fill(wanted, all, fit);
    if (slots < all) {
      const auto least = (all + wanted.devices - 1) / wanted.devices * wanted.devices;
      refuse_too_large(wanted, layers, all, least, *fit);
    }
  } else if (!wanted.redundant.empty()) {
    slots = all + redundancy(wanted, all);
  } else if (present) {
    slots = std::int64_t{*present} * wanted.devices;
  }
  refuse_uneven(all, slots - all, wanted.devices);
  if (fit && slots / wanted.devices > *fit) {
    refuse_too_large(wanted, layers, all, slots, *fit);
  }
  if (slots * layers > kMostSlots) {
    throw InputError(fmt::format("{} layers × {} slots; expected at most {} slots over all layers",
                                 layers, slots, kMostSlots));
  }
  return static_cast<int>(slots / wanted.devices);
}

void require_fit(const SlotCount& wanted, std::string_view policy, int layers,
                 int slots_per_device) {
  const auto fit = slots_that_fit(wanted, layers);
  if (fit && slots_per_device > *fit) {
    throw InputError(fmt::format(
        "--memory-gib {:g}: policy {} chooses {} slots on each device, which take {:.6g} GiB; "
        "{} fit. Expected more memory, or a policy that keeps to its slots, as minmax",
        *wanted.memory_gib, policy, slots_per_device,
        static_cast<double>(slots_per_device) * layers * *wanted.expert_mib / 1024.0, *fit));
  }
}

}  // namespace moevar::cli
