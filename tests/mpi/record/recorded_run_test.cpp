#include "record/recorded_run.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "example.hpp"
#include "record/record.hpp"
#include "record/seal.hpp"
#include "system/hdf5.hpp"

namespace moevar::record {
namespace {

namespace fs = std::filesystem;
using example::make_phase;
using example::Size;

constexpr Size kSize{5, 3, 2};

/// A study of three phases that was not finished, on one rank.
class RecordedRunTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "moevar-recorded-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = fs::path(pattern);
    for (int index = 0; index < 3; ++index) {
      phases_.push_back(make_phase(world_, index, kSize));
      place(phases_.back());
      plan_.push_back(phases_.back().spec);
    }
    phases_[2].speeds_from = 0;
    phases_[2].speeds = phases_[0].speeds;
    StudyWriter writer(world_, folder_ / "run", example::header(4));
    for (const auto& phase : phases_) {
      writer.write(phase.record(), true);
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// Two replicas of each of ten experts, four slots on each device.
  static void place(example::Phase& phase) {
    constexpr std::size_t kSlots = 20;
    auto& placement = phase.placement;
    placement.slots_per_device = 4;
    placement.expert_of_slot = Matrix<std::int32_t>({2, kSlots});
    placement.share_of_slot = Matrix<double>({2, kSlots}, 0.5);
    placement.predicted_us = {0.1 + phase.spec.index, 0.2};
    placement.lower_bound_us = {0.1, 0.2};
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      for (std::size_t layer = 0; layer < 2; ++layer) {
        placement.expert_of_slot(layer, slot) = static_cast<std::int32_t>((slot + layer) % 10);
      }
    }
    phase.spec.experts = 10;
    phase.cell = example::summary_of(phase);
  }

  [[nodiscard]] fs::path file(int phase) const {
    return folder_ / "run/phases" / fmt::format("{:04}.h5", phase);
  }
  [[nodiscard]] RecordedRun recorded() const { return {folder_ / "run", plan_}; }
  static void flip(const fs::path& path, std::uintmax_t at) {
    std::fstream stream(path, std::ios::binary | std::ios::in | std::ios::out);
    stream.seekg(static_cast<std::streamoff>(at));
    const int byte = stream.get();
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(static_cast<char>(byte ^ 1));
  }

  mpi::Communicator world_ = mpi::Communicator::world();
  fs::path folder_;
  std::vector<example::Phase> phases_;
  std::vector<study::PhaseSpec> plan_;
};

TEST_F(RecordedRunTest, HoldsWhatThePhasesLeft) {
  const auto run = recorded();
  ASSERT_EQ(run.phases(), 3U);
  EXPECT_FALSE(run.damaged());
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(to_json_text(run.cell(i)), to_json_text(phases_[i].cell));
    EXPECT_EQ(run.state(i), phases_[i].to_resume);
    EXPECT_EQ(run.speeds_from(i), i == 2 ? 0U : i);
    const auto placement = run.placement(i);
    EXPECT_EQ(placement.expert_of_slot, phases_[i].placement.expert_of_slot);
    EXPECT_EQ(placement.share_of_slot, phases_[i].placement.share_of_slot);
    EXPECT_EQ(placement.predicted_us, phases_[i].placement.predicted_us);
    EXPECT_EQ(placement.policy, phases_[i].placement.policy);
    const auto speeds = run.speeds(i);
    ASSERT_EQ(speeds.size(), phases_[i].speeds.size());
    for (std::size_t d = 0; d < speeds.size(); ++d) {
      EXPECT_TRUE(std::ranges::equal(speeds[d].grid(), phases_[i].speeds[d].grid()));
      EXPECT_TRUE(std::ranges::equal(speeds[d].times(), phases_[i].speeds[d].times()));
    }
  }
  const auto fleet = run.fleet();
  ASSERT_EQ(fleet.size(), phases_[0].fleet.size());
  for (std::size_t d = 0; d < fleet.size(); ++d) {
    EXPECT_EQ(fleet[d].uuid, phases_[0].fleet[d].uuid);
    EXPECT_EQ(fleet[d].host, phases_[0].fleet[d].host);
    EXPECT_EQ(fleet[d].slot, phases_[0].fleet[d].slot);
  }
}

TEST_F(RecordedRunTest, EndsAtTheFirstPhaseThatIsNotWhole) {
  const auto size = fs::file_size(file(1));
  const fs::path copy = folder_ / "copy";
  fs::copy_file(file(1), copy);
  for (const std::uintmax_t at :
       {std::uintmax_t{0}, std::uintmax_t{100}, kSealBytes, size / 2, size - 1}) {
    flip(file(1), at);
    EXPECT_FALSE(is_whole(file(1))) << at;
    const auto run = recorded();
    EXPECT_EQ(run.phases(), 1U) << at;
    EXPECT_EQ(run.damaged(), file(1)) << at;
    flip(file(1), at);
    EXPECT_TRUE(is_whole(file(1))) << at;
  }
  for (const auto length : {std::uintmax_t{0}, std::uintmax_t{100}, kSealBytes, size - 1}) {
    fs::resize_file(file(1), length);
    EXPECT_EQ(recorded().phases(), 1U) << length;
    fs::remove(file(1));
    fs::copy_file(copy, file(1));
  }
  fs::resize_file(file(1), size + 1);
  EXPECT_EQ(recorded().phases(), 1U) << "longer than it was";
  fs::remove(file(1));
  const auto run = recorded();
  EXPECT_EQ(run.phases(), 1U);
  EXPECT_FALSE(run.damaged()) << "it is not there";
}

TEST_F(RecordedRunTest, RefusesAPhaseOfAnotherPlan) {
  plan_[1].policy = "another";
  EXPECT_THROW(recorded(), InputError);
}

TEST_F(RecordedRunTest, RefusesAFleetThatIsNotWhole) {
  flip(folder_ / "run/phases/fleet.h5", kSealBytes + 8);
  EXPECT_THROW((void)recorded().fleet(), InputError);
}

TEST_F(RecordedRunTest, AWriterGoesOnWithIt) {
  const auto before = recorded();
  {
    StudyWriter writer(world_, folder_ / "run", example::header(4), &before);
    writer.write(make_phase(world_, 3, kSize).record(), true);
    writer.finish();
    EXPECT_TRUE(fs::exists(file(0))) << "parts stay until all is written";
    EXPECT_FALSE(read_manifest(folder_ / "run")->complete);
    writer.remove_parts();
  }
  EXPECT_FALSE(fs::exists(file(0)));
  EXPECT_TRUE(read_manifest(folder_ / "run")->complete);
  const auto study = hdf5::File::open(folder_ / "run/study.h5");
  for (int i = 0; i < 4; ++i) {
    const auto phase = study.group("phases").group(fmt::format("{:04}", i));
    EXPECT_EQ(phase.attribute<std::int64_t>("index"), i);
    EXPECT_TRUE(phase.has("speed_model"));
    EXPECT_FALSE(study.has("resume"));
  }
}

TEST_F(RecordedRunTest, WhatLiesBehindADamagedPhaseIsPutAside) {
  fs::resize_file(file(1), 1000);
  const auto before = recorded();
  const StudyWriter writer(world_, folder_ / "run", example::header(4), &before);
  EXPECT_TRUE(fs::exists(file(0)));
  for (const int phase : {1, 2}) {
    EXPECT_FALSE(fs::exists(file(phase)));
    EXPECT_TRUE(fs::exists(fs::path(file(phase)) += ".old"));
  }
}

TEST_F(RecordedRunTest, ACompleteStudyIsNeverReplaced) {
  {
    const auto before = recorded();
    StudyWriter writer(world_, folder_ / "run", example::header(4), &before);
    writer.write(make_phase(world_, 3, kSize).record(), true);
    writer.finish();
  }
  fs::remove_all(folder_ / "run/phases");  // somebody tidied up
  const auto before = recorded();
  EXPECT_EQ(before.phases(), 0U);
  EXPECT_THROW(StudyWriter(world_, folder_ / "run", example::header(4), &before), Error);
  EXPECT_EQ(hdf5::File::open(folder_ / "run/study.h5").attribute<std::int64_t>("complete"), 1);
}

TEST_F(RecordedRunTest, OneThatComesSecondLeavesTheFirstAlone) {
  const StudyWriter first(world_, folder_ / "new", example::header(4));
  EXPECT_THROW(StudyWriter(world_, folder_ / "new", example::header(4)), Error);
  EXPECT_TRUE(fs::exists(folder_ / "new/study.h5"));
  EXPECT_TRUE(fs::exists(folder_ / "new/phases"));
}

}  // namespace
}  // namespace moevar::record
