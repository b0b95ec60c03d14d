#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "study/keys.hpp"
#include "study/study.hpp"

/// The kinds of keys that the table of all keys is made of: how a value is read, checked and
/// written. For src/study alone.
namespace moevar::study {

template <class E>
struct Word {
  E value;
  std::string_view text;
};

template <class E>
struct Words;
template <>
struct Words<Order> {
  static constexpr std::array<Word<Order>, 2> list{
      {{Order::randomised, "randomised"}, {Order::listed, "listed"}}};
};
template <>
struct Words<WorkloadKind> {
  static constexpr std::array<Word<WorkloadKind>, 3> list{{{WorkloadKind::synthetic, "synthetic"},
                                                           {WorkloadKind::counts, "counts"},
                                                           {WorkloadKind::tokens, "tokens"}}};
};
template <>
struct Words<DeviceKind> {
  static constexpr std::array<Word<DeviceKind>, 4> list{{{DeviceKind::automatic, "auto"},
                                                         {DeviceKind::cuda, "cuda"},
                                                         {DeviceKind::cpu, "cpu"},
                                                         {DeviceKind::model, "model"}}};
};
template <>
struct Words<Heat> {
  static constexpr std::array<Word<Heat>, 3> list{
      {{Heat::ambient, "ambient"}, {Heat::soaked, "soaked"}, {Heat::neighbours, "neighbours"}}};
};
template <>
struct Words<CapMode> {
  static constexpr std::array<Word<CapMode>, 3> list{
      {{CapMode::set, "set"}, {CapMode::verify, "verify"}, {CapMode::observe, "observe"}}};
};
template <>
struct Words<Recompute> {
  static constexpr std::array<Word<Recompute>, 3> list{
      {{Recompute::between_phases, "between-phases"},
       {Recompute::on_drift, "on-drift"},
       {Recompute::once, "once"}}};
};
template <>
struct Words<Profiling> {
  static constexpr std::array<Word<Profiling>, 2> list{
      {{Profiling::condition, "condition"}, {Profiling::once, "once"}}};
};
template <>
struct Words<ProfiledDevices> {
  static constexpr std::array<Word<ProfiledDevices>, 2> list{
      {{ProfiledDevices::together, "together"}, {ProfiledDevices::alone, "alone"}}};
};

template <>
struct Words<Scaling> {
  static constexpr std::array<Word<Scaling>, 2> list{
      {{Scaling::strong, "strong"}, {Scaling::weak, "weak"}}};
};
template <>
struct Words<Draw> {
  static constexpr std::array<Word<Draw>, 2> list{
      {{Draw::nodes, "nodes"}, {Draw::devices, "devices"}}};
};

template <>
struct Words<Precision> {
  static constexpr std::array<Word<Precision>, 2> list{
      {{Precision::bf16, "bf16"}, {Precision::fp8, "fp8"}}};
};
template <>
struct Words<ExchangePath> {
  static constexpr std::array<Word<ExchangePath>, 3> list{{{ExchangePath::automatic, "auto"},
                                                           {ExchangePath::nccl, "nccl"},
                                                           {ExchangePath::staged, "staged"}}};
};
template <>
struct Words<ExchangeCounts> {
  static constexpr std::array<Word<ExchangeCounts>, 2> list{
      {{ExchangeCounts::known, "known"}, {ExchangeCounts::exchanged, "exchanged"}}};
};
template <>
struct Words<Overlap> {
  static constexpr std::array<Word<Overlap>, 2> list{
      {{Overlap::none, "none"}, {Overlap::two_batch, "two-batch"}}};
};
template <>
struct Words<L2> {
  static constexpr std::array<Word<L2>, 2> list{{{L2::warm, "warm"}, {L2::cold, "cold"}}};
};
template <>
struct Words<Arrivals> {
  static constexpr std::array<Word<Arrivals>, 4> list{{{Arrivals::poisson, "poisson"},
                                                       {Arrivals::bursty, "bursty"},
                                                       {Arrivals::uniform, "uniform"},
                                                       {Arrivals::recorded, "recorded"}}};
};
template <>
struct Words<Lengths> {
  static constexpr std::array<Word<Lengths>, 3> list{
      {{Lengths::sonnet, "sonnet"}, {Lengths::sharegpt, "sharegpt"}, {Lengths::fixed, "fixed"}}};
};
template <>
struct Words<ServingMode> {
  static constexpr std::array<Word<ServingMode>, 3> list{{{ServingMode::mixed, "mixed"},
                                                          {ServingMode::prefill, "prefill"},
                                                          {ServingMode::decode, "decode"}}};
};
template <>
struct Words<Disturbance> {
  static constexpr std::array<Word<Disturbance>, 4> list{{{Disturbance::none, "none"},
                                                          {Disturbance::hot_aisle, "hot-aisle"},
                                                          {Disturbance::capped, "capped"},
                                                          {Disturbance::failing, "failing"}}};
};

template <class E>
std::string word_of(E value) {
  for (const auto& word : Words<E>::list) {
    if (word.value == value) {
      return std::string(word.text);
    }
  }
  return {};
}

template <class E>
std::vector<std::string_view> words() {
  std::vector<std::string_view> all;
  all.reserve(Words<E>::list.size());
  for (const auto& word : Words<E>::list) {
    all.push_back(word.text);
  }
  return all;
}

inline std::string shown(const toml::node& node) {
  std::ostringstream text;
  node.visit([&](const auto& value) { text << value; });
  return printable(text.str());
}

[[noreturn]] inline void wrong(const toml::node& node, const std::string& right) {
  throw InputError(fmt::format("{} is not {}", shown(node), right));
}

template <class T>
struct Range {
  T low;
  T high;
  [[nodiscard]] std::string text() const { return fmt::format("from {} to {}", low, high); }
};

inline std::int64_t read_integer(const toml::node& node, const Range<std::int64_t>& range) {
  const auto value = node.is_integer() ? node.value<std::int64_t>() : std::nullopt;
  if (!value || *value < range.low || *value > range.high) {
    wrong(node, fmt::format("a whole number {}", range.text()));
  }
  return *value;
}

inline double read_number(const toml::node& node, const Range<double>& range) {
  const auto value = node.is_number() ? node.value<double>() : std::nullopt;
  if (!value || !(*value >= range.low) || !(*value <= range.high)) {
    wrong(node, fmt::format("a number {}", range.text()));
  }
  return *value;
}

inline std::string read_text(const toml::node& node) {
  const auto value = node.value<std::string>();
  if (!value) {
    wrong(node, "text in quotation marks");
  }
  return *value;
}

template <class E>
E read_word(const toml::node& node) {
  const auto text = node.value<std::string>();
  for (const auto& word : Words<E>::list) {
    if (text && word.text == *text) {
      return word.value;
    }
  }
  const auto all = words<E>();
  wrong(node, fmt::format("one of {}", fmt::join(all, ", ")));
}

/// A list, or one value that stands for a list of one.
template <class T, class ReadOne>
std::vector<T> read_list(const toml::node& node, const ReadOne& read_one) {
  std::vector<T> list;
  if (const auto* array = node.as_array()) {
    for (const auto& element : *array) {
      list.push_back(read_one(element));
    }
  } else {
    list.push_back(read_one(node));
  }
  return list;
}

inline std::string number(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

/// `member` is a function Study& → the member's reference, usable for const and non-const studies.
template <class Member>
Key integer_key(std::string name, Member member, Range<std::int64_t> range, std::string_view help) {
  return {std::move(name), fmt::format("{}, {}", help, range.text()),
          [member, range](Study& study, const toml::node& node) {
            auto& target = member(study);
            target =
                static_cast<std::remove_reference_t<decltype(target)>>(read_integer(node, range));
          },
          [member](const Study& study) { return fmt::format("{}", member(study)); }};
}

template <class Member>
Key number_key(std::string name, Member member, Range<double> range, std::string_view help) {
  return {std::move(name), fmt::format("{}, {}", help, range.text()),
          [member, range](Study& study, const toml::node& node) {
            member(study) = read_number(node, range);
          },
          [member](const Study& study) { return number(member(study)); }};
}

template <class Member>
Key flag_key(std::string name, Member member, std::string_view help) {
  return {std::move(name), std::string(help),
          [member](Study& study, const toml::node& node) {
            const auto value = node.is_boolean() ? node.value<bool>() : std::nullopt;
            if (!value) {
              wrong(node, "true or false");
            }
            member(study) = *value;
          },
          [member](const Study& study) { return member(study) ? "true" : "false"; }};
}

template <class Member>
Key text_key(std::string name, Member member, std::string_view help) {
  return {std::move(name), std::string(help),
          [member](Study& study, const toml::node& node) { member(study) = read_text(node); },
          [member](const Study& study) { return quoted(member(study)); }, true};
}

template <class E, class Member>
Key word_key(std::string name, Member member, std::string_view help) {
  return {std::move(name), fmt::format("{}: {}", help, fmt::join(words<E>(), ", ")),
          [member](Study& study, const toml::node& node) { member(study) = read_word<E>(node); },
          [member](const Study& study) { return quoted(word_of(member(study))); }};
}

/// Whether a list may lack elements, and whether one may stand in it more than once.
struct ListRule {
  bool may_be_empty = false;
  bool may_repeat = false;
};

/// A list of `T`; `read_one` turns a node into an element, `write_one` an element into TOML.
template <class T, class Member, class ReadOne, class WriteOne>
Key list_key(std::string name, Member member, ReadOne read_one, WriteOne write_one, ListRule rule,
             std::string help) {
  return {std::move(name), std::move(help),
          [=](Study& study, const toml::node& node) {
            auto list = read_list<T>(node, read_one);
            if (list.empty() && !rule.may_be_empty) {
              wrong(node, "a list with at least one element");
            }
            for (auto element = list.begin(); !rule.may_repeat && element != list.end();
                 ++element) {
              if (std::find(list.begin(), element, *element) != element) {
                wrong(node, "a list in which nothing stands twice");
              }
            }
            member(study) = std::move(list);
          },
          [=](const Study& study) {
            std::vector<std::string> texts;
            for (const auto& element : member(study)) {
              texts.push_back(write_one(element));
            }
            return fmt::format("[{}]", fmt::join(texts, ", "));
          }};
}

}  // namespace moevar::study
