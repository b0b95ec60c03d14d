#include <filesystem>

#include <fmt/format.h>

#include "cli/commands.hpp"
#include "cli/interruption.hpp"
#include "cli/progress.hpp"
#include "cli/study_options.hpp"
#include "record/summary.hpp"
#include "run/runner.hpp"
#include "system/files.hpp"
#include "system/mpi.hpp"

namespace moevar::cli {

namespace {

class RunCommand : public Command {
 public:
  void add_options(CLI::App& app) override {
    study_.add_to(app);
    app.add_option("--out", out_, "folder for study.h5 and summary.json; must not hold a run")
        ->required();
  }

  ExitStatus run(int argc, char** argv) override {
    if (out_.empty()) {
      throw InputError("--out: empty; it must name a folder");
    }
    const signals::Watch watch(end_on_signal);
    const mpi::Session session(&argc, &argv);
    const auto world = mpi::Communicator::world();
    study::ParsedStudy parsed;
    std::string text;
    mpi::on_root(world, [&] {
      text = files::read_text(study_.path);
      parsed = study_.parse(text);
    });
    world.broadcast(text);
    if (!world.is_root()) {
      parsed = study_.parse(text);
    }
    ProgressBar progress;
    const auto summary = run::run_study(world, parsed, out_, version(), progress);
    if (world.is_root()) {
      fmt::print("\n{}\n{}: study.h5, summary.json\n", record::render_table(summary), out_);
    }
    return ExitStatus::ok;
  }

 private:
  StudyOptions study_;
  std::string out_;
};

}  // namespace

std::unique_ptr<Command> make_run_command() { return std::make_unique<RunCommand>(); }

}  // namespace moevar::cli
