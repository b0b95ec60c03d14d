#include "base/error.hpp"
#include "fuzz.hpp"
#include "run/runner.hpp"
#include "run/sensors.hpp"
#include "study/parse.hpp"
#include "study/plan.hpp"

/// Without this run::check_study would bring NVML and what stands in for it, which an input cannot
/// reach.
bool moevar::run::cpu_has_sensors() { return false; }

namespace {

using namespace moevar;

/// A study file, then the arguments of --set, zero bytes between them.
std::vector<std::string> parts(std::string_view bytes) {
  std::vector<std::string> all;
  for (std::size_t begin = 0; begin <= bytes.size();) {
    const auto end = std::min(bytes.find('\0', begin), bytes.size());
    all.emplace_back(bytes.substr(begin, end - begin));
    begin = end + 1;
  }
  return all;
}

void check_round_trip(const study::Study& study) {
  const auto toml = study::to_toml(study);
  std::string again;
  try {
    again = study::to_toml(study::parse(toml, "again.toml").study);
  } catch (const InputError& error) {
    fuzz::finding("to_toml() wrote what parse() refuses", error.what() + ("\n" + toml));
  }
  fuzz::require(again == toml, "a study changes when it is written and read", toml + again);
}

void check_plan(const study::Study& study) {
  if (study::phases_of(study) > 20'000) {
    return;
  }
  const auto plan = study::make_plan(study);
  fuzz::require(static_cast<std::int64_t>(plan.size()) == study::phases_of(study),
                "phases_of() miscounts", study::to_toml(study));
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const auto& phase = plan[i];
    const auto slots = std::int64_t{phase.slots_per_device} * phase.devices;
    fuzz::require(phase.index == static_cast<int>(i) && phase.slots_per_device > 0 &&
                      slots >= phase.experts && phase.experts >= study.model.top_k,
                  "a phase of the plan has no room for its experts", study::to_toml(study));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): bytes as text
  auto overrides = parts({reinterpret_cast<const char*>(data), size});
  const auto text = overrides.front();
  overrides.erase(overrides.begin());
  study::ParsedStudy parsed;
  if (!fuzz::accepted([&] { parsed = study::parse(text, "s.toml", overrides); })) {
    return 0;
  }
  check_round_trip(parsed.study);
  check_plan(parsed.study);
  fuzz::accepted([&] {
    try {
      run::check_study(parsed);
    } catch (const EnvironmentError& error) {  // real GPUs
      fuzz::require_one_line(error.what());
    }
  });
  return 0;
}
