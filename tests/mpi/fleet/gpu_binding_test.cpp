#include "fleet/gpu_binding.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::fleet {
namespace {

/// The ranks' real views, but with made-up GPUs.
std::vector<RankView> views_with(const mpi::Communicator& comm, int gpus) {
  auto views = gather_views(comm);
  for (auto& view : views) {
    view.gpus.clear();
    for (int g = 0; g < gpus; ++g) {
      SeenGpu seen;
      seen.gpu.ordinal = g;
      seen.gpu.name = "Made-up GPU";
      seen.gpu.uuid = fmt::format("GPU-{}", g);
      view.gpus.push_back(seen);
    }
  }
  return views;
}

/// What binding changes of this process comes back.
class GpuBinding : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(sched_getaffinity(0, sizeof before_, &before_), 0); }
  void TearDown() override {
    sched_setaffinity(0, sizeof before_, &before_);
    ::syscall(SYS_set_mempolicy, 0, nullptr, 0);
  }

  mpi::Communicator world_ = mpi::Communicator::world();

 private:
  cpu_set_t before_{};
};

std::vector<int> cores_of_this_process() {
  cpu_set_t set;
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(static_cast<unsigned>(core), &set)) {
      cores.push_back(core);
    }
  }
  return cores;
}

TEST_F(GpuBinding, EveryRankKnowsWhatEachSees) {
  const auto views = gather_views(world_);
  ASSERT_EQ(views.size(), static_cast<std::size_t>(world_.size()));
  for (std::size_t rank = 0; rank < views.size(); ++rank) {
    EXPECT_EQ(views[rank].host, affinity::host_name()) << "the test runs on one host";
    EXPECT_EQ(views[rank].place.node, 0);
    EXPECT_EQ(views[rank].place.local_rank, static_cast<int>(rank));
    EXPECT_FALSE(views[rank].cores.empty());
    EXPECT_EQ(views[rank].gpus.size(), gpu::visible().size());
  }
}

TEST_F(GpuBinding, BindsEachRankAndNamesTheFleet) {
  const auto views = views_with(world_, world_.size());
  const int devices = std::max(1, world_.size() - 1);
  const auto fleet = bind_gpu_fleet(world_, views, devices, {});
  ASSERT_EQ(fleet.ranks.size(), views.size());
  ASSERT_EQ(fleet.devices.size(), static_cast<std::size_t>(devices));
  const auto me = static_cast<std::size_t>(world_.rank());
  EXPECT_EQ(cores_of_this_process(), fleet.ranks[me].share.cores);
  EXPECT_EQ(fleet.ranks[me].gpu.ordinal, world_.rank());
  EXPECT_EQ(fleet.ranks[me].sharers, 1);
  EXPECT_NE(fleet.ranks[me].share.note, "") << "nobody knows where a made-up GPU sits";
  for (std::size_t d = 0; d < fleet.devices.size(); ++d) {
    const auto& device = fleet.devices[d];
    EXPECT_EQ(device.device, static_cast<DeviceId>(d));
    EXPECT_EQ(device.kind, "cuda");
    EXPECT_EQ(device.uuid, fmt::format("GPU-{}", d));
    EXPECT_EQ(device.name, "Made-up GPU");
    EXPECT_EQ(device.host, affinity::host_name());
    EXPECT_EQ(device.node, 0);
    EXPECT_EQ(device.slot, static_cast<int>(d));
    EXPECT_EQ(device.rank, static_cast<int>(d));
  }
}

TEST_F(GpuBinding, BindingAgainChangesNothing) {
  const auto first = bind_gpu_fleet(world_, views_with(world_, world_.size()), 1, {});
  const auto again = bind_gpu_fleet(world_, views_with(world_, world_.size()), 1, {});
  for (std::size_t rank = 0; rank < first.ranks.size(); ++rank) {
    EXPECT_EQ(first.ranks[rank].share, again.ranks[rank].share);
  }
}

TEST_F(GpuBinding, SharingIsRefusedOrNamed) {
  const auto views = views_with(world_, 1);
  if (world_.size() > 1) {
    try {
      (void)bind_gpu_fleet(world_, views, world_.size(), {});
      ADD_FAILURE() << "not refused";
    } catch (const mpi::SharedError& error) {
      EXPECT_EQ(error.status(), ExitStatus::environment);
      for (const auto* part : {"GPU-0", "--share-gpu", "rank"}) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      }
    }
  }
  const auto fleet = bind_gpu_fleet(world_, views, world_.size(), {.gpus = {}, .share_gpu = true});
  for (std::size_t d = 0; d < fleet.devices.size(); ++d) {
    EXPECT_EQ(fleet.devices[d].uuid, d == 0 ? "GPU-0" : fmt::format("GPU-0.{}", d));
    EXPECT_EQ(fleet.ranks[d].gpu.uuid, "GPU-0");
    EXPECT_EQ(fleet.ranks[d].sharers, world_.size());
  }
}

TEST_F(GpuBinding, MoreDevicesThanRanksAreRefused) {
  const auto views = views_with(world_, world_.size());
  EXPECT_THROW((void)bind_gpu_fleet(world_, views, world_.size() + 1, {}), mpi::SharedError);
}

TEST_F(GpuBinding, WithoutAGpuAllRanksAreToldSo) {
  if (!gpu::visible().empty()) {
    GTEST_SKIP() << "there is a GPU";
  }
  try {
    (void)bind_gpu_fleet(world_, 1, {});
    ADD_FAILURE() << "not refused";
  } catch (const mpi::SharedError& error) {
    EXPECT_EQ(error.status(), ExitStatus::environment);
    EXPECT_NE(std::string(error.what()).find("no GPU visible"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace moevar::fleet
