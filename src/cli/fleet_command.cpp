#include <iterator>
#include <optional>

#include <fmt/format.h>

#include "cli/commands.hpp"
#include "conditions/cap.hpp"
#include "fleet/gpu_family.hpp"
#include "fleet/gpu_physics.hpp"
#include "fleet/model_fleet.hpp"
#include "system/files.hpp"

namespace moevar::cli {

namespace {

class FleetCommand : public Command {
 public:
  void add_options(CLI::App& app) override {
    app.add_option("--preset", preset_, "GPU family")->required();
    app.add_option("--devices", devices_, "number of GPUs")
        ->required()
        ->check(CLI::Range(1, 1 << 24));
    app.add_option("--power-cap-w", cap_w_, "power cap, W (the family's default)");
    app.add_option("--heat", heat_, "thermal state")
        ->check(CLI::IsMember({"ambient", "soaked", "neighbours"}))
        ->capture_default_str();
    app.add_option("--seed", seed_, "seed of the fleet")->capture_default_str();
    app.add_option("--spread", spread_, "how far GPUs differ, 1 as measured on TACC Longhorn")
        ->check(CLI::Range(0.0, 10.0))
        ->capture_default_str();
    app.add_option("--work", work_, "gemm: bound by the SM clock; memory: by bandwidth")
        ->check(CLI::IsMember({"gemm", "memory"}))
        ->capture_default_str();
    app.add_option("--out", out_, "CSV file; must not exist")->required();
  }

  ExitStatus run(int /*argc*/, char** /*argv*/) override {
    const auto& family = fleet::find_family(preset_);
    const double cap_w = conditions::requested_limit_w(
        {family.cap_min_w, family.cap_max_w, family.cap_max_w}, cap_w_);
    const auto csv = draw(family, cap_w);
    if (launched().rank == 0) {
      files::write_new_text(out_, csv);
    }
    return ExitStatus::ok;
  }

 private:
  [[nodiscard]] std::string draw(const fleet::GpuFamily& family, double cap_w) const {
    const bool memory = work_ == "memory";
    const auto activity = memory ? fleet::memory_activity(family) : fleet::gemm_activity();
    const auto heat = heat_ == "ambient"      ? study::Heat::ambient
                      : heat_ == "neighbours" ? study::Heat::neighbours
                                              : study::Heat::soaked;
    fleet::GpuTraits nominal;
    nominal.t_in_c = family.t_in_c;
    const double nominal_mhz = fleet::solve(family, nominal, activity, cap_w, heat).clock_mhz;
    std::string csv = "device,node,slot,sm_clock_mhz,power_w,temperature_c,relative_time\n";
    for (DeviceId g = 0; g < devices_; ++g) {
      const auto gpu = fleet::draw_gpu(family, {.spread = spread_}, seed_, g);
      const auto point = fleet::solve(family, gpu, activity, cap_w, heat);
      const double slower = memory ? 1.0 : nominal_mhz / point.clock_mhz;
      fmt::format_to(std::back_inserter(csv), "{},{},{},{:.3f},{:.3f},{:.3f},{:.6f}\n", g,
                     g / fleet::kGpusPerNode, g % fleet::kGpusPerNode, point.clock_mhz,
                     point.power_w, point.temperature_c, gpu.slow_factor * slower);
    }
    return csv;
  }

  std::string preset_;
  int devices_ = 0;
  std::optional<double> cap_w_;
  std::string heat_ = "soaked";
  std::uint64_t seed_ = 1;
  double spread_ = 1.0;
  std::string work_ = "gemm";
  std::string out_;
};

}  // namespace

std::unique_ptr<Command> make_fleet_command() { return std::make_unique<FleetCommand>(); }

}  // namespace moevar::cli
