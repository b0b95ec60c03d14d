#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "cli/commands.hpp"
#include "cli/slot_count.hpp"
#include "placement/placement_file.hpp"
#include "placement/speeds_file.hpp"
#include "system/files.hpp"
#include "workload/load_file.hpp"

namespace moevar::cli {

namespace {

using placement::Placement;
using placement::Problem;
using workload::RecordedLoads;

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

/// Mean over the steps, [layers][experts].
Matrix<double> mean_over_steps(const Tensor<double, 3>& steps) {
  Matrix<double> mean({steps.extent(1), steps.extent(2)});
  for (std::size_t step = 0; step < steps.extent(0); ++step) {
    const auto counts = steps.row(step);
    std::ranges::transform(counts, mean.flat(), mean.flat().begin(), std::plus<>());
  }
  for (double& value : mean.flat()) {
    value /= static_cast<double>(steps.extent(0));
  }
  return mean;
}

class PlaceCommand : public Command {
 public:
  void add_options(CLI::App& app) override {
    app.footer(policy_help());
    app.add_option("--loads", loads_path_, "expert counts: .json (logical_count) or .csv")
        ->required();
    app.add_option("--devices", slots_.devices, "number of devices")
        ->required()
        ->check(CLI::Range(1, 1 << 24));
    app.add_option("--policy", policy_, "how experts are placed")->required();
    app.add_option("--redundant", slots_.redundant,
                   "slots beyond one per expert (0, or as --from has); fill: as many as "
                   "--memory-gib holds");
    app.add_option("--groups", groups_, "expert groups, for hierarchical eplb")
        ->capture_default_str();
    app.add_option("--nodes", nodes_, "nodes that the devices lie on")->capture_default_str();
    app.add_option("--speeds", speeds_path_,
                   "CSV device,tokens,latency_us or device,relative_time (all equal)");
    app.add_option("--from", from_path_,
                   "placement now: moevar's, SGLang's, vLLM-Ascend's or TensorRT-LLM's file");
    app.add_option("--budget", budget_, "most experts that a device receives in a layer")
        ->check(CLI::Range(0, 1 << 30));
    app.add_flag("--even-shares", even_shares_,
                 "plan for engines that split tokens evenly over an expert's slots");
    app.add_option("--steps", steps_, "of loads with steps: plan with each, or with their mean")
        ->check(CLI::IsMember({"trace", "mean"}))
        ->capture_default_str();
    app.add_option("--memory-gib", slots_.memory_gib,
                   "memory for experts on each device, over all layers")
        ->check(CLI::Range(1e-6, 1e9));
    app.add_option("--expert-mib", slots_.expert_mib, "size of one expert of one layer")
        ->check(CLI::Range(1e-6, 1e9));
    app.add_option("--vibe-n-ref", n_ref_,
                   "vibe: reference load, a device's or (as printed) an expert's")
        ->check(CLI::IsMember({"device", "expert"}))
        ->capture_default_str();
    app.add_option("--seed", seed_, "for policies that draw")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--out", out_, "placement JSON; must not exist")->required();
  }

  ExitStatus run(int /*argc*/, char** /*argv*/) override {
    if (launched().rank != 0) {
      return ExitStatus::ok;
    }
    const auto& policy = placement::find_policy(policy_);
    check_options();
    files::require_new(out_);
    const auto loads = workload::parse_loads(files::read_text(loads_path_), loads_path_);
    const auto from = read_from(loads);
    const auto mean = mean_over_steps(loads.counts);
    const bool trace = steps_ == "trace" && loads.counts.extent(0) > 1;
    const int per_device = slots_per_device(
        slots_, static_cast<int>(loads.counts.extent(1)), static_cast<int>(loads.counts.extent(2)),
        from ? std::optional<int>(from->slots_per_device) : std::nullopt);
    // after the number of slots: speeds of a mistyped number of devices take GiBs
    const auto speeds = speeds_path_.empty()
                            ? placement::equal_speeds(slots_.devices)
                            : placement::parse_speeds_csv(files::read_text(speeds_path_),
                                                          speeds_path_, slots_.devices);
    const Problem problem{.mean_loads = mean,
                          .speeds = speeds,
                          .devices = slots_.devices,
                          .slots_per_device = per_device,
                          .seed = seed_,
                          .trace = trace ? &loads.counts : nullptr,
                          .groups = groups_,
                          .nodes = nodes_,
                          .even_shares = even_shares_,
                          .n_ref_printed = n_ref_ == "expert",
                          .from = from ? &*from : nullptr,
                          .receive_budget = budget_.value_or(-1)};
    auto plan = placement::solve(policy, problem);
    require_fit(slots_, policy.name, plan.layers(), plan.slots_per_device);
    write(std::move(plan), problem, loads);
    return ExitStatus::ok;
  }

 private:
  void check_options() const {
    if (budget_ && from_path_.empty()) {
      throw InputError(
          "--budget limits what devices receive against a present placement; give it with --from");
    }
  }

  [[nodiscard]] std::optional<Placement> read_from(const RecordedLoads& loads) const {
    if (from_path_.empty()) {
      return std::nullopt;
    }
    const auto file =
        placement::parse_placement(files::read_text(from_path_), from_path_, slots_.devices);
    return placement::match_placement(file, from_path_, loads.layers, loads.model_layers,
                                      static_cast<int>(loads.counts.extent(2)), slots_.devices);
  }

  void write(Placement plan, const Problem& problem, const RecordedLoads& loads) const {
    placement::PlacementFile file{
        std::move(plan), problem.experts(), loads.layers, loads.model_layers, {}};
    const auto uneven = placement::uneven_slots(file.placement, file.experts);
    if (std::ranges::any_of(uneven, [](int slots) { return slots > 0; })) {
      file.even_split_us = layer_times_us(with_even_shares(file.placement, file.experts), problem);
    }
    placement::PlacementOrigin origin{
        .loads = loads_path_,
        .steps = problem.trace == nullptr ? 1 : static_cast<int>(problem.trace->extent(0)),
        .speeds = speeds_path_,
        .from = from_path_,
        .receive_budget = problem.receive_budget,
        .groups = groups_,
        .nodes = nodes_,
        .seed = seed_,
        .even_shares = even_shares_,
        .moved_experts = {}};
    if (problem.from != nullptr) {
      origin.moved_experts =
          static_cast<std::int64_t>(moves_between(*problem.from, file.placement).size());
    }
    files::write_new_text(out_, write_placement(file, origin));
    report(file, origin, loads);
  }

  static void report(const placement::PlacementFile& file, const placement::PlacementOrigin& origin,
                     const RecordedLoads& loads) {
    const auto& plan = file.placement;
    const double predicted = sum(plan.predicted_us);
    const double bound = sum(plan.lower_bound_us);
    const auto steps = loads.counts.extent(0);
    fmt::print("policy       {}\n", plan.policy);
    fmt::print("devices      {} × {} slots: {} experts, {} redundant\n", plan.devices,
               plan.slots_per_device, file.experts, plan.slots() - file.experts);
    fmt::print("loads        {} MoE layers of {}{}\n", plan.layers(), loads.model_layers,
               steps == 1          ? std::string()
               : origin.steps == 1 ? fmt::format(", mean of {} steps", steps)
                                   : fmt::format(", each of {} steps", steps));
    fmt::print("predicted    {:.1f} µs over the layers\n", predicted);
    fmt::print("lower bound  {:.1f} µs; left on the table: {:.2f} %\n", bound,
               bound > 0.0 ? 100.0 * (predicted / bound - 1.0) : 0.0);
    if (!file.even_split_us.empty()) {
      fmt::print("even shares  {:.1f} µs, where an engine splits replicas evenly\n",
                 sum(file.even_split_us));
    }
    if (origin.moved_experts) {
      fmt::print("moved        {} experts\n", *origin.moved_experts);
    }
    fmt::print("solved in    {:.1f} ms\n", plan.solve_ms);
  }

  std::string loads_path_;
  SlotCount slots_;
  std::string policy_;
  int groups_ = 1;
  int nodes_ = 1;
  std::string speeds_path_;
  std::string from_path_;
  std::optional<int> budget_;
  bool even_shares_ = false;
  std::string steps_ = "trace";
  std::string n_ref_ = "device";
  std::uint64_t seed_ = 1;
  std::string out_;
};

}  // namespace

std::unique_ptr<Command> make_place_command() { return std::make_unique<PlaceCommand>(); }

}  // namespace moevar::cli
