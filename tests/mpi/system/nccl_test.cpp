#include "system/nccl.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

namespace moevar::nccl {
namespace {

/// NCCL's stand-in (tests/fake_nccl), which moves bytes between the ranks of this test.
class NcclTest : public testing::Test {
 protected:
  void SetUp() override { setenv("MOEVAR_NCCL", MOEVAR_FAKE_NCCL_LIBRARY, 1); }
  void TearDown() override { unsetenv("FAKE_NCCL"); }

  std::string gpu() const { return "GPU-" + std::to_string(world_.rank()); }

  /// What constructing a communicator says.
  std::string failure_to_init(const char* misbehaviour) const {
    setenv("FAKE_NCCL", misbehaviour, 1);
    try {
      const Communicator nccl(world_, gpu(), std::chrono::milliseconds(200));
    } catch (const EnvironmentError& error) {
      return error.what();
    }
    return "";
  }

  mpi::Communicator world_ = mpi::Communicator::world();
};

TEST_F(NcclTest, BytesGoAround) {
  ASSERT_EQ(why_unavailable(), "");
  EXPECT_EQ(version(), 22809);
  Communicator nccl(world_, gpu(), std::chrono::seconds(20));
  const int next = (world_.rank() + 1) % world_.size();
  const int last = (world_.rank() + world_.size() - 1) % world_.size();
  for (int round = 0; round < 5; ++round) {
    const std::vector<int> sent{round, world_.rank(), 7};
    std::vector<int> received(3, -1);
    const Outgoing out{sent.data(), sizeof(int) * 3, next};
    const Incoming in{received.data(), sizeof(int) * 3, last};
    nccl.transfer(std::span(&out, 1), std::span(&in, 1), nullptr);
    EXPECT_EQ(received, (std::vector<int>{round, last, 7}));
  }
  int asked = 0;
  nccl.wait("a test", [&] { return ++asked == 3; });
  EXPECT_EQ(asked, 3);
}

TEST_F(NcclTest, ItsBlocksCanBeLimited) {
  EXPECT_EQ(failure_to_init("blocks 0"), "");
  EXPECT_NE(failure_to_init("blocks 16"), "") << "limited without being asked to";
  setenv("FAKE_NCCL", "blocks 16", 1);
  Communicator nccl(world_, gpu(), std::chrono::seconds(20), 16);
  const int sent = 5;
  int received = 0;
  const Outgoing out{&sent, sizeof(int), (world_.rank() + 1) % world_.size()};
  const Incoming in{&received, sizeof(int), (world_.rank() + world_.size() - 1) % world_.size()};
  nccl.transfer(std::span(&out, 1), std::span(&in, 1), nullptr);
  EXPECT_EQ(received, 5);
}

TEST_F(NcclTest, FailuresToStartSayWhatNcclNoted) {
  for (const char* misbehaviour : {"refuse-init", "fail-init"}) {
    const std::string said = failure_to_init(misbehaviour);
    EXPECT_NE(said.find("ncclCommInitRankConfig"), std::string::npos) << said;
    EXPECT_NE(said.find("noted by the stand-in"), std::string::npos) << said;
    EXPECT_NE(said.find(describe_process(world_.rank(), gpu())), std::string::npos) << said;
    EXPECT_EQ(said.find('\n'), std::string::npos);
  }
}

TEST_F(NcclTest, AHungStartEndsWithinTheLimit) {
  const std::string said = failure_to_init("hang-init");
  EXPECT_EQ(said.find(describe_process(world_.rank(), gpu()) +
                      ": ncclCommInitRankConfig was not done after 0.2 s: "),
            0U)
      << said;
}

TEST_F(NcclTest, AHungGroupEndsWithinTheLimit) {
  Communicator nccl(world_, gpu(), std::chrono::milliseconds(300));
  setenv("FAKE_NCCL", "hang-group", 1);
  const int value = 1;
  int received = 0;
  const Outgoing out{&value, sizeof(int), (world_.rank() + 1) % world_.size()};
  const Incoming in{&received, sizeof(int), (world_.rank() + world_.size() - 1) % world_.size()};
  EXPECT_THROW(nccl.transfer(std::span(&out, 1), std::span(&in, 1), nullptr), EnvironmentError);
}

TEST_F(NcclTest, AFailureWhileWaitingIsSeen) {
  Communicator nccl(world_, gpu(), std::chrono::seconds(20));
  setenv("FAKE_NCCL", "fail-later", 1);
  const int value = 1;
  int received = 0;
  const Outgoing out{&value, sizeof(int), (world_.rank() + 1) % world_.size()};
  const Incoming in{&received, sizeof(int), (world_.rank() + world_.size() - 1) % world_.size()};
  nccl.transfer(std::span(&out, 1), std::span(&in, 1), nullptr);
  EXPECT_EQ(received, 1);
  // the GPU would never be done
  EXPECT_THROW(nccl.wait("a test", [] { return false; }), NcclError);
}

TEST_F(NcclTest, ASharedGpuIsRefusedByEveryRank) {
  if (world_.size() == 1) {
    GTEST_SKIP() << "needs two ranks";
  }
  EXPECT_THROW(Communicator(world_, "GPU-0", std::chrono::seconds(20)), mpi::SharedError);
}

TEST_F(NcclTest, SharingProblemNamesRanksAndWhatToDo) {
  const std::vector<std::string> shared{"GPU-a", "GPU-b", "GPU-a"};
  EXPECT_EQ(sharing_problem(shared, 22809, false),
            "ranks 0 and 2 share GPU-a: NCCL 2.28.9 has one rank per GPU; from 2.30.3 on "
            "NCCL_MULTI_RANK_GPU_ENABLE=1 allows more, and the staged exchange needs no NCCL");
  EXPECT_EQ(sharing_problem(shared, 23003, true), std::nullopt);
  EXPECT_EQ(sharing_problem(std::span(shared).first(2), 22809, false), std::nullopt);
}

}  // namespace
}  // namespace moevar::nccl
