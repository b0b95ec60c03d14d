#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "run/cuda_backend_impl.hpp"
#include "run/dense_reference.hpp"
#include "run/slot_routing.hpp"
#include "system/whereabouts.hpp"

/// What CudaBackend does step by step.
namespace moevar::run {

namespace {

constexpr double kLargestErrorBf16 = 2e-2;  // of an output against the dense reference
// e4m3 has three bits: a quantised expert is some 6 % off (expert_ffn_layout_test)
constexpr double kLargestErrorFp8 = 1e-1;
constexpr std::int64_t kVerifiedTokens = 8;  // per device and verified layer

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }

}  // namespace

void CudaBackend::check_steps(const PhaseSteps& steps) const {
  if (steps.placements.size() != 1) {
    throw CheckError(fmt::format(
        "cuda fleet: {} placements for one phase; experts do not move from step to step here",
        steps.placements.size()));
  }
  if (!placement_ || placement_->expert_of_slot != steps.placements.front().expert_of_slot) {
    throw CheckError("cuda fleet: steps with a placement to which the experts were not moved");
  }
  const auto tokens = static_cast<std::int64_t>(fleet_.size()) * tokens_per_device_;
  if (steps.tokens != tokens) {
    throw CheckError(fmt::format("cuda fleet: steps of {} tokens; {} devices hold {}", steps.tokens,
                                 fleet_.size(), tokens));
  }
}

void CudaBackend::take_routes(const PhaseSteps& steps, std::int64_t step) {
  const auto top_k = size_of(model_.top_k);
  const auto rows = size_of(tokens_per_device_) * top_k;  // of a device
  std::vector<std::vector<std::vector<LaneRoute>>> routes(
      lanes(), std::vector<std::vector<LaneRoute>>(batches_.size()));
  std::vector<std::int32_t> slots;
  for (int layer = 0; layer < placement_->layers(); ++layer) {
    const auto experts = steps.routing.token_experts(step, layer, steps.tokens);
    slots.resize(experts.size());
    choose_slots(steps.placements.front(), layer, experts.flat(), slots);
    for (std::size_t batch = 0; batch < batches_.size(); ++batch) {
      const auto [first, count] = batches_[batch];
      const RouteShape shape{static_cast<int>(fleet_.size()), placement_->slots_per_device,
                             count * top_k};
      const auto their_experts = part_of_each(experts.flat(), rows, first * top_k, count * top_k);
      const auto their_slots = part_of_each(slots, rows, first * top_k, count * top_k);
      for (std::size_t lane = 0; lane < lanes(); ++lane) {
        routes[lane][batch].push_back(
            lane_route(their_experts, their_slots, shape, device_of(lane)));
      }
    }
  }
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    lanes_[lane].layer->take(std::move(routes[lane]));
  }
  for (std::size_t batch = 0; batch < batches_.size(); ++batch) {
    std::int64_t sent = 0;
    std::int64_t received = 0;
    for (const auto& lane : lanes_) {
      sent += lane.layer->sent_rows(batch);
      received += lane.layer->most_received(batch);
    }
    exchanges_[batch]->reserve(sent, received);
  }
}

void CudaBackend::run_layer(int layer) {
  std::vector<CudaLayer*> layers;
  layers.reserve(lanes());
  for (auto& lane : lanes_) {
    layers.push_back(lane.layer.get());
  }
  queue_layer(schedule_, layer, layers, exchanges_);
}

void CudaBackend::wait_for_lanes() {
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    exchanges_.front()->wait(stream_of(lane));
  }
}

void CudaBackend::run_step(const PhaseSteps& steps, std::int64_t step,
                           std::span<std::uint64_t* const> words) {
  whereabouts::enter_step(static_cast<std::int32_t>(step));
  take_routes(steps, step);
  if (flush_) {
    (*flush_)(stream_of(0));
    stream_of(0).synchronise();
  }
  devices_.barrier();
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    lanes_[lane].layer->stamp_to(words.empty() ? nullptr : words[lane]);
    lanes_[lane].layer->enter();
  }
  for (int layer = 0; layer < placement_->layers(); ++layer) {
    run_layer(layer);
  }
  wait_for_lanes();
}

double CudaBackend::verify(const PhaseSteps& steps) {
  const auto hidden = size_of(model_.hidden);
  const auto top_k = size_of(model_.top_k);
  const std::int64_t count = std::min<std::int64_t>(kVerifiedTokens, tokens_per_device_);
  double worst = 0.0;
  take_routes(steps, steps.first_step);
  for (auto& lane : lanes_) {
    lane.layer->stamp_to(nullptr);
  }
  for (const int layer : {0, placement_->layers() - 1}) {
    run_layer(layer);
    wait_for_lanes();
    for (std::size_t lane = 0; lane < lanes(); ++lane) {
      const auto all = lanes_[lane].layer->outputs();
      const auto experts = lanes_[lane].layer->token_experts(layer);
      std::vector<std::int64_t> tokens;
      std::vector<std::int32_t> their_experts;
      std::vector<float> outputs;
      for (std::int64_t i = 0; i < count; ++i) {
        const auto mine = static_cast<std::size_t>(i * tokens_per_device_ / count);
        tokens.push_back(std::int64_t{device_of(lane)} * tokens_per_device_ +
                         static_cast<std::int64_t>(mine));
        const auto ids = std::span(experts).subspan(mine * top_k, top_k);
        const auto row = std::span(all).subspan(mine * hidden, hidden);
        their_experts.insert(their_experts.end(), ids.begin(), ids.end());
        outputs.insert(outputs.end(), row.begin(), row.end());
      }
      const auto expected = dense_reference(model_, study_.seed, layer, tokens, their_experts);
      worst = std::max(worst, largest_error(outputs, expected, hidden));
    }
  }
  return worst;
}

void CudaBackend::check_reference(double& error, int phase) const {
  const double most =
      study_.fleet.precision == study::Precision::fp8 ? kLargestErrorFp8 : kLargestErrorBf16;
  mpi::on_all(comm_, [&] {
    if (!(error <= most)) {
      throw CheckError(
          fmt::format("phase {}: outputs on {} differ from the dense reference by {:.2g}; at most "
                      "{:.0e} is right",
                      phase, my_gpu(), error, most));
    }
  });
  comm_.all_reduce_max(std::span(&error, 1));
}

PhaseClock CudaBackend::measure(const PhaseSteps& steps, PhaseResult& result) {
  const std::size_t count = steps.loads.extent(0);
  const auto layers = size_of(placement_->layers());
  const std::size_t stride = 1 + 3 * layers;
  std::vector<cuda::DeviceArray<std::uint64_t>> words;
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    words.emplace_back(count * stride);
  }
  std::vector<timeline::Stamps> stamps(lanes(), timeline::Stamps(count, layers));
  const auto before = timeline::synchronise(devices_);
  const auto gpu_before = clock_->calibrate(stream_of(0), timeline::monotonic_raw_ns);
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<std::uint64_t*> here;
    here.reserve(words.size());
    for (const auto& lane : words) {
      here.push_back(lane.data() + i * stride);
    }
    run_step(steps, steps.first_step + static_cast<std::int64_t>(i), here);
    for (std::size_t lane = 0; lane < lanes(); ++lane) {
      for (std::size_t layer = 0; layer < layers; ++layer) {
        stamps[lane].tokens(i, layer) =
            static_cast<std::uint32_t>(lanes_[lane].layer->received(static_cast<int>(layer)));
      }
    }
  }
  const auto gpu_after = clock_->calibrate(stream_of(0), timeline::monotonic_raw_ns);
  const auto after = timeline::synchronise(devices_);
  const auto gpu_clock = device_clock::between(gpu_before, gpu_after);
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    std::vector<std::uint64_t> read(words[lane].size());
    cuda::to_host(words[lane].data(), std::span(read), stream_of(lane));
    stream_of(lane).synchronise();
    const auto host = [&](std::size_t word) {
      return gpu_clock.to_host(static_cast<Nanoseconds>(read[word]));
    };
    for (std::size_t i = 0; i < count; ++i) {
      stamps[lane].entered[i] = host(i * stride);
      for (std::size_t layer = 0; layer < layers; ++layer) {
        const std::size_t at = i * stride + 1 + 3 * layer;
        stamps[lane].dispatched(i, layer) = host(at);
        stamps[lane].arrived(i, layer) = host(at + 1);
        stamps[lane].exited(i, layer) = host(at + 2);
      }
    }
  }
  const auto fit = timeline::between(before.fit, after.fit);
  result.mine = timeline::timeline_of(devices_, stamps, fit);
  result.clock_residual_ns =
      std::max(before.fleet_residual_ns, after.fleet_residual_ns) + gpu_clock.residual_ns;
  return {fit, fit.to_other(stamps.front().arrived(0, 0)) - result.mine.arrival_ns(0, 0, 0)};
}

PhaseResult CudaBackend::run(const PhaseSteps& steps) {
  check_steps(steps);
  PhaseResult result;
  result.mine =
      timeline::Timeline(0, steps.loads.extent(0), size_of(steps.placements.front().layers()));
  if (active()) {
    naming_gpu([&] {
      for (int i = steps.warmup_steps; i > 0; --i) {
        run_step(steps, std::max<std::int64_t>(steps.first_step - i, 0), {});
      }
      if (steps.ran_before == 0) {
        result.reference_error = verify(steps);
      } else {
        run_step(steps, steps.first_step - 1, {});  // what came between has cooled caches
      }
    });
  }
  check_reference(result.reference_error, steps.phase);
  const auto measured = [&] {
    PhaseClock clock;
    naming_gpu([&] { clock = measure(steps, result); });
    return clock;
  };
  if (keeper_) {
    measure_observed(comm_, sensors_, active(), result, measured);
  } else if (active()) {
    (void)measured();
  }
  comm_.all_reduce_max(std::span(&result.telemetry.polling_s, 1));
  comm_.all_reduce_max(std::span(&result.clock_residual_ns, 1));
  result.totals = timeline::reduce_totals(comm_, timeline::totals_of(result.mine));
  note_clock(clock_reading_, result);
  return result;
}

}  // namespace moevar::run
