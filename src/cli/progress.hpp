#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>

#include "run/runner.hpp"

namespace moevar::cli {

/// How a phase is called in a line of text: "8 devices, 700 W, soaked, eplb, repeat 1".
std::string label_of(const study::PhaseSpec& phase);

/// A bar on standard error. On a terminal it is redrawn in place; elsewhere it is a line now and
/// then. Under mpirun a rank cannot see the terminal, so MOEVAR_PROGRESS=bar|lines|none decides
/// where it is set.
class ProgressBar : public run::Observer {
 public:
  ProgressBar();
  ~ProgressBar() override;
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void resumed(std::size_t done) override;
  void changed(std::span<const std::string> changes) override;
  void measured_anew(const std::string& why) override;
  void planned(std::span<const study::PhaseSpec> plan) override;
  void phase_begins(const study::PhaseSpec& phase) override;
  void phase_done(const study::PhaseSpec& phase) override;

 private:
  enum class Style { bar, lines, none };
  using Clock = std::chrono::steady_clock;

  void draw(const std::string& text);
  [[nodiscard]] std::string time_left() const;

  Style style_;
  std::size_t phases_ = 0;
  std::size_t done_ = 0;
  std::size_t before_ = 0;  ///< of done_, by earlier sessions
  bool in_line_ = false;    ///< the cursor stands behind a bar
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_line_;
};

/// "under 1 s", "about 3 s", "about 12 min": a duration as far as an estimate can be trusted.
std::string rough_duration(double seconds);

}  // namespace moevar::cli
