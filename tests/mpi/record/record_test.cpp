#include "record/record.hpp"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sys/resource.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include "base/error.hpp"
#include "example.hpp"
#include "system/hdf5.hpp"
#include "system/sha256.hpp"

namespace moevar::record {
namespace {

namespace fs = std::filesystem;
using example::make_phase;
using example::Size;

/// A folder of rank 0's that all ranks know, gone at the end of the test.
class RecordTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name;
    if (world_.is_root()) {
      std::string pattern = (fs::temp_directory_path() / "moevar-record-XXXXXX").string();
      ASSERT_NE(mkdtemp(pattern.data()), nullptr);
      name = pattern;
    }
    world_.broadcast(name);
    folder_ = name;
  }
  void TearDown() override {
    world_.barrier();
    if (world_.is_root()) {
      fs::remove_all(folder_);
    }
  }

  /// Writes `phases` phases by the ranks of `comm`.
  static void write_study(const mpi::Communicator& comm, const fs::path& directory, int phases,
                          const Size& size, bool finish = true) {
    StudyWriter writer(comm, directory, example::header(phases));
    for (int index = 0; index < phases; ++index) {
      writer.write(make_phase(comm, index, size).record(), true);
    }
    if (finish) {
      writer.finish();
      writer.remove_parts();
    }
  }

  mpi::Communicator world_ = mpi::Communicator::world();
  fs::path folder_;
};

/// Reads by the C library alone, not by moevar's wrapper.
template <class T>
std::vector<T> read_all(hid_t file, const std::string& name, hid_t type,
                        const std::vector<hsize_t>& shape) {
  const hid_t dataset = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
  EXPECT_GE(dataset, 0) << name;
  const hid_t space = H5Dget_space(dataset);
  std::vector<hsize_t> found(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, found.data(), nullptr);
  EXPECT_EQ(found, shape) << name;
  std::size_t count = 1;
  for (const auto extent : found) {
    count *= extent;
  }
  std::vector<T> values(count);
  EXPECT_GE(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << name;
  H5Sclose(space);
  H5Dclose(dataset);
  return values;
}

template <class T>
void expect_same(hid_t file, const std::string& name, hid_t type, const Tensor<T, 3>& expected) {
  const auto& shape = expected.shape();
  const auto found = read_all<T>(file, name, type, {shape[0], shape[1], shape[2]});
  EXPECT_TRUE(std::ranges::equal(found, expected.flat())) << name;
}

void expect_timeline(const fs::path& path, int index, const Size& size) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const auto expected = example::whole_timeline(index, size);
  const auto group = fmt::format("/phases/{:04}/", index);
  expect_same(file, group + "tokens", H5T_NATIVE_UINT32, expected.tokens);
  expect_same(file, group + "dispatch_ns", H5T_NATIVE_INT64, expected.dispatch_ns);
  expect_same(file, group + "expert_ns", H5T_NATIVE_INT64, expected.expert_ns);
  expect_same(file, group + "arrival_ns", H5T_NATIVE_INT64, expected.arrival_ns);
  expect_same(file, group + "wait_ns", H5T_NATIVE_INT64, expected.wait_ns);
  expect_same(file, group + "combine_ns", H5T_NATIVE_INT64, expected.combine_ns);
  H5Fclose(file);
}

/// Status of the error that `work` throws on all ranks alike, and its text; 0 for none.
struct Outcome {
  int status = 0;
  std::string text;
};
template <class Work>
Outcome outcome_of(const Work& work) {
  try {
    work();
    return {};
  } catch (const mpi::SharedError& error) {
    return {static_cast<int>(error.status()), error.what()};
  }
}

void expect_one_line(const Outcome& outcome, int status, const std::string& part) {
  EXPECT_EQ(outcome.status, status) << outcome.text;
  EXPECT_NE(outcome.text.find(part), std::string::npos) << outcome.text;
  EXPECT_EQ(outcome.text.find('\n'), std::string::npos) << outcome.text;
}

/// Files of this process may not grow beyond `bytes` while this lives: a full disk, on every rank.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    auto limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &before_); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  FullDisk(FullDisk&&) = delete;
  FullDisk& operator=(FullDisk&&) = delete;

 private:
  rlimit before_{};
};

TEST_F(RecordTest, WritesWhatTheHdf5LibraryReadsBack) {
  const Size size{7, 5, 3};
  write_study(world_, folder_ / "run", 2, size);
  if (world_.is_root()) {
    for (const int index : {0, 1}) {
      expect_timeline(folder_ / "run/study.h5", index, size);
    }
    const hid_t file = H5Fopen((folder_ / "run/study.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    const auto phase = make_phase(world_, 1, size);
    const auto layer = read_all<std::int64_t>(file, "/phases/0001/layer/layer_ns", H5T_NATIVE_INT64,
                                              {size.steps, size.layers});
    EXPECT_TRUE(std::ranges::equal(layer, phase.totals.layer_ns.flat()));
    const auto map = read_all<std::int32_t>(file, "/phases/0001/placement/physical_to_logical_map",
                                            H5T_NATIVE_INT32, {size.layers, 28});
    EXPECT_TRUE(std::ranges::equal(map, phase.placement.expert_of_slot.flat()));
    const auto times =
        read_all<double>(file, "/phases/0001/speed_model/time_us", H5T_NATIVE_DOUBLE, {7, 3});
    EXPECT_EQ(times[3 * 2 + 1], 132.0);
    EXPECT_EQ(times[3 * 1 + 0], 41.0);
    EXPECT_TRUE(std::isnan(times[3 * 1 + 2])) << "the shorter curve is padded";
    const auto reasons = read_all<std::uint64_t>(file, "/phases/0001/telemetry/throttle_reasons",
                                                 H5T_NATIVE_UINT64, {7});
    EXPECT_EQ(reasons[6], (std::uint64_t{1} << 40U) + 6);
    const auto ranks = read_all<std::int32_t>(file, "/timing/0001/rank", H5T_NATIVE_INT32, {7});
    EXPECT_EQ(ranks[6], world_.size() - 1);
    H5Fclose(file);
  }
}

TEST_F(RecordTest, AttributesSayWhatWasRun) {
  write_study(world_, folder_ / "run", 3, {7, 2, 3});
  if (world_.is_root()) {
    const auto file = hdf5::File::open(folder_ / "run/study.h5");
    const auto header = example::header(3);
    EXPECT_EQ(file.attribute<std::int64_t>("schema_version"), 1);
    EXPECT_EQ(file.attribute<std::int64_t>("complete"), 1);
    EXPECT_EQ(file.attribute<std::int64_t>("planned_phases"), 3);
    EXPECT_EQ(file.text_attribute("study"), "example µ");
    EXPECT_EQ(file.text_attribute("study_toml"), header.study_toml);
    EXPECT_EQ(file.text_attribute("study_sha256"), sha256(header.study_toml));
    const auto phase = file.group("phases/0002");
    EXPECT_EQ(phase.attribute<double>("power_cap_w"), 450.0);
    EXPECT_TRUE(std::isnan(file.group("phases/0000").attribute<double>("power_cap_w")));
    EXPECT_EQ(phase.attribute<std::int64_t>("first_step"), 102);
    EXPECT_EQ(phase.attribute<std::int64_t>("moved_bytes"), std::int64_t{1} << 33U);
    EXPECT_EQ(phase.text_attribute("policy"), "contiguous");
    EXPECT_EQ(phase.text_attribute("quantile"), "nearest_rank");
    EXPECT_EQ(phase.dataset("wait_ns").text_attribute("unit"), "ns");
    EXPECT_EQ(file.group("timing/0002").attribute<double>("migrate_ms"), 1.25);
    EXPECT_FALSE(phase.has_attribute("solve_ms")) << "wall-clock times lie outside /phases";
  }
}

TEST_F(RecordTest, RanksWithoutADeviceTakePart) {
  const Size size{1, 4, 2};
  write_study(world_, folder_ / "run", 1, size);
  if (world_.is_root()) {
    expect_timeline(folder_ / "run/study.h5", 0, size);
  }
}

TEST_F(RecordTest, ChunkedArraysOfManyDevicesSurvive) {
  const Size size{61, 16, 58};
  write_study(world_, folder_ / "run", 1, size);
  if (world_.is_root()) {
    expect_timeline(folder_ / "run/study.h5", 0, size);
  }
}

TEST_F(RecordTest, WithoutTimelinesOnlyTheTotalsAreThere) {
  StudyWriter writer(world_, folder_ / "run", example::header(1));
  auto phase = make_phase(world_, 0, {3, 2, 2});
  phase.mine = {};
  writer.write(phase.record(), false);
  writer.finish();
  if (world_.is_root()) {
    const auto file = hdf5::File::open(folder_ / "run/study.h5");
    EXPECT_TRUE(file.has("phases/0000/layer"));
    EXPECT_FALSE(file.has("phases/0000/wait_ns"));
  }
}

TEST_F(RecordTest, WhileRunningTheStudyLinksToItsPhases) {
  const Size size{7, 3, 2};
  write_study(world_, folder_ / "run", 2, size, false);
  if (world_.is_root()) {
    // a moved run still finds its phases: the links are relative
    fs::rename(folder_ / "run", folder_ / "moved");
    const auto path = folder_ / "moved/study.h5";
    expect_timeline(path, 1, size);
    const auto file = hdf5::File::open(path);
    EXPECT_EQ(file.attribute<std::int64_t>("complete"), 0);
    H5L_info_t link{};
    ASSERT_GE(H5Lget_info(file.raw(), "/phases/0001", &link, H5P_DEFAULT), 0);
    EXPECT_EQ(link.type, H5L_TYPE_EXTERNAL);
    EXPECT_TRUE(fs::exists(folder_ / "moved/phases/0001.h5"));
  }
}

TEST_F(RecordTest, FinishLeavesOneSelfContainedFile) {
  const Size size{7, 3, 2};
  write_study(world_, folder_ / "run", 2, size);
  if (world_.is_root()) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ / "run")) {
      names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    EXPECT_EQ(names, (std::vector<std::string>{"manifest.json", "study.h5"}));
    fs::rename(folder_ / "run/study.h5", folder_ / "alone.h5");
    expect_timeline(folder_ / "alone.h5", 1, size);
    const auto file = hdf5::File::open(folder_ / "alone.h5");
    H5L_info_t link{};
    ASSERT_GE(H5Lget_info(file.raw(), "/phases/0001", &link, H5P_DEFAULT), 0);
    EXPECT_EQ(link.type, H5L_TYPE_HARD);
  }
}

TEST_F(RecordTest, SpeedModelsOfAnEarlierPhaseAreThereOnce) {
  const Size size{300, 2, 2};
  StudyWriter writer(world_, folder_ / "run", example::header(3));
  for (int index = 0; index < 3; ++index) {
    auto phase = make_phase(world_, index, size);
    if (index > 0) {
      phase.speeds_from = 0;
    }
    writer.write(phase.record(), false);
  }
  const auto expect_shared = [&](const fs::path& path) {
    const auto file = hdf5::File::open(path);
    const auto first = file.dataset("phases/0000/speed_model/time_us").read<double>();
    EXPECT_FALSE(first.empty());
    const auto second = file.dataset("phases/0002/speed_model/time_us").read<double>();
    EXPECT_TRUE(std::ranges::equal(first, second, [](double a, double b) {
      return a == b || (std::isnan(a) && std::isnan(b));  // shorter curves are padded
    }));
  };
  if (world_.is_root()) {
    expect_shared(folder_ / "run/study.h5");
  }
  writer.finish();
  if (world_.is_root()) {
    expect_shared(folder_ / "run/study.h5");
    const auto file = hdf5::File::open(folder_ / "run/study.h5");
    H5O_info_t one{};
    H5O_info_t other{};
    ASSERT_GE(H5Oget_info_by_name(file.raw(), "/phases/0000/speed_model", &one, H5P_DEFAULT), 0);
    ASSERT_GE(H5Oget_info_by_name(file.raw(), "/phases/0002/speed_model", &other, H5P_DEFAULT), 0);
    EXPECT_EQ(one.addr, other.addr) << "one object under two names";
  }
}

TEST_F(RecordTest, APoolIsTheFleetFromTheStart) {
  auto header = example::header(1);
  header.pool = make_phase(world_, 0, {20, 1, 1}).fleet;
  StudyWriter writer(world_, folder_ / "run", header);
  const auto expect_pool = [&] {
    if (world_.is_root()) {
      const auto file = hdf5::File::open(folder_ / "run/study.h5");
      EXPECT_EQ(file.dataset("fleet/uuid").read_texts().size(), 20U);
    }
  };
  expect_pool();
  auto phase = make_phase(world_, 0, {3, 1, 1});
  for (std::size_t i = 0; i < 3; ++i) {
    phase.fleet[i].device = 19 - static_cast<DeviceId>(i);
  }
  writer.write(phase.record(), true);
  writer.finish();
  expect_pool();
  if (world_.is_root()) {
    const auto file = hdf5::File::open(folder_ / "run/study.h5");
    EXPECT_EQ(file.dataset("phases/0000/devices").read<std::int32_t>(),
              (std::vector<std::int32_t>{19, 18, 17}));
  }
}

// Of more phases than are told of one by one, study.h5 may not have heard yet (see pace_test): they
// are safe in phases/, and a run that ends by an error tells of them at its end.
TEST_F(RecordTest, ManyPhasesAreToldOfInBatches) {
  {
    StudyWriter writer(world_, folder_ / "run", example::header(1000));
    std::size_t listed = 0;
    for (int index = 0; index < 40; ++index) {
      writer.write(make_phase(world_, index, {2, 1, 1}).record(), false);
    }
    if (world_.is_root()) {
      const auto file = hdf5::File::open(folder_ / "run/study.h5");
      for (int index = 0; index < 40; ++index) {
        listed += file.has(fmt::format("phases/{:04}", index)) ? 1U : 0U;
        EXPECT_TRUE(fs::exists(folder_ / fmt::format("run/phases/{:04}.h5", index)));
      }
      EXPECT_GE(listed, 1U);
      EXPECT_EQ(writer.up_to_date(), listed == 40U);
    }
  }
  if (world_.is_root()) {
    const auto file = hdf5::File::open(folder_ / "run/study.h5");
    EXPECT_EQ(file.attribute<std::int64_t>("complete"), 0);
    EXPECT_TRUE(file.has("phases/0039"));
  }
}

TEST_F(RecordTest, FleetIsTheLargestSoFar) {
  StudyWriter writer(world_, folder_ / "run", example::header(3));
  int index = 0;
  for (const int devices : {2, 9, 4}) {
    writer.write(make_phase(world_, index++, {devices, 2, 2}).record(), true);
  }
  writer.finish();
  if (world_.is_root()) {
    const auto file = hdf5::File::open(folder_ / "run/study.h5");
    const auto uuids = file.dataset("fleet/uuid").read_texts();
    ASSERT_EQ(uuids.size(), 9U);
    EXPECT_EQ(uuids[8], "model-h100-sxm5-1-8");
    EXPECT_EQ(file.dataset("fleet/node").read<std::int32_t>()[8], 1);
  }
}

TEST_F(RecordTest, RefusesAFolderThatHoldsARun) {
  write_study(world_, folder_ / "run", 1, {2, 2, 2});
  const auto before = fs::file_size(folder_ / "run/study.h5");
  EXPECT_TRUE(holds_run(folder_ / "run"));
  EXPECT_FALSE(holds_run(folder_));
  world_.barrier();
  const auto outcome =
      outcome_of([&] { StudyWriter(world_, folder_ / "run", example::header(1)); });
  expect_one_line(outcome, 2, "already holds a run");
  EXPECT_EQ(fs::file_size(folder_ / "run/study.h5"), before);
}

TEST_F(RecordTest, RefusesAPhaseThatItHasAlready) {
  StudyWriter writer(world_, folder_ / "run", example::header(1));
  const auto phase = make_phase(world_, 0, {2, 2, 2});
  writer.write(phase.record(), true);
  expect_one_line(outcome_of([&] { writer.write(phase.record(), true); }), 1,
                  "phase 0 is not recorded");
}

TEST_F(RecordTest, RefusesPartsThatDoNotMakeUpTheFleet) {
  StudyWriter writer(world_, folder_ / "run", example::header(1));
  auto phase = make_phase(world_, 0, {7, 2, 2});
  phase.state.devices.pop_back();
  expect_one_line(outcome_of([&] { writer.write(phase.record(), true); }), 1, "6 states");
  auto short_phase = make_phase(world_, 0, {7, 2, 2});
  if (world_.rank() == world_.size() - 1) {
    short_phase.mine = timeline::Timeline(1, 2, 1);
  }
  expect_one_line(outcome_of([&] { writer.write(short_phase.record(), true); }), 1, "timelines");
}

TEST_F(RecordTest, SaysWhereItCannotWriteAndLeavesNothing) {
  if (world_.is_root()) {
    std::ofstream(folder_ / "file") << "text";
  }
  world_.barrier();
  for (const fs::path& path :
       {fs::path("/proc/moevar/run"), folder_ / "file/run", folder_ / "file"}) {
    const auto outcome = outcome_of([&] { StudyWriter(world_, path, example::header(1)); });
    expect_one_line(outcome, 3, path.string());
  }
  world_.barrier();
  EXPECT_EQ(fs::file_size(folder_ / "file"), 4U);
}

TEST_F(RecordTest, AFailedStartRemovesTheFoldersItMade) {
  if (world_.is_root()) {
    fs::create_directory(folder_ / "found");
  }
  world_.barrier();
  for (const fs::path& path : {folder_ / "new/deep/run", folder_ / "found"}) {
    const FullDisk full(64);
    const auto outcome = outcome_of([&] { StudyWriter(world_, path, example::header(1)); });
    expect_one_line(outcome, 3, "File too large");
  }
  world_.barrier();
  EXPECT_FALSE(fs::exists(folder_ / "new"));
  EXPECT_TRUE(fs::exists(folder_ / "found"));
  EXPECT_TRUE(fs::is_empty(folder_ / "found"));
}

TEST_F(RecordTest, AFullDiskKeepsTheFinishedPhases) {
  const Size small{7, 3, 2};
  StudyWriter writer(world_, folder_ / "run", example::header(2));
  writer.write(make_phase(world_, 0, small).record(), true);
  const auto large = make_phase(world_, 1, {23, 16, 58});
  {
    const FullDisk full(65536);
    const auto outcome = outcome_of([&] { writer.write(large.record(), true); });
    expect_one_line(outcome, 3, "phase 1 is not recorded");
    expect_one_line(outcome, 3, "1 finished phases are kept");
  }
  world_.barrier();
  EXPECT_FALSE(fs::exists(folder_ / "run/phases/0001.h5"));
  EXPECT_FALSE(fs::exists(folder_ / "run/phases/0001.h5.tmp"));
  if (world_.is_root()) {
    expect_timeline(folder_ / "run/study.h5", 0, small);
  }
  // and when there is room again, the study goes on
  writer.write(large.record(), true);
  writer.finish();
  if (world_.is_root()) {
    expect_timeline(folder_ / "run/study.h5", 0, small);
    expect_timeline(folder_ / "run/study.h5", 1, {23, 16, 58});
  }
}

TEST_F(RecordTest, AFullDiskAtTheEndKeepsThePhases) {
  const Size size{23, 16, 58};
  StudyWriter writer(world_, folder_ / "run", example::header(1));
  writer.write(make_phase(world_, 0, size).record(), true);
  {
    const FullDisk full(65536);
    expect_one_line(outcome_of([&] { writer.finish(); }), 3, "not joined");
  }
  if (world_.is_root()) {
    EXPECT_FALSE(fs::exists(folder_ / "run/study.h5.tmp"));
    expect_timeline(folder_ / "run/study.h5", 0, size);
  }
}

TEST_F(RecordTest, EqualStudiesAreEqualAtAnyNumberOfRanks) {
  const Size size{7, 5, 3};
  write_study(world_, folder_ / "all", 2, size);
  const auto alone = world_.split(world_.is_root() ? 0 : -1);
  if (world_.is_root()) {
    write_study(alone, folder_ / "one", 2, size);
    write_study(alone, folder_ / "again", 2, size);
    for (const char* other : {"one", "again"}) {
      const auto command =
          fmt::format("h5diff {0}/all/study.h5 {0}/{1}/study.h5", folder_.string(), other);
      EXPECT_EQ(std::system((command + " /phases").c_str()), 0) << command;
      EXPECT_EQ(std::system((command + " /fleet").c_str()), 0) << command;
      EXPECT_NE(std::system((command + " /timing > /dev/null").c_str()), 0)
          << "h5diff sees what differs";
    }
  }
}

}  // namespace
}  // namespace moevar::record
