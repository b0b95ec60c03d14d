#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// What a study file says, checked. One member per key; src/study/keys.cpp is the table of all
/// keys.
namespace moevar::study {

enum class Order { randomised, listed };
enum class WorkloadKind { synthetic, counts, tokens };
enum class DeviceKind { automatic, cuda, cpu, model };
enum class Heat { ambient, soaked, neighbours };
enum class CapMode { set, verify, observe };
enum class Recompute { between_phases, on_drift, once };
enum class Profiling { condition, once };
enum class Scaling { strong, weak };
enum class Draw { nodes, devices };

/// Shape of one MoE layer and how many of them a step has. Gated experts: W1, W3 [intermediate,
/// hidden], W2 [hidden, intermediate].
struct ModelShape {
  std::string preset;  ///< name of the preset, or empty
  int hidden = 0;
  int intermediate = 0;  ///< of one expert
  int experts = 0;       ///< routed experts of a layer
  int top_k = 0;
  int layers = 0;  ///< MoE layers; 0: as many as the workload's file has
};

struct Workload {
  WorkloadKind kind = WorkloadKind::synthetic;
  double skew = 0.5;
  double burst = 0.0;
  double drift = 0.0;
  std::string path;
  int tokens_per_device = 4096;
};

struct Fleet {
  DeviceKind device = DeviceKind::automatic;
  std::string preset = "h100-sxm5";
  std::vector<int> devices = {8};
  double spread = 1.0;
  bool homogeneous = false;
  bool fail_slow = false;
  bool transient = true;
  int pool = 0;  ///< devices from which each repeat draws its fleets; 0: fleets are the first ones
  Draw draw = Draw::nodes;
  std::vector<Scaling> scaling = {Scaling::strong};
  int experts_per_device = 8;  ///< under weak scaling
};

struct Conditions {
  std::vector<double> power_cap_w;  ///< empty: the device's own limit
  std::vector<Heat> heat = {Heat::soaked};
  CapMode caps = CapMode::observe;
  double steady_window_s = 60.0;
  double heat_limit_s = 900.0;
};

struct Placement {
  std::vector<std::string> policies = {"contiguous", "eplb", "vibe"};
  int redundant_experts = 0;
  bool fill_slots = false;
  int trace_steps = 16;
  Recompute recompute = Recompute::between_phases;
};

struct Phases {
  int steps = 16;
  int warmup_steps = 2;
  double precision = 0.0;     ///< half-width of the median's interval ÷ median; 0: `steps` steps
  int max_steps = 1024;       ///< where a phase runs until it is precise
  double time_limit_s = 0.0;  ///< the same; 0: none
  Profiling profile = Profiling::condition;
};

struct Record {
  double telemetry_hz = 0.0;
  bool timelines = true;
};

struct Study {
  std::string name = "unnamed";
  std::uint64_t seed = 1;
  int repeats = 1;
  Order order = Order::randomised;
  bool causes = false;
  ModelShape model;
  Workload workload;
  Fleet fleet;
  Conditions conditions;
  Placement placement;
  Phases phases;
  Record record;
};

/// Power cap and heat of a phase, as requested. No cap: the device's own limit stays.
struct Condition {
  std::optional<double> power_cap_w;
  Heat heat = Heat::soaked;
  bool operator==(const Condition&) const = default;
};

/// The name that a value has in a study file.
std::string to_string(Order value);
std::string to_string(WorkloadKind value);
std::string to_string(DeviceKind value);
std::string to_string(Heat value);
std::string to_string(CapMode value);
std::string to_string(Recompute value);
std::string to_string(Profiling value);
std::string to_string(Scaling value);
std::string to_string(Draw value);

}  // namespace moevar::study
