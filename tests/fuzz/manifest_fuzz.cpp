#include "fuzz.hpp"
#include "record/manifest.hpp"
#include "record/summary.hpp"

/// What a run's folder says of the run: manifest.json, summary.json, and a phase's cell of it.
namespace {

using namespace moevar;

void check_manifest(const std::string& text) {
  const auto manifest = record::manifest_from_json(text, "manifest.json");
  const auto written = record::to_json_text(manifest);
  try {
    fuzz::require(record::to_json_text(record::manifest_from_json(written, "again")) == written,
                  "a manifest changes when it is written and read", written);
  } catch (const InputError& error) {
    fuzz::finding("a manifest is written, and refused when read", error.what());
  }
  for (const auto& session : manifest.sessions) {
    fuzz::require(record::differences(session, session).empty(), "a session differs from itself");
    for (const auto& line : record::differences(manifest.sessions.front(), session)) {
      fuzz::require_one_line(line);
    }
  }
}

void check_cell(const std::string& text) {
  const auto written = record::to_json_text(record::cell_from_json(text));
  try {
    fuzz::require(record::to_json_text(record::cell_from_json(written)) == written,
                  "a cell changes when it is written and read", written);
  } catch (const InputError& error) {
    fuzz::finding("a cell is written, and refused when read", error.what());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto input = fuzz::split({data, size});
  const int kind = input.pick(3);
  fuzz::accepted([&] {
    if (kind == 0) {
      check_manifest(input.text);
    } else if (kind == 1) {
      check_cell(input.text);
    } else {
      (void)record::render_table(record::summary_from_json(input.text));
    }
  });
  return 0;
}
