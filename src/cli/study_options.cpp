#include "cli/study_options.hpp"

#include <fmt/format.h>

#include "cli/commands.hpp"

namespace moevar::cli {

void StudyOptions::add_to(CLI::App& app, bool required) {
  app.add_option("STUDY", path, "study file, TOML")->required(required);
  app.add_option("--set", overrides, "section.key=value: overrides the file; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  std::string footer = "Keys of a study file, with their defaults:\n";
  for (const auto& key : study::key_help()) {
    footer += fmt::format("  {:<28} {}\n  {:<28}   {}\n", key.name,
                          key.default_value.empty() ? "-" : key.default_value, "", key.help);
  }
  app.footer(footer + policy_help());
}

study::ParsedStudy StudyOptions::parse(const std::string& text) const {
  return study::parse(text, path, overrides);
}

}  // namespace moevar::cli
