#include "run/routing_source.hpp"

#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "base/units.hpp"
#include "system/files.hpp"

namespace moevar::run {

namespace {

std::string recorded_text(const study::ParsedStudy& parsed) {
  const auto& workload = parsed.study.workload;
  return workload.kind == study::WorkloadKind::synthetic ? std::string{}
                                                         : files::read_text(workload.path);
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
    const bool synthetic = parsed.study.workload.kind == study::WorkloadKind::synthetic;
    throw InputError(fmt::format("{}: {}", parsed.at(synthetic ? "workload.kind" : "workload.path"),
                                 error.what()));
  }
}

}  // namespace

std::unique_ptr<workload::Routing> load_routing(const study::ParsedStudy& parsed) {
  std::string text;
  return load(parsed, text);
}

std::unique_ptr<workload::Routing> synthetic_routing(const study::Study& study, int experts,
                                                     bool even_load, int kind) {
  workload::SyntheticSpec spec;
  if (even_load) {
    spec.skew = 0.0;
  } else {
    const auto& of = study.workload;
    spec = {of.skew, of.burst, of.drift, study.model.experts};
  }
  const auto seed =
      kind == 0 ? study.seed
                : random_stream(study.seed, Stream::request_kind)[static_cast<std::uint64_t>(kind)]
                      .bits();
  return workload::make_synthetic({study.model.layers, experts, study.model.top_k}, spec, seed);
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
