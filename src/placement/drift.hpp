#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/archive.hpp"
#include "base/tensor.hpp"
#include "placement/speed_model.hpp"

/// Whether a placement still fits: step by step, what the fleet does is held against what the
/// placement was planned with. Pure.
namespace moevar::placement {

/// The first three and the cool-down of one check interval are ViBE's (arXiv 2606.00735, Algorithm
/// 1, phase 3). The other two tests are not in the paper, whose text wants them and whose algorithm
/// does not have them: ViBE as published has the cosine alone; here all three are on wherever
/// recompute = "on-drift" is, as a study then asks for every way in which a placement may not fit.
struct DriftOptions {
  int window = 100;      ///< latest steps whose mean loads are compared
  int check_every = 10;  ///< steps from check to check, and of quiet after a new placement
  /// Tokens of a layer in the window, times its experts, below which no check is made: few tokens
  /// scatter, and the distance of n of them from their own mean is about 1 ÷ (2 n).
  double least_per_expert = 0.0;
  double cosine = 0.05;  ///< distance of a layer's mean loads from the reference
  /// Relative change of a layer's tokens, which a cosine does not see. A fifth: well within the
  /// range that speed models are measured for (half beyond the heaviest load), and beyond what
  /// shifts a placement's balance by more than a few per cent.
  double magnitude = 0.2;
  double residual = 0.05;   ///< relative change of a device's measured ÷ predicted time
  int residual_calls = 30;  ///< layer calls that a median of those needs
};

/// Why a placement no longer fits its loads.
struct LoadTrigger {
  enum class Kind { cosine, magnitude };
  Kind kind = Kind::cosine;
  double value = 0.0;  ///< cosine distance, or relative change of the tokens
  int layer = 0;
  std::int64_t steps = 0;  ///< since the placement was solved
};

/// "cosine 0.071 in layer 12 after 40 steps", "magnitude +0.25 in layer 0 after 10 steps"
std::string describe(const LoadTrigger& trigger);

/// The loads of one placement. Every `check_every` steps, the mean loads of the window are compared
/// with the reference, layer by layer: first their direction, then their sum. Once a test has fired
/// there are no more checks until solved().
class LoadDrift {
 public:
  LoadDrift(int layers, int experts, const DriftOptions& options = {});

  /// A placement was solved for `planned` ([layers][experts], mean tokens of a layer call) and is
  /// in place. As in ViBE, the window's mean becomes the reference, though steps from before the
  /// change may lie in it, so that a second small firing can follow; with an empty window, before
  /// the first step, `planned` is the reference. After a trigger, the next `check_every` steps see
  /// no check.
  void solved(const Matrix<double>& planned);
  /// A step was run; `loads` is [layers × experts] tokens.
  void step(std::span<const std::uint32_t> loads);

  [[nodiscard]] const std::optional<LoadTrigger>& trigger() const noexcept { return trigger_; }
  /// Mean loads of the latest steps, [layers][experts]; at least one step has been run.
  [[nodiscard]] Matrix<double> window_mean() const;

  /// All that it has seen, for another object of the same shape and options to go on from.
  void save(ArchiveWriter& archive) const;
  /// Throws InputError where `archive` holds something else.
  void restore(ArchiveReader& archive);

 private:
  template <class Self, class Archive>
  static void visit(Self& self, Archive& archive);
  [[nodiscard]] std::int64_t kept() const noexcept;
  [[nodiscard]] bool enough() const;
  void check();

  DriftOptions options_;
  Matrix<std::uint32_t> window_;  ///< [window][layers × experts], oldest overwritten
  Matrix<std::int64_t> sum_;      ///< [layers][experts] over the window: exact, whatever comes
  Matrix<double> reference_;      ///< [layers][experts]
  std::int64_t steps_ = 0;        ///< ever
  std::int64_t solved_at_ = 0;    ///< step
  std::int64_t quiet_until_ = 0;  ///< no check up to this step
  std::optional<LoadTrigger> trigger_;
};

/// One device's speed. Its residual in a check interval is the median over layer calls of measured
/// ÷ predicted expert time. That is not 1 even where the model holds, for a model knows tokens
/// alone, not how they split over slots and tiles; but it stays where it is while loads keep their
/// kind. So the first interval of a placement gives the reference, and the test fires when a later
/// one differs from it by more than `residual`. A device that left its model before that is not
/// noticed. Intervals with too few calls are joined with the next.
class ResidualDrift {
 public:
  explicit ResidualDrift(const DriftOptions& options = {}) : options_(options) {}

  /// A new placement is in place: all starts anew.
  void solved();
  /// A step was run; `tokens` and `expert_ns` are the device's, [layers]. Calls without tokens say
  /// nothing.
  void step(const SpeedCurve& model, std::span<const std::uint32_t> tokens,
            std::span<const std::int64_t> expert_ns);

  /// Residual ÷ reference where the test has fired.
  [[nodiscard]] std::optional<double> trigger() const noexcept { return trigger_; }

  /// As LoadDrift's.
  void save(ArchiveWriter& archive) const;
  void restore(ArchiveReader& archive);

 private:
  template <class Self, class Archive>
  static void visit(Self& self, Archive& archive);
  DriftOptions options_;
  std::vector<double> ratios_;  ///< since the last check
  std::int64_t steps_ = 0;      ///< since solved()
  std::optional<double> reference_;
  std::optional<double> trigger_;
};

}  // namespace moevar::placement
