#include "cli/doctor_verdicts.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "run/runner.hpp"
#include "study/parse.hpp"
#include "system/gpu.hpp"

namespace moevar::cli {

namespace {

using nlohmann::json;

bool any_gpu(std::span<const fleet::RankView> views) {
  return std::ranges::any_of(views, [](const auto& view) { return !view.gpus.empty(); });
}

struct Verdict {
  bool usable = false;
  std::string why;
  std::string advice;
};

/// Why no rank sees a GPU.
Verdict no_gpu(const json& host) {
  const std::string problem = host["cuda_problem"].is_null()
                                  ? "no GPU is visible"
                                  : host["cuda_problem"].get<std::string>();
  if (!gpu::built_with_cuda()) {
    return {false, problem, "build moevar where CUDA's toolkit is (CUDA_HOME)"};
  }
  const int needed = gpu::runtime_version() / 1000;
  const auto driver = host["driver"].is_null()
                          ? std::string("no driver")
                          : fmt::format("driver {}", host["driver"].get<std::string>());
  if (host["driver_cuda"].is_null()) {
    return {false, fmt::format("no driver ({})", problem),
            fmt::format("install NVIDIA's driver, one for CUDA {} or later; in a container, hand "
                        "it in (--gpus all, apptainer --nv)",
                        needed)};
  }
  if (std::stoi(host["driver_cuda"].get<std::string>()) < needed) {
    return {false,
            fmt::format("{} supports CUDA {}, and moevar was built with CUDA {}.{} ({})", driver,
                        host["driver_cuda"].get<std::string>(), needed,
                        gpu::runtime_version() % 1000 / 10, problem),
            fmt::format("update the driver, or build with CUDA {}",
                        host["driver_cuda"].get<std::string>())};
  }
  if (!host["libcuda"].get<bool>()) {
    return {false, fmt::format("CUDA's driver library, libcuda.so.1, is not there ({})", problem),
            "in a container, hand in the driver's part for computing "
            "(NVIDIA_DRIVER_CAPABILITIES=compute,utility)"};
  }
  if (!host["gpus"].empty()) {
    return {false,
            fmt::format("NVML shows {} GPU(s) and CUDA none ({})", host["gpus"].size(), problem),
            "check CUDA_VISIBLE_DEVICES, and what the job asked for (--gpus-per-task, "
            "--gpus-per-node)"};
  }
  return {false, fmt::format("no GPU ({})", problem), "run on a machine that has one"};
}

/// What the runner itself says of a study of this kind; empty where it takes it.
std::string refusal_of(std::string_view kind) {
  try {
    const auto parsed = study::parse(
        R"([model]
preset = "qwen3-30b")",
        "a study", {fmt::format(R"(fleet.device="{}")", kind)});
    run::check_devices(parsed);
    return {};
  } catch (const Error& error) {
    const std::string text = error.what();
    constexpr std::string_view kKey = "fleet.device: ";
    const auto key = text.find(kKey);  // where in a study it would stand is nobody's question here
    return key == std::string::npos ? text : text.substr(key + kKey.size());
  }
}

/// What may get into the way of a study whose GPUs can be assigned.
std::string cuda_advice(const std::vector<json>& hosts, const fleet::GpuOptions& options) {
  std::string advice;
  const auto add = [&](std::string_view text) {
    advice += advice.empty() ? "" : "; ";
    advice += text;
  };
  const auto any = [&](const auto& is) {
    return std::ranges::any_of(hosts, [&](const json& host) {
      return std::ranges::any_of(host["gpus"],
                                 [&](const json& gpu) { return !gpu["ranks"].empty() && is(gpu); });
    });
  };
  if (any([](const json& gpu) { return !gpu["problem"].is_null(); })) {
    add("a GPU does not answer: leave it out with fleet.gpus");
  }
  if (any([](const json& gpu) { return gpu["mig"] == true; })) {
    add("MIG is on: what is measured is a part of a GPU");
  }
  if (any([](const json& gpu) { return gpu["compute_mode"] == "prohibited"; })) {
    add(R"(compute mode "prohibited": an administrator must allow contexts)");
  }
  if (options.share_gpu && any([](const json& gpu) {
        return gpu["ranks"].size() > 1 && gpu["compute_mode"].is_string() &&
               gpu["compute_mode"].get<std::string>().starts_with("exclusive");
      })) {
    add("an exclusive compute mode: ranks cannot share that GPU");
  }
  if (any([](const json& gpu) {
        return gpu["processes"].is_array() && !gpu["processes"].empty();
      })) {
    add("other processes compute on these GPUs: measured times are theirs too");
  }
  return advice;
}

Verdict cuda_verdict(std::span<const fleet::RankView> views, const fleet::GpuOptions& options,
                     const std::vector<json>& hosts) {
  if (!any_gpu(views)) {
    return no_gpu(hosts.front());
  }
  try {
    (void)fleet::assign_gpus(views, options);
  } catch (const EnvironmentError& error) {
    return {false, error.what(), ""};
  }
  if (auto refusal = refusal_of("cuda"); !refusal.empty()) {
    return {false, std::move(refusal), ""};
  }
  return {true, fmt::format("{} rank(s), a GPU each", views.size()), cuda_advice(hosts, options)};
}

Verdict cpu_verdict(std::span<const fleet::RankView> views) {
  const auto refusal = refusal_of("cpu");
  if (!refusal.empty()) {
    return {false, refusal, ""};
  }
  std::map<int, std::pair<std::size_t, std::set<int>>> nodes;  // ranks and cores
  for (const auto& view : views) {
    auto& [ranks, cores] = nodes[view.place.node];
    ++ranks;
    cores.insert(view.cores.begin(), view.cores.end());
  }
  const bool crowded = std::ranges::any_of(nodes, [](const auto& node) {
    const auto& [ranks, cores] = node.second;
    return ranks > cores.size();
  });
  return {true, fmt::format("{} device(s), a rank each", views.size()),
          crowded ? "more ranks than cores: they share them, and times are not a core's own" : ""};
}

}  // namespace

json usable_devices(std::span<const fleet::RankView> views, const fleet::GpuOptions& options,
                    const std::vector<json>& hosts) {
  const auto shown = [](std::string_view kind, const Verdict& verdict) {
    return json{{"kind", kind},
                {"usable", verdict.usable},
                {"why", verdict.why},
                {"advice", verdict.advice.empty() ? json(nullptr) : json(verdict.advice)}};
  };
  const auto model = refusal_of("model");
  return json::array(
      {shown("cuda", cuda_verdict(views, options, hosts)), shown("cpu", cpu_verdict(views)),
       shown("model", {model.empty(), model.empty() ? "any number of devices" : model, ""})});
}

}  // namespace moevar::cli
