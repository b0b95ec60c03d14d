#include <fstream>
#include <functional>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "record/manifest.hpp"
#include "record/recorded_run.hpp"
#include "record/seal.hpp"
#include "record/summary.hpp"
#include "system/hdf5.hpp"
#include "temporary_folder.hpp"

/// Files of a run that are well-formed and yet not what moevar writes.
namespace moevar::record {
namespace {

void expect_refused(const std::function<void()>& read, const std::string& part) {
  try {
    read();
    ADD_FAILURE() << "accepted; expected a message with " << part;
  } catch (const InputError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find(part), std::string::npos) << what;
    EXPECT_LT(what.size(), 600U);
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
  }
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const auto at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), by);
}

CellSummary cell() {
  CellSummary cell;
  cell.devices = 2;
  cell.experts = 4;
  cell.heat = "soaked";
  cell.policy = "eplb";
  return cell;
}

TEST(RecordedInput, NumbersOfACellThatNoIntegerHoldsAreRefused) {
  const auto text = to_json_text(cell());
  EXPECT_EQ(to_json_text(cell_from_json(text)), text);
  for (const char* number :
       {"2.5", "1e300", "4294967296", "18446744073709551615", "true", "[[4]]"}) {
    expect_refused(
        [&] {
          (void)cell_from_json(
              replaced(text, "\"experts\":4", std::string("\"experts\":") + number));
        },
        "experts is ");
  }
}

TEST(RecordedInput, MessagesAreOneLineWhateverTheFileHolds) {
  expect_refused([] { (void)cell_from_json("\x7F\n" + std::string(5000, 'a')); }, "not a cell");
  expect_refused([] { (void)summary_from_json("\"\x1B\n\x7F"); }, "not as moevar writes it");
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  expect_refused([&] { (void)manifest_from_json(R"({"schema": )" + deep + "}", "m.json"); },
                 "m.json: schema array; this version reads 1");
}

TEST(RecordedInput, SessionsAndInputsOfAManifestHaveWholeNumbers) {
  Manifest manifest;
  manifest.inputs = {{"a.json", 3, "ab"}};
  manifest.sessions.emplace_back();
  manifest.sessions.back().ranks = 2;
  const auto text = to_json_text(manifest);
  EXPECT_EQ(to_json_text(manifest_from_json(text, "m.json")), text);
  expect_refused(
      [&] {
        (void)manifest_from_json(replaced(text, "\"ranks\": 2", "\"ranks\": 1e99"), "m.json");
      },
      "ranks is 1e+99");
  expect_refused(
      [&] {
        (void)manifest_from_json(replaced(text, "\"bytes\": 3", "\"bytes\": -0.5"), "m.json");
      },
      "bytes is -0.5");
}

class RecordedPhase : public testing::Test {
 protected:
  /// One phase on two devices, whose placement says that it has `slots_per_device`.
  RecordedRun run(std::int64_t slots_per_device) {
    std::filesystem::create_directory(folder_.path() / "phases");
    const auto path = folder_.path() / "phases" / "0000.h5";
    {
      const auto file = hdf5::File::create(path, kSealBytes);
      const auto resume = file.create_group("resume");
      resume.set_attribute("cell", to_json_text(cell()));
      resume.set_attribute("speeds_from", std::int64_t{0});
      const auto phase = file.create_group("phase");
      phase.create_group("placement").set_attribute("slots_per_device", slots_per_device);
      const auto speeds = phase.create_group("speed_model");
      const hdf5::Layout chunks{{2, 1024}, 1};
      // never written: the file has nothing of the 128 GiB
      (void)speeds.create_dataset<double>("tokens", {2, std::size_t{1} << 33U}, chunks);
    }
    seal(path);
    study::PhaseSpec spec;
    spec.devices = cell().devices;
    spec.experts = cell().experts;
    spec.policy = cell().policy;
    return {folder_.path(), {spec}};
  }
  TemporaryFolder folder_;
};

TEST_F(RecordedPhase, SlotsThatOverflowAreRefused) {
  const auto recorded = run(std::int64_t{1} << 62U);
  ASSERT_EQ(recorded.phases(), 1U);
  expect_refused([&] { (void)recorded.placement(0); }, "slots on a device");
}

TEST_F(RecordedPhase, AShapeThatTheFileCannotHoldTakesNoMemory) {
  const auto recorded = run(2);
  ASSERT_EQ(recorded.phases(), 1U);
  expect_refused([&] { (void)recorded.speeds(0); }, "bytes by its shape, but the file has 0");
}

}  // namespace
}  // namespace moevar::record
