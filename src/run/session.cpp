#include "run/session.hpp"

#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "system/affinity.hpp"
#include "system/host.hpp"
#include "system/sha256.hpp"

namespace moevar::run {

namespace {

/// Facts as one text and back: name and value each end with a byte that is in neither.
constexpr char kEnd = '\0';

std::string to_text(const record::Facts& facts) {
  std::string text;
  for (const auto& [name, value] : facts) {
    text += name;
    text += kEnd;
    text += value;
    text += kEnd;
  }
  return text;
}

record::Facts facts_of(const std::string& text) {
  record::Facts facts;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto middle = text.find(kEnd, begin);
    const auto end = text.find(kEnd, middle + 1);
    facts[text.substr(begin, middle - begin)] = text.substr(middle + 1, end - middle - 1);
    begin = end + 1;
  }
  return facts;
}

}  // namespace

record::Session describe_session(const mpi::Communicator& comm, record::Facts program) {
  record::Session session;
  session.started = host::now_utc();
  session.ranks = comm.size();
  session.program = std::move(program);
  session.program.merge(host::libraries());
  session.environment = host::environment();
  // one rank of each node speaks for it
  const bool speaks = comm.split_by_node().is_root();
  const auto hosts = comm.all_gather(affinity::host_name());
  const auto texts = comm.all_gather(speaks ? to_text(host::facts()) : std::string());
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    if (!texts[rank].empty()) {
      session.hosts[hosts[rank]] = facts_of(texts[rank]);
    }
  }
  return session;
}

std::vector<record::InputFile> inputs_of(const study::Study& study) {
  const bool synthetic = study.workload.kind == study::WorkloadKind::synthetic;
  std::vector<record::InputFile> inputs;
  const auto& earlier = study.phases.speed_models;
  const auto speeds =
      earlier.empty() ? earlier : (std::filesystem::path(earlier) / "study.h5").string();
  for (const auto& path :
       {synthetic ? std::string() : study.workload.path, study.serving.path, speeds}) {
    if (!path.empty()) {
      inputs.push_back({path, static_cast<std::int64_t>(std::filesystem::file_size(path)),
                        sha256_of_file(path)});
    }
  }
  return inputs;
}

}  // namespace moevar::run
