#include <algorithm>
#include <numeric>
#include <optional>

#include <fmt/format.h>

#include "cli/commands.hpp"
#include "placement/engine_formats.hpp"
#include "system/files.hpp"

namespace moevar::cli {

namespace {

using placement::EngineFormat;
using placement::PlacementFile;

class ExportCommand : public Command {
 public:
  void add_options(CLI::App& app) override {
    app.add_option("placement", placement_, "placement JSON, as moevar place writes it")
        ->required();
    app.add_option("--format", format_, "sglang, vllm (vLLM-Ascend) or tensorrt-llm")->required();
    app.add_option("--out", out_, "file for the engine; must not exist")->required();
    app.add_option(
           "--dense-layers", dense_layers_,
           "the model's dense layers before its first MoE layer (as the loads numbered them)")
        ->check(CLI::Range(0, 1 << 16));
    app.add_option("--model-layers", model_layers_,
                   "layers of the model, dense ones too (as the loads had them)")
        ->check(CLI::Range(1, 1 << 16));
  }

  ExitStatus run(int /*argc*/, char** /*argv*/) override {
    if (launched().rank != 0) {
      return ExitStatus::ok;
    }
    const auto& format = placement::find_engine_format(format_);
    files::require_new(out_);
    auto file = placement::parse_moevar_placement(files::read_text(placement_), placement_);
    placement::number_layers(file, dense_layers_, model_layers_, placement_);
    files::write_new_text(out_, format.write(file, placement_));
    report(format, file);
    return ExitStatus::ok;
  }

 private:
  void report(const EngineFormat& format, const PlacementFile& file) const {
    const auto& plan = file.placement;
    fmt::print("{}: for {}, {} MoE layers (of a model of {}) on {} devices × {} slots\nuse: {}\n",
               out_, format.engine, plan.layers(), file.model_layers, plan.devices,
               plan.slots_per_device, format.use);
    if (!out_.ends_with(format.ending)) {
      fmt::print("note: {} reads a file of this format only where its name ends in {}\n",
                 format.engine, format.ending);
    }
    const auto uneven = placement::uneven_slots(plan, file.experts);
    const auto layers = std::ranges::count_if(uneven, [](int slots) { return slots > 0; });
    if (layers == 0) {
      return;
    }
    const auto sum = [](const std::vector<double>& values) {
      return std::accumulate(values.begin(), values.end(), 0.0);
    };
    fmt::print("note: in {} of {} layers replicas have uneven shares, which {} splits evenly",
               layers, plan.layers(), format.engine);
    if (!file.even_split_us.empty() && sum(plan.predicted_us) > 0.0) {
      fmt::print(": {:.1f} µs instead of {:.1f} over the layers", sum(file.even_split_us),
                 sum(plan.predicted_us));
    }
    fmt::print("; moevar place --even-shares plans for that\n");
  }

  std::string placement_;
  std::string format_;
  std::string out_;
  std::optional<int> dense_layers_;
  std::optional<int> model_layers_;
};

}  // namespace

std::unique_ptr<Command> make_export_command() { return std::make_unique<ExportCommand>(); }

}  // namespace moevar::cli
