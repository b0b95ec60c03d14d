#include "record/record.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "record/pace.hpp"
#include "record/phase_file.hpp"
#include "record/seal.hpp"
#include "system/files.hpp"
#include "system/hdf5.hpp"
#include "system/sha256.hpp"
#include "system/whereabouts.hpp"

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
  return has(kStudyFile) || has(kPhasesFolder) || has("summary.json") || has("manifest.json");
}

/// While a study runs, study.h5 is a small master with links to one file per phase: a phase is
/// finished by one rename, and the master is only ever replaced whole.
class StudyWriter::Impl {
 public:
  Impl(const mpi::Communicator& comm, fs::path directory, StudyHeader header,
       const RecordedRun* recorded)
      : comm_(&comm),
        directory_(std::move(directory)),
        header_(std::move(header)),
        pace_(header_.planned_phases) {
    mpi::on_root(comm, [&] {
      if (recorded != nullptr) {
        go_on(*recorded);
      } else {
        create();
      }
    });
    auto known = static_cast<std::int64_t>(phases_.size());
    comm.all_reduce_max(std::span(&known, 1));
    for (auto i = static_cast<int>(phases_.size()); i < known; ++i) {
      phases_.push_back(i);
    }
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

  /// The study is whole: what is left of its parts is litter, not a failure.
  void remove_parts() {
    mpi::on_root(*comm_, [this] {
      if (!finished_) {
        throw CheckError("the parts of a study that is not finished are not removed");
      }
      header_.manifest.complete = true;
      write_manifest(directory_, header_.manifest);
      std::error_code ignored;
      fs::remove_all(directory_ / kPhasesFolder, ignored);
    });
  }

 private:
  [[nodiscard]] fs::path study_path() const { return directory_ / kStudyFile; }
  [[nodiscard]] fs::path phase_path(int index) const {
    return directory_ / kPhasesFolder / (phase_name(index) + ".h5");
  }

  void refuse_a_run() const {
    if (holds_run(directory_)) {
      throw InputError(
          fmt::format("{} already holds a run, and no result is ever overwritten; give another "
                      "folder, or --resume",
                      directory_.string()));
    }
  }

  [[noreturn]] void cannot_record(const std::string& why) const {
    throw EnvironmentError(fmt::format(
        "cannot record into {}: {}; give a folder that can be written", directory_.string(), why));
  }

  void create() {
    refuse_a_run();
    std::vector<fs::path> made;
    try {
      made = files::make_folders(directory_);
    } catch (const std::exception& error) {
      cannot_record(error.what());
    }
    // what another process has begun here meanwhile is its own: it is looked for again under the
    // lock, and only what comes after that is taken away again
    lock_.emplace(directory_);
    refuse_a_run();
    try {
      fs::create_directory(directory_ / kPhasesFolder);
      write_manifest(directory_, header_.manifest);
      replace_fleet(header_.pool);
      replace_master({});
      files::sync(directory_);
      files::sync(fs::absolute(directory_).lexically_normal().parent_path());
    } catch (const std::exception& error) {
      std::error_code ignored;
      fs::remove_all(directory_ / kPhasesFolder, ignored);
      fs::remove(study_path(), ignored);
      fs::remove(directory_ / "manifest.json", ignored);
      for (; !made.empty(); made.pop_back()) {
        fs::remove(made.back(), ignored);
      }
      cannot_record(error.what());
    }
  }

  /// Takes over what an earlier session has recorded.
  void go_on(const RecordedRun& recorded) {
    std::error_code ignored;
    if (static_cast<int>(recorded.phases()) < header_.planned_phases &&
        fs::exists(study_path(), ignored) &&
        hdf5::File::open(study_path()).attribute<std::int64_t>("complete") != 0) {
      throw InputError(fmt::format(
          "{} holds a study.h5 that is complete, though its parts are not there; it stays as it is",
          directory_.string()));
    }
    fs::create_directory(directory_ / kPhasesFolder);
    put_later_phases_aside(recorded.phases());
    write_manifest(directory_, header_.manifest);
    for (std::size_t phase = 0; phase < recorded.phases(); ++phase) {
      const auto from = recorded.speeds_from(phase);
      phases_.push_back(static_cast<int>(phase));
      speeds_from_[static_cast<int>(phase)] =
          from == phase ? std::nullopt : std::optional(static_cast<int>(from));
    }
    if (recorded.phases() > 0) {
      fleet_ = recorded.fleet();
    } else {
      replace_fleet(header_.pool);
    }
    replace_master(phases_);
    listed_ = phases_.size();
  }

  /// What lies behind the first phase that is not whole is measured again, and nothing of it may
  /// be mixed with what is: it goes on what came before.
  void put_later_phases_aside(std::size_t first) const {
    for (int phase = static_cast<int>(first); phase < header_.planned_phases; ++phase) {
      const auto path = phase_path(phase);
      auto aside = path;
      aside += ".old";
      std::error_code error;
      if (fs::exists(path, error)) {
        fs::rename(path, aside);
      }
    }
    files::sync(directory_ / kPhasesFolder);
  }

  /// Names the finished phase file, then tells the master of it; undone where that fails.
  void add(const PhaseRecord& phase, const fs::path& temporary, const fs::path& target) {
    seal(temporary);
    if (header_.pool.empty() && phase.fleet.size() > fleet_.size()) {
      replace_fleet(phase.fleet);  // first: no phase is there without its devices
    }
    files::publish(temporary, target);
    try {
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
      auto file = hdf5::File::create(temporary, kSealBytes);
      write_fleet(file, fleet);
      file.close();
      seal(temporary);
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
    auto manifest = header_.manifest;
    manifest.complete = true;
    replace_study(true, bytes, [&](const hdf5::File& study) {
      write_fleet(study, fleet_);
      auto text = study.create_texts("manifest", std::vector{to_json_text(manifest)});
      text.set_attribute("unit", "text");
      text.close();
      auto phases = study.create_group("phases");
      auto timing = study.create_group("timing");
      for (const int index : phases_) {
        whereabouts::enter_phase(index);
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
  }

  const mpi::Communicator* comm_;
  fs::path directory_;
  StudyHeader header_;
  std::optional<files::FolderLock> lock_;  ///< rank 0
  bool finished_ = false;
  std::vector<int> phases_;  ///< indices of those written, in order
  std::map<int, std::optional<int>>
      speeds_from_;         ///< by phase: the one that holds its speed models
  std::size_t listed_ = 0;  ///< of phases_, those that study.h5 knows; rank 0
  Pace pace_;
  std::vector<DeviceIdentity> fleet_;  ///< the pool, or the largest so far; rank 0
};

StudyWriter::StudyWriter(const mpi::Communicator& comm, std::filesystem::path directory,
                         const StudyHeader& header, const RecordedRun* recorded)
    : impl_(std::make_unique<Impl>(comm, std::move(directory), header, recorded)) {}

StudyWriter::~StudyWriter() = default;

void StudyWriter::write(const PhaseRecord& phase, bool with_timelines) {
  impl_->write(phase, with_timelines);
}

bool StudyWriter::up_to_date() const { return impl_->up_to_date(); }

void StudyWriter::finish() { impl_->finish(); }

void StudyWriter::remove_parts() { impl_->remove_parts(); }

}  // namespace moevar::record
