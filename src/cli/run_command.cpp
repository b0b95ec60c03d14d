#include <filesystem>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "cli/commands.hpp"
#include "cli/interruption.hpp"
#include "cli/progress.hpp"
#include "cli/study_options.hpp"
#include "record/manifest.hpp"
#include "record/summary.hpp"
#include "run/runner.hpp"
#include "run/watchdog.hpp"
#include "system/files.hpp"
#include "system/mpi.hpp"
#include "system/signals.hpp"

namespace moevar::cli {

namespace {

class RunCommand : public Command {
 public:
  void add_options(CLI::App& app) override {
    study_.add_to(app, false);
    app.add_option("--out", out_,
                   "folder for study.h5, summary.json and manifest.json; must not hold a run")
        ->required();
    app.add_flag("--resume", resume_,
                 "go on with the run that --out holds at its first phase that is not whole; "
                 "where it holds none, begin one");
    app.add_option("--hang-limit", hang_limit_s_,
                   "seconds after which ranks that give no sign of life, or that all others wait "
                   "for, are named and the job ends with status 3; 0: never")
        ->capture_default_str()
        ->check(CLI::IsMember({0.0}) | CLI::Range(1.0, 1e6));
    app.add_flag("--share-gpu", share_gpu_,
                 "ranks may have the same GPU; the same as --set fleet.share_gpu=true");
    app.add_option("--from", from_, "folder of a recorded run to repeat, instead of STUDY");
  }

  ExitStatus run(int argc, char** argv) override {
    check_options();
    if (share_gpu_) {
      study_.overrides.emplace_back("fleet.share_gpu=true");
    }
    const signals::Watch watch(note_request, end_on_signal);
    const mpi::Session session(&argc, &argv);
    const auto world = mpi::Communicator::world();
    run::RunOptions options{.directory = out_,
                            .version = version(),
                            .program = build_facts(),
                            .study_text = {},
                            .overrides = study_.overrides,
                            .resume = resume_,
                            .stop_requested = [&watch] { return watch.requested(); }};
    const auto parsed = read_study(world, options);
    std::optional<run::Watchdog> watchdog;
    if (hang_limit_s_ > 0.0) {
      watchdog.emplace(world, run::Seconds(hang_limit_s_), end_hung);
    }
    ProgressBar progress;
    const auto summary = run::run_study(world, parsed, options, progress);
    if (world.is_root()) {
      fmt::print("\n{}\n{}: study.h5, summary.json, manifest.json\n", record::render_table(summary),
                 out_);
    }
    return ExitStatus::ok;
  }

 private:
  void check_options() const {
    if (out_.empty()) {
      throw InputError("--out: empty; it must name a folder");
    }
    if (study_.path.empty() == from_.empty()) {
      throw InputError(from_.empty() ? "STUDY: missing; give a study file, or --from DIR"
                                     : "--from: there is a STUDY as well; only one of them can be "
                                       "run");
    }
  }

  /// The study on every rank, from one reading; `options` gets what the manifest says of it.
  study::ParsedStudy read_study(const mpi::Communicator& world, run::RunOptions& options) const {
    study::ParsedStudy parsed;
    mpi::on_root(world, [&] {
      options.study_text =
          from_.empty() ? files::read_text(study_.path) : record::to_json_text(manifest_of(from_));
      parsed = parse(options);
    });
    world.broadcast(options.study_text);
    if (!world.is_root()) {
      parsed = parse(options);
    }
    if (options.repeats) {
      options.study_text = options.repeats->study_text;
    }
    return parsed;
  }

  static record::Manifest manifest_of(const std::string& folder) {
    auto manifest = record::read_manifest(folder);
    if (!manifest) {
      throw InputError(fmt::format(
          "--from {}: there is no manifest.json; it must be the folder of a run", folder));
    }
    return std::move(*manifest);
  }

  /// `options.study_text` is the study's, or the manifest's of the run to repeat.
  study::ParsedStudy parse(run::RunOptions& options) const {
    if (from_.empty()) {
      return study_.parse(options.study_text);
    }
    const auto name = (std::filesystem::path(from_) / "manifest.json").string();
    options.repeats = record::manifest_from_json(options.study_text, name);
    return study::parse_expanded(options.repeats->study_toml, name, study_.overrides);
  }

  StudyOptions study_;
  std::string out_;
  std::string from_;
  bool resume_ = false;
  bool share_gpu_ = false;
  double hang_limit_s_ = 600.0;
};

}  // namespace

std::unique_ptr<Command> make_run_command() { return std::make_unique<RunCommand>(); }

}  // namespace moevar::cli
