#include "run/serving_run.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "run/join.hpp"
#include "run/rearranger.hpp"
#include "run/serving_changes.hpp"
#include "run/serving_clock.hpp"
#include "serving/metrics.hpp"
#include "serving/rate_search.hpp"
#include "serving/scheduler.hpp"
#include "system/files.hpp"
#include "system/whereabouts.hpp"

namespace moevar::run {

namespace {

workload::Arrivals arrivals_of(const study::Serving& spec) {
  switch (spec.arrivals) {
    case study::Arrivals::bursty:
      return workload::Arrivals::bursty;
    case study::Arrivals::uniform:
      return workload::Arrivals::uniform;
    case study::Arrivals::poisson:
    case study::Arrivals::recorded:
      break;
  }
  return workload::Arrivals::poisson;
}

std::vector<workload::Lengths> lengths_of(const study::Serving& spec) {
  std::vector<workload::Lengths> all;
  all.reserve(spec.lengths.size());
  for (const auto lengths : spec.lengths) {
    all.push_back(lengths == study::Lengths::sonnet     ? workload::Lengths::sonnet
                  : lengths == study::Lengths::sharegpt ? workload::Lengths::sharegpt
                                                        : workload::Lengths::fixed);
  }
  return all;
}

serving::Mode mode_of(study::ServingMode mode) {
  return mode == study::ServingMode::prefill  ? serving::Mode::prefill
         : mode == study::ServingMode::decode ? serving::Mode::decode
                                              : serving::Mode::mixed;
}

serving::Slo slo_of(const study::Serving& spec) {
  serving::Slo slo;
  slo.ttft_ms = spec.slo_ttft_ms > 0.0 ? spec.slo_ttft_ms : slo.ttft_ms;
  slo.tpot_ms = spec.slo_tpot_ms > 0.0 ? spec.slo_tpot_ms : slo.tpot_ms;
  return slo;
}

serving::Options options_of(const study::Serving& spec) {
  return {.token_budget = spec.token_budget,
          .max_running = spec.max_running,
          .mode = mode_of(spec.mode)};
}

/// A rate of 0 leaves recorded arrivals as they are.
std::vector<workload::Request> requests_of(const study::Serving& spec,
                                           std::vector<workload::Request> recorded, double rate_rps,
                                           std::uint64_t seed) {
  if (spec.arrivals != study::Arrivals::recorded) {
    return workload::make_requests({.count = spec.requests,
                                    .rate_rps = rate_rps,
                                    .arrivals = arrivals_of(spec),
                                    .burstiness = spec.burstiness,
                                    .lengths = lengths_of(spec),
                                    .fixed_input = spec.input_tokens,
                                    .fixed_output = spec.output_tokens},
                                   seed);
  }
  recorded.resize(std::min(recorded.size(), static_cast<std::size_t>(spec.requests)));
  if (rate_rps > 0.0) {
    workload::rescale(recorded, rate_rps);
  }
  return recorded;
}

/// Through the two steps whose shares are given. Where that makes one of its parts negative, that
/// part is 0, and the other goes through the step of many tokens, or that of few.
RestOfStep rest_of(const ServingPhase& phase, Backend& backend) {
  if (backend.real_time() && phase.rest) {
    return *phase.rest;
  }
  const auto& spec = phase.study.serving;
  // replicas' weights are no part of the model
  const int devices = phase.phase.devices;
  const int plain_slots = (phase.phase.experts + devices - 1) / devices;
  const auto speeds = plain_slots == phase.phase.slots_per_device
                          ? phase.speeds
                          : backend.profile(plain_slots, phase.speeds.front().grid().back(), {});
  const auto rest_us = [&](int tokens, double share) {
    const double on_device =
        static_cast<double>(tokens) * phase.study.model.top_k / static_cast<double>(speeds.size());
    double expert_us = 0.0;
    for (const auto& curve : speeds) {
      expert_us += curve.time_us(on_device) / static_cast<double>(speeds.size());
    }
    return phase.study.model.layers * (expert_us + backend.exchange_us(tokens)) * (1.0 - share) /
           share;
  };
  const double few = spec.share_tokens_decode;
  const double many = spec.share_tokens_prefill;
  const double few_us = rest_us(spec.share_tokens_decode, spec.moe_share_decode);
  const double many_us = rest_us(spec.share_tokens_prefill, spec.moe_share_prefill);
  const double slope = std::max((many_us - few_us) / (many - few), 0.0);
  const double fixed = few_us - slope * few;
  phase.rest = fixed >= 0.0 ? RestOfStep{fixed, slope} : RestOfStep{0.0, many_us / many};
  return *phase.rest;
}

/// One run over the phase's requests at one rate.
class Serving {
 public:
  Serving(const mpi::Communicator& comm, const ServingPhase& phase, Backend& backend)
      : comm_(comm),
        phase_(phase),
        backend_(backend),
        spec_(phase.study.serving),
        rest_(rest_of(phase, backend)),
        loads_({1, static_cast<std::size_t>(phase.study.model.layers),
                static_cast<std::size_t>(phase.phase.experts)}) {}

  [[nodiscard]] std::vector<workload::Request> requests(double rate) const {
    const auto key = random_stream(phase_.study.seed, Stream::requests);
    return requests_of(spec_, phase_.recorded, rate * phase_.phase.devices,
                       key[static_cast<std::uint64_t>(phase_.phase.repeat)].bits());
  }

  /// `foreseen`: in virtual time, by what speed models say. `result`: where steps are kept.
  record::ServingRecord serve(std::vector<workload::Request> requests, bool foreseen,
                              ServingResult* result) {
    if (!backend_.real_time()) {
      (void)backend_.settle();  // each run begins as the phase did
    }
    changes_ = changes_in(requests);
    serving::Scheduler scheduler(std::move(requests), options_of(spec_));
    if (rearranges()) {
      rearranger_.emplace(comm_, phase_.study, phase_.phase, backend_, phase_.speeds,
                          phase_.planned, phase_.placement);
    }
    record::ServingRecord record;
    blocks_.clear();
    std::size_t changed = 0;
    ServingClock clock(comm_, backend_.real_time() && !foreseen);
    while (!scheduler.done()) {
      const double now_s = clock.now();
      if (scheduler.idle(now_s)) {
        clock.wait_until(scheduler.next_arrival_s());
        continue;
      }
      for (; changed < changes_.size() && changes_[changed].at_s <= now_s; ++changed) {
        if (changed == disturbance_) {
          backend_.disturb(spec_.disturbed_device, spec_.disturbance);
        }
      }
      step(scheduler.plan(now_s), now_s, foreseen, clock, record, result);
      scheduler.complete(step_end_s_);
    }
    backend_.calm();
    if (rearranger_ && !record.rearrangements.empty()) {
      (void)backend_.move_to(phase_.placement);  // the next run begins where this one did
    }
    rearranger_.reset();
    record.requests = scheduler.served();
    return record;
  }

  [[nodiscard]] std::vector<record::Change> changes() const { return changes_; }
  [[nodiscard]] std::vector<PhaseResult> take_blocks() { return std::move(blocks_); }

 private:
  [[nodiscard]] bool rearranges() const {
    return phase_.study.placement.recompute == study::Recompute::on_drift;
  }

  /// Kinds that the study names more than once are one.
  [[nodiscard]] int popularity_of(int kind) const {
    const auto& lengths = spec_.lengths;
    const auto first = std::ranges::find(lengths, lengths[static_cast<std::size_t>(kind)]);
    return static_cast<int>(first - lengths.begin());
  }

  /// What changes in a run of these requests, in order of time; disturbance_ says which is it.
  std::vector<record::Change> changes_in(std::span<const workload::Request> requests) {
    std::vector<record::Change> changes;
    for (std::size_t i = 1; i < requests.size(); ++i) {
      const auto before = static_cast<std::size_t>(requests[i - 1].kind);
      const auto now = static_cast<std::size_t>(requests[i].kind);
      if (before != now && spec_.lengths[before] != spec_.lengths[now]) {
        changes.push_back({.what = fmt::format("{} to {}", to_string(spec_.lengths[before]),
                                               to_string(spec_.lengths[now])),
                           .at_s = requests[i].arrival_s});
      }
    }
    disturbance_ = std::numeric_limits<std::size_t>::max();
    if (spec_.disturbance != study::Disturbance::none && !requests.empty()) {
      const auto at =
          static_cast<std::size_t>(spec_.disturbed_at * static_cast<double>(requests.size() - 1));
      record::Change change{.what = fmt::format("device {}: {}", spec_.disturbed_device,
                                                to_string(spec_.disturbance)),
                            .device = spec_.disturbed_device,
                            .at_s = requests[at].arrival_s};
      const auto place = std::ranges::upper_bound(changes, change.at_s, {}, &record::Change::at_s);
      disturbance_ = static_cast<std::size_t>(place - changes.begin());
      changes.insert(place, std::move(change));
    }
    return changes;
  }

  void step(const serving::StepPlan& plan, double now_s, bool foreseen, ServingClock& clock,
            record::ServingRecord& record, ServingResult* result) {
    const auto index = static_cast<std::int64_t>(record.steps.size());
    whereabouts::enter_step(static_cast<std::int32_t>(index));
    const auto& routing = phase_.routing(popularity_of(plan.kind));
    const auto& placement = rearranger_ ? rearranger_->placement() : phase_.placement;
    if (!backend_.real_time()) {
      routing.sample(phase_.first_step + index, plan.tokens(), loads_.flat());
    }
    const PhaseSteps steps{.phase = phase_.phase.index,
                           .first_step = phase_.first_step + index,
                           .warmup_steps = 0,
                           .tokens = plan.tokens(),
                           .routing = routing,
                           .loads = loads_,
                           .placements = std::span(&placement, 1),
                           .ran_before = static_cast<std::size_t>(index)};
    record::ServingStep row{.start_s = now_s,
                            .layers_ns = 0,
                            .rest_ns = to_nanoseconds(1e9 * rest_.seconds(plan.tokens())),
                            .prefill_tokens = plan.prefill_tokens,
                            .decode_tokens = plan.decode_tokens,
                            .running = plan.running,
                            .waiting = plan.waiting};
    PhaseResult ran;
    if (foreseen) {
      row.layers_ns = to_nanoseconds(1e3 * backend_.foresee_us(steps, phase_.speeds).value_or(0.0));
    } else {
      ran = backend_.serve(steps);
      const auto layers = ran.totals.layer_ns.flat();
      row.layers_ns = std::reduce(layers.begin(), layers.end(), Nanoseconds{0});
    }
    clock.ran(1e-9 * static_cast<double>(row.layers_ns));
    clock.idle(1e-9 * static_cast<double>(row.rest_ns));
    step_end_s_ = clock.now();
    record.steps.push_back(row);
    if (rearranger_ && !foreseen) {
      rearrange(plan, ran, clock, record);
    }
    if (result != nullptr) {
      keep(std::move(ran), *result);
    }
  }

  void rearrange(const serving::StepPlan& plan, const PhaseResult& ran, ServingClock& clock,
                 record::ServingRecord& record) {
    if (auto move = rearranger_->step(plan.tokens(), std::as_const(loads_).row(0), ran.mine)) {
      move->at_s = step_end_s_;
      clock.ran(1e-3 * move->migrate_ms);
      record.rearrangements.push_back(std::move(*move));
    }
  }

  void keep(PhaseResult ran, ServingResult& result) {
    const auto totals = timeline::totals_by_device(ran.mine);
    for (auto part : timeline::DeviceTotals::kParts) {
      auto& sums = result.device_totals.*part;
      sums.resize((totals.*part).size());
      std::ranges::transform(sums, totals.*part, sums.begin(), std::plus<>{});
    }
    const auto layers = ran.mine.layers();
    ran.mine = timeline::Timeline(0, 1, layers);
    blocks_.push_back(std::move(ran));
  }

  const mpi::Communicator& comm_;
  const ServingPhase& phase_;
  Backend& backend_;
  const study::Serving& spec_;
  RestOfStep rest_;
  workload::Loads loads_;  ///< of the present step
  std::optional<Rearranger> rearranger_;
  std::vector<record::Change> changes_;
  std::size_t disturbance_ = 0;  ///< which of them
  std::vector<PhaseResult> blocks_;
  double step_end_s_ = 0.0;  ///< of the latest step
};

/// Rates are per device.
record::RateFound find_rate(Serving& serving, const study::Serving& spec, int devices) {
  const auto attainment_at = [&](double rate_rps) {
    const auto run = serving.serve(serving.requests(rate_rps / devices), false, nullptr);
    return serving::attainment(run.requests, slo_of(spec));
  };
  constexpr serving::RateRange kStart{1.0, 2.0};
  const auto search = serving::find_rate(attainment_at, spec.attainment,
                                         {kStart.low_rps * devices, kStart.high_rps * devices});
  record::RateFound found;
  const auto per_device = [&](double rate_rps) { return rate_rps / devices; };
  if (search.rate_rps) {
    found.rate = per_device(*search.rate_rps);
  }
  if (search.kept) {
    found.kept = per_device(search.kept->rate_rps);
  }
  if (search.missed) {
    found.missed = per_device(search.missed->rate_rps);
  }
  for (const auto& one : search.evaluations) {
    found.evaluations.emplace_back(per_device(one.rate_rps), one.attainment);
  }
  return found;
}

/// Over all devices; none where a search found none, or all requests come at once.
double rate_of(std::span<const workload::Request> requests, double rate_rps,
               const std::optional<record::RateFound>& search) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (search) {
    return search->rate ? rate_rps : kNone;
  }
  const double mean_rps = rate_rps > 0.0 ? rate_rps : workload::mean_rate_rps(requests);
  return std::isfinite(mean_rps) ? mean_rps : kNone;
}

/// Little's law holds of any run that begins and ends empty, whatever its clock.
void check_conservation(const serving::Metrics& metrics, int phase) {
  constexpr double kRounding = 1e-6;
  if (!(std::abs(metrics.little_error) < kRounding)) {
    throw CheckError(
        fmt::format("phase {}: requests in the system differ by {:.2g} from Little's "
                    "law; at most {:.0e} is right",
                    phase, metrics.little_error, kRounding));
  }
}

}  // namespace

std::vector<workload::Request> share_requests(const mpi::Communicator& comm,
                                              const study::ParsedStudy& parsed) {
  const auto& path = parsed.study.serving.path;
  if (path.empty()) {
    return {};
  }
  std::string text;
  std::vector<workload::Request> requests;
  mpi::on_root(comm, [&] {
    try {
      text = files::read_text(path);
      requests = workload::recorded_requests(text, path);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", parsed.at("serving.path"), error.what()));
    }
  });
  comm.broadcast(text);
  return comm.is_root() ? requests : workload::recorded_requests(text, path);
}

void check_requests(const study::ParsedStudy& parsed,
                    const std::vector<workload::Request>& recorded) {
  const auto& study = parsed.study;
  if (!study.serves()) {
    return;
  }
  const auto& spec = study.serving;
  const char* key = recorded.empty() ? "serving.lengths" : "serving.path";
  try {
    auto rates = spec.rates;
    if (rates.empty()) {
      rates.push_back(spec.find_rate ? 1.0 : 0.0);
    }
    for (const double rate : rates) {
      const serving::Scheduler scheduler(
          requests_of(spec, recorded, rate * study.fleet.devices.front(), study.seed),
          options_of(spec));
    }
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", parsed.at(key), error.what()));
  }
}

ServingResult serve_phase(const mpi::Communicator& comm, const ServingPhase& phase,
                          Backend& backend) {
  const auto& spec = phase.study.serving;
  const int devices = phase.phase.devices;
  backend.start_serving({.phase = phase.phase.index,
                         .routing = phase.routing(0),
                         .placement = phase.placement,
                         .first_step = phase.first_step});
  Serving serving(comm, phase, backend);
  ServingResult result;
  auto& summary = result.summary;
  double rate = phase.phase.rate.value_or(0.0);  // 0: as recorded
  if (spec.find_rate) {
    summary.search = find_rate(serving, spec, devices);
    const auto& found = *summary.search;
    rate = found.rate ? *found.rate : found.kept ? *found.kept : found.missed.value_or(0.0);
  }
  const auto requests = serving.requests(rate);
  summary.rate = rate_of(requests, rate * devices, summary.search) / devices;
  // around the run: what the machine was like before and after it
  backend.calibrate(phase.speeds);
  result.record = serving.serve(requests, false, &result);
  backend.calibrate(phase.speeds);
  auto blocks = serving.take_blocks();
  const std::vector<Nanoseconds> ends_ns(blocks.size(), 0);
  result.steps = join(std::move(blocks), ends_ns);
  summary.metrics = serving::measure(result.record.requests, slo_of(spec));
  check_conservation(summary.metrics, phase.phase.index);
  summary.steps = result.record.steps.size();
  for (const auto& step : result.record.steps) {
    summary.layers_s += 1e-9 * static_cast<double>(step.layers_ns);
    summary.rest_s += 1e-9 * static_cast<double>(step.rest_ns);
  }
  summary.rearrangements = result.record.rearrangements;
  summary.changes = serving.changes();
  judge_changes(summary.changes, result.record, result.steps.totals);
  if (backend.real_time()) {
    const auto foreseen = serving.serve(requests, true, nullptr);
    summary.predicted = serving::measure(foreseen.requests, slo_of(spec));
  }
  return result;
}

}  // namespace moevar::run
