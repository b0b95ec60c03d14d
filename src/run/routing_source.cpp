#include "run/routing_source.hpp"

#include <fstream>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "base/units.hpp"

namespace moevar::run {

namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  // an empty file leaves the stream failed too; a folder opens but does not read
  if (!file || !(text << file.rdbuf())) {
    throw InputError(fmt::format("{} cannot be read, or is empty; it must be a file that exists",
                                 printable(path, 200)));
  }
  return std::move(text).str();
}

std::string recorded_text(const study::ParsedStudy& parsed) {
  const auto& workload = parsed.study.workload;
  return workload.kind == study::WorkloadKind::synthetic ? std::string{} : read_file(workload.path);
}

std::unique_ptr<workload::Routing> build(const study::Study& study, const std::string& text) {
  const workload::RoutingShape shape{study.model.layers, study.model.experts, study.model.top_k};
  const auto& spec = study.workload;
  switch (spec.kind) {
    case study::WorkloadKind::counts:
      return workload::make_counts(text, spec.path, shape, study.seed);
    case study::WorkloadKind::tokens:
      return workload::make_tokens(text, spec.path, shape, study.seed);
    case study::WorkloadKind::synthetic:
      break;
  }
  return workload::make_synthetic(shape, {spec.skew, spec.burst, spec.drift}, study.seed);
}

/// Reads and builds; `text` keeps what was read.
std::unique_ptr<workload::Routing> load(const study::ParsedStudy& parsed, std::string& text) {
  try {
    text = recorded_text(parsed);
    return build(parsed.study, text);
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", parsed.at("workload.path"), error.what()));
  }
}

}  // namespace

std::unique_ptr<workload::Routing> load_routing(const study::ParsedStudy& parsed) {
  std::string text;
  return load(parsed, text);
}

std::unique_ptr<workload::Routing> share_routing(const mpi::Communicator& comm,
                                                 const study::ParsedStudy& parsed) {
  std::string text;
  std::unique_ptr<workload::Routing> routing;
  mpi::on_root(comm, [&] { routing = load(parsed, text); });
  comm.broadcast(text);
  return comm.is_root() ? std::move(routing) : build(parsed.study, text);
}

workload::Loads sample_loads(const mpi::Communicator& comm, const workload::Routing& routing,
                             std::int64_t first_step, int steps, std::int64_t tokens) {
  const auto shape = routing.shape();
  const auto layers = static_cast<std::size_t>(shape.layers);
  const auto experts = static_cast<std::size_t>(shape.experts);
  const auto mine = block_of(comm.rank(), comm.size(), steps);
  workload::Loads part({static_cast<std::size_t>(mine.size()), layers, experts});
  for (int i = 0; i < mine.size(); ++i) {
    routing.sample(first_step + mine.begin + i, tokens, part.row(i));
  }
  workload::Loads loads({static_cast<std::size_t>(steps), layers, experts});
  comm.all_gather(std::as_const(part).flat(), loads.flat());
  return loads;
}

}  // namespace moevar::run
