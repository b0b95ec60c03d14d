#include "cli/commands.hpp"

#include <cstdlib>

#include <fmt/format.h>

#include "cli/version.hpp"
#include "placement/placement.hpp"

namespace moevar::cli {

std::string policy_help() {
  std::string text = "Placement policies:\n";
  for (const auto& policy : placement::policies()) {
    text += fmt::format("  {:<28} {}\n", policy.name, policy.help);
  }
  return text;
}

const std::vector<CommandEntry>& commands() {
  static const std::vector<CommandEntry> all{
      {"run", "run a study: STUDY.toml to study.h5 and summary.json", make_run_command},
      {"plan", "show a study's phases, ranks and devices, and expected time; run nothing",
       make_plan_command},
      {"place", "place experts for recorded loads and given speeds: a placement as JSON",
       make_place_command},
      {"export", "write a placement as an engine's file: SGLang, vLLM-Ascend, TensorRT-LLM",
       make_export_command},
      {"fleet", "draw a fleet of modelled GPUs and write it as CSV", make_fleet_command},
      {"doctor", "show what this machine can run: GPUs and ranks, permissions, MPI, libraries",
       make_doctor_command},
      {"caps", "show the GPUs' power limits, or put back what a dead run left", make_caps_command},
  };
  return all;
}

namespace {

/// The first of these environment variables that holds a number.
int number_from(std::initializer_list<const char*> names, int otherwise) {
  for (const char* name : names) {
    const char* text =
        std::getenv(name);  // NOLINT(concurrency-mt-unsafe): no thread is running yet
    char* end = nullptr;
    const long value = text == nullptr ? -1 : std::strtol(text, &end, 10);
    if (text != nullptr && end != text && *end == '\0' && value >= 0) {
      return static_cast<int>(value);
    }
  }
  return otherwise;
}

}  // namespace

Launch launched() {
  return {number_from({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}, 0),
          number_from({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"}, 1)};
}

std::string version() { return kVersion; }

std::map<std::string, std::string> build_facts() {
  return {{"moevar", kVersion}, {"compiler", kCompiler}, {"flags", kFlags}, {"CUDA", kCuda}};
}

}  // namespace moevar::cli
