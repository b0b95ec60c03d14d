#include "conditions/heal.hpp"

#include <fstream>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "conditions/capture.hpp"
#include "fake_gpus.hpp"

namespace moevar::conditions {
namespace {

using fake_nvml::FakeGpus;

/// Found at 650 W, of which 600 W were enforced by something else; set to 500 and 400 W since,
/// where 450 W were seen.
Capture example() {
  Capture capture{FakeGpus::uuid(0), boot_id(), 650'000, 600'000, {650'000, 600'000}, 4711, "", ""};
  for (const Milliwatts limit : {500'000U, 400'000U, 450'000U}) {
    capture.add(limit);
  }
  return capture;
}

TEST(HealStep, EveryRule) {
  struct Case {
    HealFacts facts;
    HealStep step;
    const char* why;
  };
  const std::vector<Case> cases{
      {{true, 650'000, 600'000}, HealStep::keep_none, "it is as it was found"},
      {{true, 650'000, 650'000}, HealStep::keep_none, "the other limiter is gone"},
      {{true, 650'000, 620'000}, HealStep::keep_none, "the other limiter changed"},
      {{true, 650'000, 500'000}, HealStep::restore, "asked for, but not yet enforced"},
      {{true, 500'000, 500'000}, HealStep::restore, "set by the run"},
      {{true, 400'000, 450'000}, HealStep::restore, "set by the run, clamped"},
      {{true, 450'000, 450'000}, HealStep::restore, "only ever seen enforced"},
      {{true, 700'000, 700'000}, HealStep::report, "neither: somebody else's"},
      {{true, 700'000, 500'000}, HealStep::report, "somebody else's, not yet enforced"},
      {{false, 650'000, 600'000}, HealStep::discard, "rebooted, as found"},
      {{false, 700'000, 700'000}, HealStep::discard, "rebooted, default"},
      {{false, 500'000, 500'000}, HealStep::report, "rebooted, but the limit of the run is there"},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(heal_step(example(), one.facts), one.step) << one.why;
  }
}

class Heal : public testing::Test {
 protected:
  void SetUp() override {
    gpus.reset();
    gpus.gpu(0).requested_mw = 650'000;
    auto capture = example();
    capture.previous_enforced_mw = 650'000;
    save_capture(gpus.folder(), capture);
  }
  [[nodiscard]] bool captured() const {
    return load_capture(gpus.folder(), FakeGpus::uuid(0)).has_value();
  }
  Outcome heal_it(int patience_ms = 1000) {
    return heal(gpus.folder(), FakeGpus::uuid(0), std::chrono::milliseconds(patience_ms));
  }
  FakeGpus& gpus = FakeGpus::only();
};

TEST_F(Heal, RestoresAndDeletesTheFileAfterTheReadBackAlone) {
  gpus.gpu(0).requested_mw = 400'000;
  gpus.gpu(0).slow_ms = 300;
  const auto begin = fake_nvml::now_ns();
  EXPECT_TRUE(heal_it().healed);
  EXPECT_GE(fake_nvml::now_ns() - begin, 300'000'000U) << "the limit was not there yet";
  EXPECT_EQ(enforced_mw(gpus.gpu(0), fake_nvml::now_ns()), 650'000U);
  EXPECT_FALSE(captured());
}

TEST_F(Heal, KeepsTheFileWhereItFails) {
  gpus.gpu(0).requested_mw = 400'000;
  gpus.gpu(0).refuse = 1;
  auto end = heal_it();
  EXPECT_FALSE(end.healed);
  EXPECT_FALSE(end.theirs);
  EXPECT_NE(end.text.find("root's rights"), std::string::npos) << end.text;
  EXPECT_TRUE(captured());
  gpus.gpu(0).refuse = 0;
  gpus.gpu(0).lost = 1;
  end = heal_it();
  EXPECT_FALSE(end.healed);
  EXPECT_NE(end.text.find("GPU is lost"), std::string::npos) << end.text;
  EXPECT_TRUE(captured());
  gpus.gpu(0).lost = 0;
  gpus.gpu(0).slow_ms = 60'000;
  end = heal_it(150);
  EXPECT_FALSE(end.healed) << "400 W is still enforced";
  EXPECT_TRUE(captured());
  gpus.gpu(0).slow_ms = 0;
  EXPECT_TRUE(heal_it().healed);
  EXPECT_FALSE(captured());
}

TEST_F(Heal, LeavesWhatSomebodyElseSet) {
  gpus.gpu(0).requested_mw = 555'000;
  const auto end = heal_it();
  EXPECT_FALSE(end.healed);
  EXPECT_TRUE(end.theirs);
  EXPECT_EQ(gpus.gpu(0).writes, 0U);
  EXPECT_TRUE(captured());
}

TEST_F(Heal, WritesNothingWhereNothingIsLeft) {
  EXPECT_TRUE(heal_it().healed);
  EXPECT_EQ(gpus.gpu(0).writes, 0U);
  EXPECT_FALSE(captured());
  EXPECT_TRUE(heal_it().healed) << "without a capture there is nothing to do";
}

TEST_F(Heal, DiscardsAfterAReboot) {
  auto capture = example();
  capture.boot_id = "00000000-0000-0000-0000-000000000000";
  save_capture(gpus.folder(), capture);
  gpus.gpu(0).requested_mw = 700'000;
  EXPECT_TRUE(heal_it().healed);
  EXPECT_EQ(gpus.gpu(0).writes, 0U);
  EXPECT_FALSE(captured());
}

TEST_F(Heal, AGpuThatIsGoneSinceARebootIsForgotten) {
  auto capture = example();
  capture.uuid = "GPU-gone";
  save_capture(gpus.folder(), capture);
  EXPECT_FALSE(heal(gpus.folder(), "GPU-gone").healed) << "it may come back in this boot";
  EXPECT_EQ(captured_uuids(gpus.folder()).size(), 2U);
  capture.boot_id = "00000000-0000-0000-0000-000000000000";
  save_capture(gpus.folder(), capture);
  EXPECT_TRUE(heal(gpus.folder(), "GPU-gone").healed);
  EXPECT_EQ(captured_uuids(gpus.folder()), std::vector{FakeGpus::uuid(0)});
}

TEST_F(Heal, CapturesAreThisUsersAlone) {
  for (const mode_t mask : {0000U, 0777U}) {
    const auto before = ::umask(mask);
    std::filesystem::remove(gpus.folder() / (FakeGpus::uuid(0) + ".json"));
    save_capture(gpus.folder(), example());
    ::umask(before);
    struct stat info {};
    ASSERT_EQ(::stat((gpus.folder() / (FakeGpus::uuid(0) + ".json")).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U);
  }
}

TEST_F(Heal, AnUnreadableCaptureIsReported) {
  std::ofstream(gpus.folder() / (FakeGpus::uuid(0) + ".json")) << "{\"schema\": 1}";
  const auto end = heal_it();
  EXPECT_FALSE(end.healed);
  EXPECT_EQ(gpus.gpu(0).writes, 0U);
}

TEST_F(Heal, CapturesComeBackAsTheyWere) {
  auto capture = example();
  capture.study = "a \"study\"\n\xff";
  save_capture(gpus.folder(), capture);
  const auto back = load_capture(gpus.folder(), capture.uuid);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->ours_mw, capture.ours_mw);
  EXPECT_EQ(back->previous_mw, 650'000U);
  EXPECT_EQ(back->previous_enforced_mw, 600'000U);
  EXPECT_EQ(back->pid, 4711);
  EXPECT_EQ(captured_uuids(gpus.folder()), std::vector{capture.uuid});
  EXPECT_FALSE(capture.add(450'000)) << "known";
  EXPECT_THROW((void)load_capture(gpus.folder(), "../x"), EnvironmentError);
}

TEST_F(Heal, TheStateFolderIsThisUsersAlone) {
  EXPECT_EQ(state_folder(), gpus.folder());
  std::filesystem::remove_all(gpus.folder());
  EXPECT_EQ(state_folder(), gpus.folder());
  struct stat info {};
  ASSERT_EQ(::stat(gpus.folder().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);
  ASSERT_EQ(::chmod(gpus.folder().c_str(), 0770), 0);
  EXPECT_THROW(state_folder(), EnvironmentError);
  ASSERT_EQ(::chmod(gpus.folder().c_str(), 0755), 0);
  EXPECT_EQ(state_folder(), gpus.folder());
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(gpus.folder().c_str(), 12345, 0), 0);
    EXPECT_THROW(state_folder(), EnvironmentError);
    ASSERT_EQ(::chown(gpus.folder().c_str(), 0, 0), 0);
  }
}

}  // namespace
}  // namespace moevar::conditions
