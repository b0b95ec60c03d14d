#include <cstdio>
#include <cstdlib>

#include <gtest/gtest.h>

#include "system/mpi.hpp"

/// Runs a GoogleTest program under mpirun. A test that fails on any rank fails the program on every
/// rank, and rank 0 says how many checks all ranks made together, so that a rank without checks
/// shows.
namespace {

class CheckCounter : public testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (result.failed()) {
      std::printf("rank %d: %s:%d: %s\n", moevar::mpi::Communicator::world().rank(),
                  result.file_name(), result.line_number(), result.message());
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  const moevar::mpi::Session session(&argc, &argv);
  testing::InitGoogleTest(&argc, argv);
  const auto world = moevar::mpi::Communicator::world();
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (!world.is_root()) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new CheckCounter);
  }
  std::int64_t failed = RUN_ALL_TESTS();
  const auto* unit = testing::UnitTest::GetInstance();
  std::int64_t run = unit->test_to_run_count();
  world.all_reduce_max(std::span(&failed, 1));
  world.all_reduce_sum(std::span(&run, 1));
  if (world.is_root()) {
    std::printf("%d ranks ran %lld tests\n", world.size(), static_cast<long long>(run));
  }
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
