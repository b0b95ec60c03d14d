#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "cli/doctor_facts.hpp"
#include "cli/doctor_report.hpp"
#include "cli/doctor_verdicts.hpp"
#include "system/gpu.hpp"

/// What doctor makes of ranks and GPUs that are not there.
namespace moevar::cli {
namespace {

using nlohmann::json;

const affinity::Locality kNear{{0, 1, 2, 3}, {0}};

/// Two ranks of a host that see GPUs b and a, in this order.
std::vector<fleet::RankView> two_ranks() {
  std::vector<fleet::RankView> ranks;
  for (int local_rank = 0; local_rank < 2; ++local_rank) {
    fleet::RankView rank{
        .place = {0, local_rank}, .host = "node1", .gpus = {}, .cores = {0, 1, 2, 3, 8, 9}};
    for (const auto* uuid : {"GPU-b", "GPU-a"}) {
      fleet::SeenGpu seen;
      seen.gpu.ordinal = static_cast<int>(rank.gpus.size());
      seen.gpu.name = "Made-up GPU";
      seen.gpu.uuid = uuid;
      seen.gpu.sms = 132;
      seen.gpu.capability = 90;
      seen.gpu.memory_bytes = std::size_t{80} << 30U;
      seen.near = kNear;
      rank.gpus.push_back(seen);
    }
    ranks.push_back(rank);
  }
  return ranks;
}

/// This host's facts, but that NVML shows GPU-a alone, its first one.
std::vector<json> one_host() {
  auto host = host_facts();
  host["gpus"] = json::array();
  std::vector<json> hosts{host};
  auto ranks = two_ranks();
  ranks.resize(1);
  ranks[0].gpus.erase(ranks[0].gpus.begin());
  (void)map_ranks(ranks, {}, hosts);
  auto& gpu = hosts[0]["gpus"][0];
  gpu["nvml_index"] = 0;
  gpu["ranks"] = json::array();
  gpu["cuda_ordinal"] = nullptr;
  gpu["compute_mode"] = "exclusive-process";
  gpu["processes"] = {{{"pid", 7}, {"name", "x"}, {"memory_bytes", nullptr}}};
  return hosts;
}

json verdict_on(const std::vector<fleet::RankView>& views, const fleet::GpuOptions& options,
                const std::vector<json>& hosts, const std::string& kind) {
  for (const auto& device : usable_devices(views, options, hosts)) {
    if (device["kind"] == kind) {
      return device;
    }
  }
  return nullptr;
}

TEST(DoctorMap, GpusOfNvmlAndOfCudaAreOneListByUuid) {
  auto hosts = one_host();
  const auto ranks = map_ranks(two_ranks(), {}, hosts);
  const auto& gpus = hosts[0]["gpus"];
  ASSERT_EQ(gpus.size(), 2U);
  EXPECT_EQ(gpus[0]["uuid"], "GPU-a");
  EXPECT_EQ(gpus[0]["nvml_index"], 0);
  EXPECT_EQ(gpus[0]["cuda_ordinal"], 1) << "NVML's index is not CUDA's ordinal";
  EXPECT_EQ(gpus[0]["ranks"], json::array({1}));
  EXPECT_EQ(gpus[0]["sms"], 132);
  EXPECT_EQ(gpus[1]["uuid"], "GPU-b");
  EXPECT_EQ(gpus[1]["nvml_index"], nullptr);
  EXPECT_EQ(gpus[1]["cuda_ordinal"], 0);
  EXPECT_EQ(gpus[1]["ranks"], json::array({0}));
  EXPECT_EQ(gpus[1]["compute_capability"], "9.0");
  EXPECT_EQ(gpus[1]["near_cores"], json::array({0, 1, 2, 3}));
  EXPECT_EQ(ranks[0]["gpu"], "GPU-b");
  EXPECT_EQ(ranks[1]["ordinal"], 1);
  EXPECT_EQ(ranks[0]["cores"], json::array({0, 1}));
  EXPECT_EQ(ranks[1]["cores"], json::array({2, 3}));
  EXPECT_EQ(ranks[1]["note"], nullptr);
  EXPECT_EQ(ranks[1]["visible"].size(), 2U);
}

TEST(DoctorMap, WhereGpusCannotBeGivenTheReasonIsTheVerdict) {
  auto views = two_ranks();
  for (auto& view : views) {
    view.gpus.pop_back();
  }
  auto hosts = one_host();
  const auto ranks = map_ranks(views, {}, hosts);
  EXPECT_EQ(ranks[0]["gpu"], nullptr);
  EXPECT_EQ(ranks[0]["visible"].size(), 1U);
  const auto cuda = verdict_on(views, {}, hosts, "cuda");
  EXPECT_EQ(cuda["usable"], false);
  EXPECT_NE(cuda["why"].get<std::string>().find("--share-gpu"), std::string::npos) << cuda;
  const auto shared = map_ranks(views, {.gpus = {}, .share_gpu = true}, hosts);
  EXPECT_EQ(shared[0]["gpu"], "GPU-b");
  EXPECT_EQ(shared[1]["gpu"], "GPU-b");
}

TEST(DoctorMap, MoreRanksThanCoresAreSaid) {
  auto views = two_ranks();
  EXPECT_EQ(verdict_on(views, {}, one_host(), "cpu")["advice"], nullptr);
  views[0].cores = views[1].cores = {3};
  const auto cpu = verdict_on(views, {}, one_host(), "cpu");
  EXPECT_EQ(cpu["usable"], true);
  EXPECT_NE(cpu["advice"].get<std::string>().find("more ranks than cores"), std::string::npos);
}

TEST(DoctorMap, DriversThatAreMissingOrTooOld) {
  if (!gpu::built_with_cuda()) {
    GTEST_SKIP() << "built without CUDA";
  }
  auto views = two_ranks();
  for (auto& view : views) {
    view.gpus.clear();
  }
  auto hosts = one_host();
  auto& host = hosts[0];
  host["cuda_problem"] = "text of CUDA";
  const auto cuda = [&] { return verdict_on(views, {}, hosts, "cuda").dump(); };
  const auto says = [&](const std::string& part) { return cuda().find(part) != std::string::npos; };
  host["driver"] = host["driver_cuda"] = nullptr;
  EXPECT_TRUE(says("no driver (text of CUDA)") && says("install NVIDIA's driver")) << cuda();
  host["driver"] = "450.1";
  host["driver_cuda"] = "11.0";
  EXPECT_TRUE(says("driver 450.1 supports CUDA 11.0") && says("update the driver")) << cuda();
  host["driver_cuda"] = "99.0";
  host["libcuda"] = false;
  EXPECT_TRUE(says("libcuda.so.1, is not there") && says("NVIDIA_DRIVER_CAPABILITIES")) << cuda();
  host["libcuda"] = true;
  EXPECT_TRUE(says("NVML shows 1 GPU(s) and CUDA none") && says("CUDA_VISIBLE_DEVICES")) << cuda();
  host["gpus"] = json::array();
  EXPECT_TRUE(says("no GPU (text of CUDA)")) << cuda();
}

TEST(DoctorMap, TheMapAsText) {
  const auto views = two_ranks();
  auto hosts = one_host();
  json document{
      {"moevar", {{"moevar", "1.2"}, {"CUDA", "13.0"}}},
      {"mpi", {{"library", "MPI"}, {"ranks", 2}, {"threads", "multiple"}, {"cuda_aware", true}}},
      {"hdf5", {{"version", "1"}, {"parallel", false}}}};
  document["ranks"] = map_ranks(views, {}, hosts);
  document["ranks"][1]["note"] = "nobody knows";
  document["devices"] = usable_devices(views, {}, hosts);
  document["hosts"] = hosts;
  const auto text = render_doctor(document);
  const auto has = [&](const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\nin\n" << text;
  };
  has("moevar 1.2, built with CUDA 13.0; 2 rank(s) on 1 host(s)");
  has("0     1     1     GPU-a  0000:00:00.0  132  9.0  ? / 80.0    0     2,3?   Made-up GPU");
  has("-     0     0     GPU-b  0000:00:00.0  132  9.0  ? / 80.0    0     0,1    Made-up GPU");
  has("exclusive-process  ?    7 x (? GiB)");
  has("cores     nobody knows");
  EXPECT_EQ(std::ranges::count(text, '\t'), 0);
}

}  // namespace
}  // namespace moevar::cli
