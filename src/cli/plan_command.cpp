#include <algorithm>

#include <fmt/format.h>

#include "base/units.hpp"
#include "cli/commands.hpp"
#include "cli/progress.hpp"
#include "cli/study_options.hpp"
#include "run/estimate.hpp"
#include "run/memory.hpp"
#include "run/routing_source.hpp"
#include "run/runner.hpp"
#include "study/plan.hpp"
#include "system/files.hpp"

namespace moevar::cli {

namespace {

/// "rank 0: 0-3, rank 1: 4-7"; long lists keep their ends. `one_each`: the first ranks drive one
/// device each, as with real ones; else all ranks share the fleet in blocks.
std::string ranks_to_devices(int ranks, int devices, bool one_each) {
  constexpr int kShown = 6;
  std::string text;
  for (int rank = 0; rank < ranks; ++rank) {
    if (ranks > kShown && rank == kShown - 2) {
      text += ", ...";
      rank = ranks - 1;
    }
    const auto block =
        one_each ? block_of(std::min(rank, devices), std::max(ranks, devices + 1), devices)
                 : block_of(rank, ranks, devices);
    const std::string mine = block.size() == 0   ? "none"
                             : block.size() == 1 ? fmt::format("{}", block.begin)
                                                 : fmt::format("{}-{}", block.begin, block.end - 1);
    text += fmt::format("{}rank {}: {}", rank == 0 ? "" : ", ", rank, mine);
  }
  return text;
}

class PlanCommand : public Command {
 public:
  void add_options(CLI::App& app) override {
    study_.add_to(app);
    app.add_option("--ranks", ranks_, "MPI ranks to plan for")->check(CLI::Range(1, 1 << 20));
  }

  ExitStatus run(int /*argc*/, char** /*argv*/) override {
    auto parsed = study_.parse(files::read_text(study_.path));
    run::check_study(parsed);
    const auto kind = run::resolve_device(parsed);
    const auto routing = run::load_routing(parsed);
    parsed.study.model.layers = routing->shape().layers;
    if (launched().rank == 0) {
      print(parsed.study, kind, study::make_plan(parsed.study));
    }
    return ExitStatus::ok;
  }

 private:
  void print_fleets(const study::Study& study, study::DeviceKind kind) const {
    for (const int devices : study.fleet.devices) {
      const bool one_each = kind != study::DeviceKind::model;
      const int lanes = kind == study::DeviceKind::cuda ? study.fleet.lanes() : 1;
      if (lanes > 1) {
        fmt::print("  {:>7} parts of GPUs, {} of each: start it with mpirun -np {}\n", devices,
                   lanes, devices / lanes);
      } else if (one_each && devices > ranks_) {
        fmt::print("  {:>7} one device a rank: start it with mpirun -np {}\n", devices, devices);
      } else {
        fmt::print("  {:>7} {}\n", devices, ranks_to_devices(ranks_, devices, one_each));
      }
    }
  }

  void print(const study::Study& study, study::DeviceKind kind,
             const std::vector<study::PhaseSpec>& plan) const {
    const auto& model = study.model;
    fmt::print("study     {} (seed {}, {} order, {} repeat{})\n", study.name, study.seed,
               to_string(study.order), study.repeats, study.repeats == 1 ? "" : "s");
    fmt::print("layer     {}hidden {}, intermediate {}, {} experts, top-{}, {} layers\n",
               model.preset.empty() ? "" : model.preset + ": ", model.hidden, model.intermediate,
               model.experts, model.top_k, model.layers);
    fmt::print("workload  {}{}, {} tokens a device and step\n", to_string(study.workload.kind),
               study.workload.path.empty() ? "" : " from " + study.workload.path,
               study.workload.tokens_per_device);
    fmt::print("devices   {}{}{}\n", to_string(kind),
               kind == study::DeviceKind::model ? ", " + study.fleet.preset : "",
               study.fleet.overlap == study::Overlap::two_batch
                   ? ", two-batch overlap of exchange and experts"
                   : "");
    print_fleets(study, kind);
    if (study.fleet.pool > 0) {
      fmt::print("  drawn from {} devices, {} in random order\n", study.fleet.pool,
                 to_string(study.fleet.draw));
    }
    fmt::print("\nphase  repeat  devices  experts  cap W  heat        policy\n");
    for (const auto& phase : plan) {
      const auto& cap = phase.condition.power_cap_w;
      fmt::print("{:>5}  {:>6}  {:>7}  {:>7}  {:>5}  {:<10}  {}{}{}{}{}\n", phase.index,
                 phase.repeat, phase.devices, phase.experts,
                 cap ? fmt::format("{:g}", *cap) : "own", to_string(phase.condition.heat),
                 phase.policy,
                 phase.rate ? fmt::format(", {:g} requests/s per device", *phase.rate) : "",
                 phase.even_load ? ", even load" : "", phase.equal_fleet ? ", equal GPUs" : "",
                 phase.new_condition ? "   (new condition)" : "");
    }
    if (study.serves()) {
      fmt::print("\n{} phases of {} requests{}; {} on {} rank{}\n", plan.size(),
                 study.serving.requests,
                 study.serving.find_rate ? ", each served at several rates" : "",
                 rough_duration(run::estimate_seconds(study, kind, plan, ranks_)), ranks_,
                 ranks_ == 1 ? "" : "s");
      return;
    }
    fmt::print("\n{} phases of {} warm-up and {}{} measured steps; {} on {} rank{}\n", plan.size(),
               study.phases.warmup_steps, study.phases.precision > 0.0 ? "at most " : "",
               run::most_steps(study.phases),
               rough_duration(run::estimate_seconds(study, kind, plan, ranks_)), ranks_,
               ranks_ == 1 ? "" : "s");
  }

  StudyOptions study_;
  int ranks_ = launched().ranks;
};

}  // namespace

std::unique_ptr<Command> make_plan_command() { return std::make_unique<PlanCommand>(); }

}  // namespace moevar::cli
