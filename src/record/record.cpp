#include "record/record.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "record/pace.hpp"
#include "record/phase_file.hpp"
#include "system/files.hpp"
#include "system/hdf5.hpp"
#include "system/sha256.hpp"

namespace moevar::record {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSchemaVersion = 1;
/// Bytes of study.h5 outside its phases: attributes, links ...
constexpr std::uintmax_t kRoomForMaster = std::uintmax_t{1} << 20U;
/// ... and a device of the fleet.
constexpr std::uintmax_t kRoomForDevice = 256;
/// ... and a phase's name and links.
constexpr std::uintmax_t kRoomForPhase = 512;
constexpr auto kStudyFile = "study.h5";
constexpr auto kPhasesFolder = "phases";
constexpr auto kFleetFile = "fleet.h5";

/// `work` with the error that all ranks share told again in one line: `what` went wrong, the
/// reason, and what is left of the study. The exit status stays.
void explained(const std::string& what, const std::string& outcome,
               const std::function<void()>& work) {
  try {
    work();
  } catch (const mpi::SharedError& error) {
    throw mpi::SharedError(error.status(), fmt::format("{}: {}; {}", what, error.what(), outcome));
  }
}

}  // namespace

bool holds_run(const fs::path& directory) {
  std::error_code ignored;
  const auto has = [&](const char* name) { return fs::exists(directory / name, ignored); };
  return has(kStudyFile) || has(kPhasesFolder) || has("summary.json");
}

/// While a study runs, study.h5 is a small master with links to one file per phase: a phase is
/// finished by one rename, and the master is only ever replaced whole.
class StudyWriter::Impl {
 public:
  Impl(const mpi::Communicator& comm, fs::path directory, StudyHeader header)
      : comm_(&comm),
        directory_(std::move(directory)),
        header_(std::move(header)),
        pace_(header_.planned_phases) {
    mpi::on_root(comm, [this] { create(); });
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  /// Tells study.h5 of the last phases where a run ends early.
  ~Impl() {
    if (comm_->is_root() && !finished_ && listed_ < phases_.size()) {
      try {
        replace_master(phases_);
      } catch (...) {  // NOLINT(bugprone-empty-catch): they are safe in phases/ all the same
      }
    }
  }

  void write(const PhaseRecord& phase, bool with_timelines) {
    const auto target = phase_path(phase.spec.index);
    auto temporary = target;
    temporary += ".tmp";
    explained(fmt::format("phase {} is not recorded", phase.spec.index),
              fmt::format("{} finished phases are kept in {}", phases_.size(), directory_.string()),
              [&] {
                mpi::on_root(*comm_, [&] {
                  if (finished_ || std::ranges::count(phases_, phase.spec.index) > 0) {
                    throw CheckError("the study holds it already, or is finished");
                  }
                });
                try {
                  write_phase_file(*comm_, temporary, phase, with_timelines);
                  mpi::on_root(*comm_, [&] { add(phase, temporary, target); });
                } catch (...) {
                  if (comm_->is_root()) {
                    files::discard(temporary);
                  }
                  throw;
                }
              });
    phases_.push_back(phase.spec.index);
    speeds_from_[phase.spec.index] = phase.speeds_from;
  }

  [[nodiscard]] bool up_to_date() const { return listed_ == phases_.size(); }

  void finish() {
    if (std::exchange(finished_, true)) {
      return;
    }
    explained("study.h5 is not joined into one file",
              fmt::format("its {} phases are kept in {}", phases_.size(), directory_.string()),
              [&] { mpi::on_root(*comm_, [this] { join(); }); });
  }

 private:
  [[nodiscard]] fs::path study_path() const { return directory_ / kStudyFile; }
  [[nodiscard]] fs::path phase_path(int index) const {
    return directory_ / kPhasesFolder / (phase_name(index) + ".h5");
  }

  void create() {
    if (holds_run(directory_)) {
      throw InputError(fmt::format(
          "{} already holds a run, and no result is ever overwritten; give another folder",
          directory_.string()));
    }
    std::vector<fs::path> made;
    try {
      made = files::make_folders(directory_);
      fs::create_directory(directory_ / kPhasesFolder);
      replace_fleet(header_.pool);
      replace_master({});
      files::sync(directory_);
      files::sync(fs::absolute(directory_).lexically_normal().parent_path());
    } catch (const std::exception& error) {
      std::error_code ignored;
      fs::remove_all(directory_ / kPhasesFolder, ignored);
      fs::remove(study_path(), ignored);
      for (; !made.empty(); made.pop_back()) {
        fs::remove(made.back(), ignored);
      }
      throw EnvironmentError(
          fmt::format("cannot record into {}: {}; give a folder that can be written",
                      directory_.string(), error.what()));
    }
  }

  /// Names the finished phase file, then tells the master of it; undone where that fails.
  void add(const PhaseRecord& phase, const fs::path& temporary, const fs::path& target) {
    files::publish(temporary, target);
    try {
      if (header_.pool.empty() && phase.fleet.size() > fleet_.size()) {
        replace_fleet(phase.fleet);
      }
      auto phases = phases_;
      phases.push_back(phase.spec.index);
      if (pace_.whenever_due([&] { replace_master(phases); })) {
        listed_ = phases.size();
      }
    } catch (...) {
      files::discard(target);
      throw;
    }
  }

  /// The fleet has a file of its own while phases come: it can be large, and the master is written
  /// often.
  void replace_fleet(const std::vector<DeviceIdentity>& fleet) {
    const auto target = directory_ / kPhasesFolder / kFleetFile;
    auto temporary = target;
    temporary += ".tmp";
    try {
      files::require_room(temporary, kRoomForMaster + kRoomForDevice * fleet.size());
      auto file = hdf5::File::create(temporary);
      write_fleet(file, fleet);
      file.close();
      files::publish(temporary, target);
    } catch (...) {
      files::discard(temporary);
      throw;
    }
    fleet_ = fleet;
  }

  void write_header(const hdf5::File& file) const {
    file.set_attribute("schema_version", kSchemaVersion);
    file.set_attribute("study", header_.study_name);
    file.set_attribute("device", header_.device_kind);
    file.set_attribute("planned_phases", std::int64_t{header_.planned_phases});
    file.set_attribute("study_toml", header_.study_toml);
    file.set_attribute("study_sha256", sha256(header_.study_toml));
    file.set_attribute("moevar_version", header_.moevar_version);
  }

  /// Builds study.h5 under a temporary name; `fill` adds the fleet and the phases. `complete` is
  /// written last of all. Looks for room for `bytes` first: HDF5 1.10 crashes where H5Ocopy finds
  /// the disk full, and its MPI build where a file that it could not write is open at the end.
  void replace_study(bool complete, std::uintmax_t bytes,
                     const std::function<void(const hdf5::File&)>& fill) {
    auto temporary = study_path();
    temporary += ".tmp";
    try {
      files::require_room(temporary, bytes);
      auto file = hdf5::File::create(temporary);
      write_header(file);
      fill(file);
      file.set_attribute("complete", std::int64_t{complete ? 1 : 0});
      file.close();
      files::publish(temporary, study_path());
    } catch (...) {
      files::discard(temporary);
      throw;
    }
  }

  void replace_master(const std::vector<int>& indices) {
    replace_study(
        false, kRoomForMaster + kRoomForPhase * indices.size(), [&](const hdf5::File& file) {
          file.link_external("fleet", fmt::format("{}/{}", kPhasesFolder, kFleetFile), "/fleet");
          auto phases = file.create_group("phases");
          auto timing = file.create_group("timing");
          for (const int index : indices) {
            const auto name = phase_name(index);
            const auto path = fmt::format("{}/{}.h5", kPhasesFolder, name);
            phases.link_external(name, path, "/phase");
            timing.link_external(name, path, "/timing");
          }
          phases.close();
          timing.close();
        });
  }

  void join() {
    std::uintmax_t bytes =
        kRoomForMaster + kRoomForDevice * fleet_.size() + kRoomForPhase * phases_.size();
    for (const int index : phases_) {
      bytes += fs::file_size(phase_path(index));
    }
    replace_study(true, bytes, [this](const hdf5::File& study) {
      write_fleet(study, fleet_);
      auto phases = study.create_group("phases");
      auto timing = study.create_group("timing");
      for (const int index : phases_) {
        const auto name = phase_name(index);
        const auto file = hdf5::File::open(phase_path(index));
        phases.copy_from(file, "phase", name);
        timing.copy_from(file, "timing", name);
        if (const auto from = speeds_from_.at(index)) {
          auto phase = phases.group(name);
          phase.unlink(kSpeedModel);
          phase.link_hard(kSpeedModel,
                          fmt::format("/phases/{}/{}", phase_name(*from), kSpeedModel));
          phase.close();
        }
      }
      phases.close();
      timing.close();
    });
    // the study is whole from here on: what is left of its parts is litter, not a failure
    std::error_code ignored;
    fs::remove_all(directory_ / kPhasesFolder, ignored);
  }

  const mpi::Communicator* comm_;
  fs::path directory_;
  StudyHeader header_;
  bool finished_ = false;
  std::vector<int> phases_;  ///< indices of those written, in order
  std::map<int, std::optional<int>>
      speeds_from_;         ///< by phase: the one that holds its speed models
  std::size_t listed_ = 0;  ///< of phases_, those that study.h5 knows; rank 0
  Pace pace_;
  std::vector<DeviceIdentity> fleet_;  ///< the pool, or the largest so far; rank 0
};

StudyWriter::StudyWriter(const mpi::Communicator& comm, std::filesystem::path directory,
                         const StudyHeader& header)
    : impl_(std::make_unique<Impl>(comm, std::move(directory), header)) {}

StudyWriter::~StudyWriter() = default;

void StudyWriter::write(const PhaseRecord& phase, bool with_timelines) {
  impl_->write(phase, with_timelines);
}

bool StudyWriter::up_to_date() const { return impl_->up_to_date(); }

void StudyWriter::finish() { impl_->finish(); }

}  // namespace moevar::record
