#include "record/manifest.hpp"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "system/files.hpp"

namespace moevar::record {
namespace {

Session session(const std::string& kernel) {
  return {.started = "2026-11-22T11:12:47Z",
          .first_phase = 3,
          .ranks = 2,
          .program = {{"compiler", "GNU 12.2.0"}, {"MPI", "Open MPI v4.1.4"}},
          .hosts = {{"node1", {{"kernel", kernel}, {"GPU 0", "H100, GPU-1"}}}},
          .environment = {{"OMP_NUM_THREADS", "1"}}};
}

Manifest manifest() {
  return {.study_path = "a study.toml",
          .study_text = "[study]\nname = \"µ\"\n",
          .overrides = {"study.seed=4"},
          .study_toml = "[study]\n",
          .inputs = {{"counts.json", 12, "abc"}},
          .complete = true,
          .sessions = {session("6.1"), session("6.2")}};
}

TEST(Manifest, IsReadBackAsItWasWritten) {
  const auto text = to_json_text(manifest());
  const auto back = manifest_from_json(text, "manifest.json");
  EXPECT_EQ(to_json_text(back), text);
  EXPECT_EQ(back.study_text, manifest().study_text);
  EXPECT_EQ(back.inputs, manifest().inputs);
  EXPECT_EQ(back.sessions.at(1).hosts.at("node1").at("kernel"), "6.2");
}

TEST(Manifest, IsNotThereInAnEmptyFolder) {
  std::string pattern = (std::filesystem::temp_directory_path() / "moevar-XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  EXPECT_FALSE(read_manifest(pattern));
  write_manifest(pattern, manifest());
  EXPECT_EQ(to_json_text(read_manifest(pattern).value()), to_json_text(manifest()));
  std::filesystem::remove_all(pattern);
}

TEST(Manifest, OfAnotherKindIsRefused) {
  const auto text = to_json_text(manifest());
  for (const auto& broken :
       {std::string("{"), std::string("[]"), std::string("{\"schema\": 2}"), text.substr(0, 200),
        std::string(R"({"schema": 1, "complete": "yes"})")}) {
    EXPECT_THROW((void)manifest_from_json(broken, "manifest.json"), InputError) << broken;
  }
}

TEST(Differences, NameWhatChanged) {
  EXPECT_TRUE(differences(session("6.1"), session("6.1")).empty());
  auto now = session("6.2");
  now.started = "later";
  now.ranks = 7;
  now.hosts["node1"].erase("GPU 0");
  now.hosts["node1"]["GPU 1"] = "H100, GPU-2";
  now.hosts["node2"] = {{"kernel", "6.2"}};
  now.program["MPI"] = "Open MPI v5";
  now.environment.clear();
  EXPECT_EQ(
      differences(session("6.1"), now),
      (std::vector<std::string>{
          "MPI: Open MPI v4.1.4 before, Open MPI v5 now",
          "GPU 0 of node1: H100, GPU-1 before, none now",
          "GPU 1 of node1: none before, H100, GPU-2 now", "kernel of node1: 6.1 before, 6.2 now",
          "node2 is a host that it did not run on before", "OMP_NUM_THREADS: 1 before, none now"}));
}

}  // namespace
}  // namespace moevar::record
