#include "study/parse.hpp"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "study/model_presets.hpp"

namespace moevar::study {
namespace {

constexpr const char* kStudy = R"(
[study]
name = "test"
seed = 7
[model]
preset = "deepseek-v3"
[fleet]
device = "model"
devices = [8, 16]
[conditions]
power_cap_w = [700, 500.5]
[placement]
policies = ["contiguous", "eplb"]
)";

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    (void)parse(text, "s.toml", overrides);
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "no error";
}

#define EXPECT_ERROR(text, part) \
  EXPECT_NE(error_of(text).find(part), std::string::npos) << error_of(text)

TEST(Parse, ReadsWhatIsWrittenAndDefaultsTheRest) {
  const auto study = parse(kStudy, "s.toml").study;
  EXPECT_EQ(study.name, "test");
  EXPECT_EQ(study.seed, 7U);
  EXPECT_EQ(study.model.experts, 256);
  EXPECT_EQ(study.model.layers, 58);
  EXPECT_EQ(study.fleet.device, DeviceKind::model);
  EXPECT_EQ(study.fleet.devices, (std::vector<int>{8, 16}));
  EXPECT_EQ(study.conditions.power_cap_w, (std::vector<double>{700, 500.5}));
  EXPECT_EQ(study.conditions.heat, std::vector<Heat>{Heat::soaked});
  EXPECT_EQ(study.phases.steps, Study{}.phases.steps);
}

TEST(Parse, GpusAreOrdinalsOrUuids) {
  const auto gpus_of = [](const std::string& value) {
    const auto study = parse(kStudy, "s.toml", {"fleet.gpus=" + value}).study;
    EXPECT_EQ(parse(to_toml(study), "again.toml").study.fleet.gpus, study.fleet.gpus);
    return study.fleet.gpus;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(gpus_of("[]"), Names{});
  EXPECT_EQ(gpus_of("[3, 0, 3]"), (Names{"3", "0", "3"})) << "whether twice is right, sharing says";
  EXPECT_EQ(gpus_of("1"), Names{"1"});
  EXPECT_EQ(gpus_of("GPU-a-1"), Names{"GPU-a-1"});
  EXPECT_EQ(gpus_of(R"([2, "GPU-a-1", "MIG-b"])"), (Names{"2", "GPU-a-1", "MIG-b"}));
  for (const auto* wrong : {"-1", "1024", "0.5", "[true]", R"(["1"])", "0,1", "[GPU-a]", "gpu-a"}) {
    const auto error = error_of(kStudy, {std::string("fleet.gpus=") + wrong});
    EXPECT_NE(error.find("a CUDA ordinal from 0 to 1023, or a UUID"), std::string::npos) << error;
  }
  EXPECT_FALSE(parse(kStudy, "s.toml").study.fleet.share_gpu);
  EXPECT_TRUE(parse(kStudy, "s.toml", {"fleet.share_gpu=true"}).study.fleet.share_gpu);
}

TEST(Parse, ASingleSizeChangesThePresetWhereverItStands) {
  const auto study = parse("[model]\nexperts = 64\npreset = \"deepseek-v3\"\n", "s.toml").study;
  EXPECT_EQ(study.model.experts, 64);
  EXPECT_EQ(study.model.hidden, 7168);
}

TEST(Parse, OverridesWinAndLaterOnesMore) {
  const auto study = parse(kStudy, "s.toml",
                           {"fleet.devices=[32]", "study.seed=8", "study.seed=9", "fleet.devices=4",
                            "workload.path=a b/c.json", "fleet.homogeneous=true"})
                         .study;
  EXPECT_EQ(study.fleet.devices, std::vector<int>{4});
  EXPECT_EQ(study.seed, 9U);
  EXPECT_EQ(study.workload.path, "a b/c.json");
  EXPECT_TRUE(study.fleet.homogeneous);
}

TEST(Parse, AnOverriddenTextMayLookLikeAnotherType) {
  const auto study = parse(kStudy, "s.toml", {"workload.path=2024-01-01", "study.name=true"}).study;
  EXPECT_EQ(study.workload.path, "2024-01-01");
  EXPECT_EQ(study.name, "true");
}

TEST(Parse, WhatItWritesItReadsBack) {
  for (const std::vector<std::string>& overrides :
       {std::vector<std::string>{},
        {"conditions.power_cap_w=[]", "study.name='a \"quoted\" name'", "workload.skew=1e-7"}}) {
    const auto text = to_toml(parse(kStudy, "s.toml", overrides).study);
    EXPECT_EQ(to_toml(parse(text, "again.toml").study), text);
  }
}

TEST(Parse, ATextComesBackWhateverStandsInIt) {
  auto study = parse(kStudy, "s.toml").study;
  for (const std::string name :
       {"\n first line empty", "a\n\"\"\"b\\", "'''", "\t\x01\x7F\r\n", "\\u0041 \xC3\xA9"}) {
    study.name = name;
    EXPECT_EQ(parse(to_toml(study), "again.toml").study.name, name) << to_toml(study);
    EXPECT_EQ(parse(kStudy, "s.toml", {"study.name=" + name}).study.name, name);
  }
}

TEST(Parse, ErrorsNameFileLineKeyAndTheNearestKey) {
  EXPECT_ERROR("[model]\npreset = \"deepseek-v3\"\n[workload]\nskwe = 1.0\n",
               "s.toml:4: workload.skwe: no such key; the nearest is workload.skew");
  EXPECT_ERROR("[worklaod]\nskew = 1.0\n",
               "s.toml:2: worklaod.skew: no such key; the nearest is workload.skew");
  EXPECT_ERROR("skew = 1.0\n", "s.toml:1: skew: no such key");
  EXPECT_ERROR("[study\nname = 1\n", "s.toml:1: not TOML");
  EXPECT_ERROR("fleet = 3\n", "s.toml:1: fleet is a section: write [fleet]");
  EXPECT_ERROR("[[fleet]]\ndevices = 3\n", "fleet is a section: write [fleet]");
  EXPECT_ERROR("[study]\nname = \"a\nb\"\n", "s.toml:2: not TOML");
  EXPECT_ERROR("[model]\npreset = \"deepseek-v4\"\n",
               "s.toml:2: model.preset: 'deepseek-v4' is not a model preset; nearest: deepseek-v3");
}

TEST(Parse, ErrorsSayWhatWouldBeRight) {
  const std::string model = "[model]\npreset = \"deepseek-v3\"\n";
  EXPECT_ERROR(model + "[workload]\nskew = -1\n",
               "s.toml:4: workload.skew: -1 is not a number from 0 to 10");
  EXPECT_ERROR(model + "[workload]\nskew = nan\n", "is not a number from 0 to 10");
  EXPECT_ERROR(model + "[workload]\nskew = inf\n", "is not a number from 0 to 10");
  EXPECT_ERROR(model + "[workload]\nskew = \"1\"\n", "is not a number from 0 to 10");
  EXPECT_ERROR(model + "[study]\nseed = 1.5\n", "is not a whole number");
  EXPECT_ERROR(model + "[study]\norder = \"random\"\n", "is not one of randomised, listed");
  EXPECT_ERROR(model + "[fleet]\ndevices = 0\n", "fleet.devices: 0 is not a whole number from 1");
  EXPECT_ERROR(model + "[fleet]\ndevices = []\n", "is not a list with at least one element");
  EXPECT_ERROR(model + "[fleet]\ndevices = [8, 8]\n",
               "is not a list in which nothing stands twice");
  EXPECT_ERROR(model + "[fleet]\ndevices = [8, -8]\n", "-8 is not a whole number from 1");
  EXPECT_ERROR(model + "[fleet]\nhomogeneous = 1\n", "1 is not true or false");
  EXPECT_ERROR(model + "[placement]\npolicies = [1]\n", "is not text in quotation marks");
  EXPECT_ERROR(model + "[conditions]\nheat = [\"hot\"]\n",
               "is not one of ambient, soaked, neighbours");
}

TEST(Parse, ChecksKeysTogether) {
  const std::string model = "[model]\npreset = \"deepseek-v3\"\n";
  EXPECT_ERROR("", "s.toml: model.hidden: missing");
  EXPECT_ERROR(model + "top_k = 300\n",
               "s.toml:3: model.top_k: 300 experts a token, but a layer has 256");
  EXPECT_ERROR(model + "[workload]\nkind = \"counts\"\n", "workload.path: missing");
  EXPECT_ERROR(model + "[fleet]\ndevices = [8, 7]\n",
               "s.toml:4: fleet.devices: 256 slots of a layer");
  EXPECT_ERROR(model + "layers = 0\n", "model.layers: missing");
}

TEST(Parse, RefusesAPlanThatNoMachineHolds) {
  const std::string model = "[model]\npreset = \"deepseek-v3\"\n[study]\ncauses = true\n";
  EXPECT_ERROR(model + "repeats = 100000\n",
               "s.toml:5: study.repeats: 1200000 phases in all; at most 1048576 are possible");
  EXPECT_EQ(error_of(model + "repeats = 80000\n"), "no error");
}

TEST(Parse, OverrideErrorsNameTheOverride) {
  EXPECT_NE(error_of(kStudy, {"fleet.device=[8]"}).find("--set fleet.device=[8]: fleet.device: "),
            std::string::npos);
  EXPECT_NE(error_of(kStudy, {"fleet.devises=8"}).find("the nearest is fleet.devices"),
            std::string::npos);
  EXPECT_NE(error_of(kStudy, {"nonsense"}).find("want section.key=value"), std::string::npos);
  EXPECT_NE(error_of(kStudy, {"a b=1"}).find("is no key"), std::string::npos);
  EXPECT_NE(error_of(kStudy, {"fleet.devices=7"}).find("don't divide over 7"), std::string::npos);
}

TEST(Presets, AreThePublishedShapes) {
  EXPECT_EQ(model_presets().size(), 15U);
  for (const auto& preset : model_presets()) {
    const auto study =
        parse("[model]\npreset = \"" + preset.preset + "\"\n[fleet]\ndevices = 1\n", "s.toml")
            .study;
    EXPECT_EQ(study.model.hidden, preset.hidden);
    EXPECT_LE(preset.top_k, preset.experts);
    EXPECT_GT(preset.layers, 0);
  }
}

TEST(Help, NamesEveryKeyOnce) {
  std::set<std::string> names;
  for (const auto& key : key_help()) {
    EXPECT_FALSE(key.help.empty()) << key.name;
    EXPECT_TRUE(names.insert(key.name).second) << key.name;
  }
  for (const auto* section :
       {"study", "model", "workload", "fleet", "conditions", "placement", "phases", "record"}) {
    EXPECT_TRUE(std::ranges::any_of(names, [&](const auto& name) {
      return name.starts_with(std::string(section) + ".");
    })) << section;
  }
}

}  // namespace
}  // namespace moevar::study
