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
enum class ProfiledDevices { together, alone };
enum class Scaling { strong, weak };
enum class Draw { nodes, devices };
enum class Precision { bf16, fp8 };
enum class ExchangePath { automatic, nccl, staged };
enum class ExchangeCounts { known, exchanged };
enum class Overlap { none, two_batch };
enum class L2 { warm, cold };
enum class Arrivals { poisson, bursty, uniform, recorded };
enum class Lengths { sonnet, sharegpt, fixed };
enum class ServingMode { mixed, prefill, decode };
enum class Disturbance { none, hot_aisle, capped, failing };

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
  int experts_per_device = 8;     ///< under weak scaling
  std::vector<std::string> gpus;  ///< of kind cuda: ordinals or UUIDs; empty: by local rank
  bool share_gpu = false;         ///< of kind cuda: ranks may have the same GPU
  Precision precision = Precision::bf16;
  ExchangePath exchange = ExchangePath::automatic;
  ExchangeCounts counts = ExchangeCounts::known;
  Overlap overlap = Overlap::none;
  std::vector<int> emulated_sms;  ///< of kind cuda: parts of a rank's GPU that stand for devices

  /// Devices of a rank of real ones.
  [[nodiscard]] int lanes() const noexcept {
    return emulated_sms.empty() ? 1 : static_cast<int>(emulated_sms.size());
  }
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
  ProfiledDevices profile_devices = ProfiledDevices::together;
  std::string speed_models;  ///< folder of a run to take them from; empty: none
  L2 l2 = L2::warm;          ///< of kind cuda: the cache when a step begins
};

/// Requests instead of steps of one size. The shares are ViBE's for DeepSeek-V3 under balanced
/// tokens (arXiv 2606.00735, kernel times): experts 49.2 % and all-to-all 24.5 % in prefill, 19.9 %
/// and 22.1 % in decode.
struct Serving {
  std::vector<double> rates;  ///< requests/s per device
  bool find_rate = false;     ///< instead: searches the highest rate that keeps `attainment`
  double attainment = 0.9;
  int requests = 1000;
  Arrivals arrivals = Arrivals::poisson;
  double burstiness = 0.25;  ///< shape of bursty arrivals' gamma distribution
  std::string path;          ///< of recorded arrivals
  std::vector<Lengths> lengths = {Lengths::sonnet};
  int input_tokens = 1024;  ///< of fixed lengths
  int output_tokens = 128;
  ServingMode mode = ServingMode::mixed;
  int token_budget = 8192;           ///< of a step, over all devices
  int max_running = 256;             ///< requests in a step
  double slo_ttft_ms = 0.0;          ///< 0: none
  double slo_tpot_ms = 0.0;          ///< 0: none
  double moe_share_prefill = 0.737;  ///< of a step's time, with all tokens even
  double moe_share_decode = 0.42;
  int share_tokens_prefill = 16384;  ///< tokens of the steps that have these shares
  int share_tokens_decode = 256;
  Disturbance disturbance = Disturbance::none;
  int disturbed_device = 0;
  double disturbed_at = 0.5;  ///< part of the requests that arrive before
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
  Serving serving;
  Record record;

  /// Whether phases serve requests.
  [[nodiscard]] bool serves() const noexcept {
    return !serving.rates.empty() || serving.find_rate || serving.arrivals == Arrivals::recorded;
  }
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
std::string to_string(ProfiledDevices value);
std::string to_string(Scaling value);
std::string to_string(Draw value);
std::string to_string(Precision value);
std::string to_string(ExchangePath value);
std::string to_string(ExchangeCounts value);
std::string to_string(Overlap value);
std::string to_string(L2 value);
std::string to_string(Arrivals value);
std::string to_string(Lengths value);
std::string to_string(ServingMode value);
std::string to_string(Disturbance value);

}  // namespace moevar::study
