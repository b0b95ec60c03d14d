#include "cli/progress.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <unistd.h>

#include <fmt/format.h>

namespace moevar::cli {

std::string label_of(const study::PhaseSpec& phase) {
  const auto& cap = phase.condition.power_cap_w;
  return fmt::format(
      "{} devices, {}, {}{}{}{}, {}{}", phase.devices,
      cap ? fmt::format("{:g} W", *cap) : "own limit", to_string(phase.condition.heat),
      phase.scaling == study::Scaling::weak ? ", weak" : "", phase.even_load ? ", even load" : "",
      phase.equal_fleet ? ", equal GPUs" : "", phase.policy,
      phase.repeat > 0 ? fmt::format(", repeat {}", phase.repeat) : "");
}

std::string rough_duration(double seconds) {
  if (seconds < 1.0) {
    return "under 1 s";
  }
  if (seconds < 120.0) {
    return fmt::format("about {:.0f} s", std::ceil(seconds));
  }
  if (seconds < 7200.0) {
    return fmt::format("about {:.0f} min", std::ceil(seconds / 60.0));
  }
  return fmt::format("about {:.1f} h", seconds / 3600.0);
}

ProgressBar::ProgressBar() : style_(isatty(STDERR_FILENO) != 0 ? Style::bar : Style::lines) {
  const char* wish = std::getenv("MOEVAR_PROGRESS");  // NOLINT(concurrency-mt-unsafe): one thread
  const std::string_view text = wish == nullptr ? "" : wish;
  if (text == "bar") {
    style_ = Style::bar;
  } else if (text == "lines") {
    style_ = Style::lines;
  } else if (text == "none") {
    style_ = Style::none;
  }
}

// what comes next, an error's line perhaps, begins a line of its own
ProgressBar::~ProgressBar() {
  if (in_line_) {
    std::fputc('\n', stderr);
  }
}

void ProgressBar::planned(std::span<const study::PhaseSpec> plan) {
  phases_ = plan.size();
  start_ = Clock::now();
}

// said however little progress is shown: it is about the results
void ProgressBar::resumed(std::size_t done) {
  if (done == phases_) {
    fmt::print(stderr, "moevar: all {} phases are there already\n", done);
  } else {
    fmt::print(stderr, "moevar: goes on with phase {} of {}\n", done + 1, phases_);
  }
  before_ = done_ = done;
}

void ProgressBar::changed(std::span<const std::string> changes) {
  for (const auto& change : changes) {
    fmt::print(stderr, "moevar: not as it was then: {}\n", change);
  }
}

void ProgressBar::measured_anew(const std::string& why) {
  fmt::print(stderr, "{}moevar: phases.speed_models: {}; they are measured anew\n",
             in_line_ ? "\n" : "", why);
  in_line_ = false;
}

std::string ProgressBar::time_left() const {
  const std::chrono::duration<double> spent = Clock::now() - start_;
  const auto left = static_cast<double>(phases_ - done_);
  const auto ran = static_cast<double>(done_ - before_);
  return ran == 0.0 ? std::string{} : rough_duration(spent.count() / ran * left);
}

void ProgressBar::draw(const std::string& text) {
  constexpr std::size_t kWidth = 24;
  const std::size_t filled = phases_ == 0 ? kWidth : kWidth * done_ / phases_;
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  const bool in_place = style_ == Style::bar;
  fmt::print(stderr, "{}[{}] {}/{} phases  {}{}", in_place ? "\r\x1b[K" : "", bar, done_, phases_,
             text, in_place && done_ < phases_ ? "" : "\n");
  std::fflush(stderr);
  in_line_ = in_place && done_ < phases_;
}

void ProgressBar::phase_begins(const study::PhaseSpec& phase) {
  if (style_ == Style::bar) {
    const auto left = time_left();
    draw(fmt::format("{}{}", label_of(phase), left.empty() ? "" : "  " + left + " left"));
  }
}

void ProgressBar::phase_done(const study::PhaseSpec& phase) {
  ++done_;
  const auto now = Clock::now();
  const bool last = done_ == phases_;
  const std::chrono::duration<double> spent = now - start_;
  if (last && style_ != Style::none) {
    draw(fmt::format("done in {:.1f} s", spent.count()));
  } else if (style_ == Style::lines && now - last_line_ > std::chrono::seconds(1)) {
    last_line_ = now;
    draw(label_of(phase));
  }
}

}  // namespace moevar::cli
