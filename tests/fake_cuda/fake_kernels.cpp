/// The kernels' CUDA versions by their CPU references, on "device" memory that is the host's.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

#include "base/error.hpp"
#include "burn/burn_cuda.hpp"
#include "checksum/checksum.hpp"
#include "checksum/checksum_cuda.hpp"
#include "device_clock/device_clock_cuda.hpp"
#include "expert_ffn/expert_ffn_cuda.hpp"
#include "fake_cuda.hpp"
#include "fleet/device_weights.hpp"
#include "fleet/expert_weights.hpp"
#include "fleet/uniform_values.hpp"
#include "gating/gating_cuda.hpp"
#include "gating/router_cuda.hpp"
#include "system/green_context.hpp"
#include "timeline/clock.hpp"
#include "token_exchange/token_exchange.hpp"
#include "token_exchange/token_exchange_cuda.hpp"

namespace moevar {

namespace {

using fake::memory;
using fake::used;

std::vector<float> floats(const BFloat16* values, std::size_t count) {
  std::vector<float> all(count);
  std::transform(values, values + count, all.begin(), [](BFloat16 v) { return v.value(); });
  return all;
}

void store(std::span<const float> values, BFloat16* to) {
  std::ranges::transform(values, to, BFloat16::from);
}

/// A clock of its own: another zero, and a step of 32 ns.
std::uint64_t gpu_now() {
  const auto now = static_cast<std::uint64_t>(timeline::monotonic_raw_ns());
  return (now + 77'000'000'000U) / 32U * 32U;
}

void move_rows(std::size_t hidden, std::span<const std::uint32_t> place, const BFloat16* from,
               BFloat16* to, bool back) {
  for (std::size_t row = 0; row < place.size(); ++row) {
    const std::size_t there = place[row] * hidden;
    const std::size_t here = row * hidden;
    std::memcpy(to + (back ? here : there), from + (back ? there : here),
                hidden * sizeof(BFloat16));
  }
}

}  // namespace

namespace token_exchange {

DevicePlan::DevicePlan(std::size_t most_rows, std::size_t slots)
    : place_(most_rows), rows_per_slot_(slots) {}

void DevicePlan::make(const std::int32_t* slot_of_row, std::size_t rows,
                      const cuda::Stream& stream) {
  used(stream.raw(), "plan", {memory(slot_of_row, rows)},
       {memory(place_.data(), rows), memory(rows_per_slot_.data(), slots())});
  Permutation permutation(rows, slots());
  plan({slot_of_row, rows}, permutation);
  rows_ = rows;
  std::ranges::copy(permutation.place, place_.data());
  std::ranges::copy(permutation.rows_per_slot, rows_per_slot_.data());
}

void permute_cuda(std::size_t hidden, std::size_t top_k, const DevicePlan& plan, const BFloat16* x,
                  BFloat16* rows, const cuda::Stream& stream) {
  used(stream.raw(), "permute",
       {memory(plan.place(), plan.rows()), memory(x, plan.rows() / top_k * hidden)},
       {memory(rows, plan.rows() * hidden)});
  for (std::size_t row = 0; row < plan.rows(); ++row) {
    std::memcpy(rows + plan.place()[row] * hidden, x + row / top_k * hidden,
                hidden * sizeof(BFloat16));
  }
}

void unpermute_cuda(std::size_t hidden, std::size_t top_k, const DevicePlan& plan,
                    const BFloat16* rows, const float* weights, BFloat16* y,
                    const cuda::Stream& stream) {
  used(stream.raw(), "unpermute",
       {memory(plan.place(), plan.rows()), memory(rows, plan.rows() * hidden),
        memory(weights, plan.rows())},
       {memory(y, plan.rows() / top_k * hidden)});
  for (std::size_t token = 0; token < plan.rows() / top_k; ++token) {
    for (std::size_t i = 0; i < hidden; ++i) {
      float sum = 0.0F;
      for (std::size_t k = token * top_k; k < (token + 1) * top_k; ++k) {
        sum += weights[k] * rows[plan.place()[k] * hidden + i].value();
      }
      y[token * hidden + i] = BFloat16::from(sum);
    }
  }
}

DeviceGrouping::DeviceGrouping(std::size_t sources, std::size_t slots, std::size_t most_rows)
    : sources_(sources), place_(most_rows), rows_per_slot_(slots) {}

void DeviceGrouping::make(const std::int64_t* counts, std::size_t rows,
                          const cuda::Stream& stream) {
  used(stream.raw(), "grouping", {memory(counts, sources_ * slots())},
       {memory(place_.data(), rows), memory(rows_per_slot_.data(), slots())});
  rows_ = rows;
  std::uint32_t next = 0;
  for (std::size_t slot = 0; slot < slots(); ++slot) {
    rows_per_slot_.data()[slot] = 0;
    for (std::size_t source = 0; source < sources_; ++source) {
      const std::size_t piece = source * slots() + slot;
      const auto first = std::reduce(counts, counts + piece);
      for (std::int64_t i = 0; i < counts[piece]; ++i) {
        place_.data()[first + i] = next++;
      }
      rows_per_slot_.data()[slot] += counts[piece];
    }
  }
}

void group_cuda(std::size_t hidden, const DeviceGrouping& grouping, const BFloat16* from,
                BFloat16* to, const cuda::Stream& stream) {
  used(stream.raw(), "group",
       {memory(grouping.place(), grouping.rows()), memory(from, grouping.rows() * hidden)},
       {memory(to, grouping.rows() * hidden)});
  move_rows(hidden, {grouping.place(), grouping.rows()}, from, to, false);
}
void ungroup_cuda(std::size_t hidden, const DeviceGrouping& grouping, const BFloat16* from,
                  BFloat16* to, const cuda::Stream& stream) {
  used(stream.raw(), "ungroup",
       {memory(grouping.place(), grouping.rows()), memory(from, grouping.rows() * hidden)},
       {memory(to, grouping.rows() * hidden)});
  move_rows(hidden, {grouping.place(), grouping.rows()}, from, to, true);
}

}  // namespace token_exchange

namespace gating {

void choose_top_k_cuda(const Shape& shape, std::size_t tokens, const float* scores,
                       std::int32_t* ids, float* weights, const cuda::Stream& stream) {
  choose_top_k_cpu(shape, {scores, tokens * shape.experts}, {ids, tokens * shape.top_k});
  softmax_cuda(shape, tokens, scores, ids, weights, stream);
}
void softmax_cuda(const Shape& shape, std::size_t tokens, const float* scores,
                  const std::int32_t* ids, float* weights, const cuda::Stream& stream) {
  used(stream.raw(), "softmax",
       {memory(scores, tokens * shape.experts), memory(ids, tokens * shape.top_k)},
       {memory(weights, tokens * shape.top_k)});
  softmax_cpu(shape, {scores, tokens * shape.experts}, {ids, tokens * shape.top_k},
              {weights, tokens * shape.top_k});
}

struct Router::Product {
  Shape shape;
};
Router::Router(const Shape& shape, std::size_t) : product_(new Product{shape}) {}
Router::~Router() = default;
void Router::scores(std::size_t tokens, const BFloat16* x, const BFloat16* router, float* scores,
                    const cuda::Stream& stream) {
  const auto& shape = product_->shape;
  used(stream.raw(), "scores",
       {memory(x, tokens * shape.hidden), memory(router, shape.experts * shape.hidden)},
       {memory(scores, tokens * shape.experts), memory(product_.get(), 1)});  // its workspace
  scores_cpu(shape, floats(x, tokens * shape.hidden), floats(router, shape.experts * shape.hidden),
             {scores, tokens * shape.experts});
}

}  // namespace gating

namespace expert_ffn {

/// A slot holds the plain matrices.
void to_slot(const Shape& shape, Precision, const BFloat16* plain, void* slot,
             const cuda::Stream& stream) {
  const std::size_t values = 3 * shape.hidden * shape.intermediate;
  used(stream.raw(), "to_slot", {memory(plain, values)}, {{slot, values * sizeof(BFloat16)}});
  std::memcpy(slot, plain, 3 * shape.hidden * shape.intermediate * sizeof(BFloat16));
}

struct DeviceExperts::State {
  Shape shape;
  DeviceOptions options;
};
DeviceExperts::DeviceExperts(const Shape& shape, Precision, const DeviceOptions& options)
    : state_(new State{shape, options}) {
  if (shape.hidden % 16 != 0 || shape.intermediate % 16 != 0) {
    throw InputError("sizes are multiples of 16");
  }
}
DeviceExperts::~DeviceExperts() = default;
DeviceExperts::DeviceExperts(DeviceExperts&&) noexcept = default;
DeviceExperts& DeviceExperts::operator=(DeviceExperts&&) noexcept = default;

void DeviceExperts::run(std::span<const DeviceGroup> groups, const BFloat16* x, BFloat16* y,
                        const cuda::Stream& stream) {
  const auto& shape = state_->shape;
  const std::size_t size = shape.hidden * shape.intermediate;
  std::size_t all = 0;
  for (const auto& group : groups) {
    used(stream.raw(), "weights of experts",
         {{group.slot, group.rows > 0 ? 3 * size * sizeof(BFloat16) : 0}}, {});
    all += group.rows;
  }
  used(stream.raw(), "experts", {memory(x, all * shape.hidden)},
       {memory(y, all * shape.hidden), memory(state_.get(), 1)});  // its workspace
  all = 0;
  Workspace workspace(shape);
  for (const auto& group : groups) {
    if (group.rows == 0) {
      continue;
    }
    all += group.rows;
    const auto weights = floats(static_cast<const BFloat16*>(group.slot), 3 * size);
    const std::span<const float> matrices(weights);
    const Group plain{{matrices.first(size), matrices.subspan(size, size), matrices.last(size)},
                      group.rows};
    const std::size_t values = group.rows * shape.hidden;
    std::vector<float> out(values);
    run_cpu(shape, {&plain, 1}, floats(x, values), out, workspace);
    store(out, y);
    x += values;
    y += values;
  }
  if (groups.size() > state_->options.most_groups || all > state_->options.most_rows) {
    throw InputError("more groups or rows than the experts' work was made for");
  }
}
void DeviceExperts::tune(std::span<const void* const>, std::span<const std::size_t>,
                         const cuda::Stream&) {}
std::string DeviceExperts::chosen(std::size_t) const { return "host"; }

}  // namespace expert_ffn

namespace device_clock {

void stamp(std::uint64_t* word, const cuda::Stream& stream) {
  used(stream.raw(), "stamp", {}, {memory(word, 1)});
  *word = gpu_now();
}

Calibrator::Calibrator(const cuda::Stream&, int rounds)
    : answers_(static_cast<std::size_t>(rounds)), step_ns_(32) {}

double stamp_cost_ns(const cuda::Stream&) { return 2500.0; }

Offset Calibrator::calibrate(const cuda::Stream&, const HostClock& now) {
  std::vector<Round> rounds(answers_.size());
  for (auto& round : rounds) {
    round.asked = now();
    round.stamped = static_cast<Nanoseconds>(gpu_now());
    round.answered = now();
  }
  return offset_of(rounds, step_ns_);
}

}  // namespace device_clock

namespace burn {

class Burner::Work {};
Burner::Burner(int) {}
Burner::~Burner() = default;
int Burner::size() const noexcept { return 8192; }
double Burner::run(double seconds, double) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return 1.0;
}

}  // namespace burn

namespace checksum {

void sum_cuda(const BFloat16* values, std::size_t count, std::uint64_t* sum,
              const cuda::Stream& stream) {
  used(stream.raw(), "checksum", {memory(values, count)}, {memory(sum, 1)});
  *sum = sum_cpu({values, count});
}

}  // namespace checksum

namespace fleet {

void fill_expert_cuda(const expert_ffn::Shape& shape, std::uint64_t seed, int layer,
                      std::int32_t expert, BFloat16* plain, const cuda::Stream& stream) {
  used(stream.raw(), "fill_expert", {}, {memory(plain, 3 * shape.hidden * shape.intermediate)});
  for (const auto matrix : kExpertMatrices) {
    const auto key = matrix_key(seed, layer, expert, matrix);
    const double edge = edge_of(variance_of(shape, matrix));
    for (std::size_t i = 0; i < shape.hidden * shape.intermediate; ++i) {
      *plain++ = BFloat16::from(uniform_value(key, i, edge));
    }
  }
}
void fill_router_cuda(std::uint64_t seed, int layer, std::size_t experts, std::size_t hidden,
                      BFloat16* router, const cuda::Stream& stream) {
  used(stream.raw(), "fill_router", {}, {memory(router, experts * hidden)});
  std::vector<float> values(experts * hidden);
  fill_router(seed, layer, hidden, values);
  store(values, router);
}
void fill_activations_cuda(std::uint64_t seed, std::int64_t first_token, std::size_t tokens,
                           std::size_t hidden, BFloat16* x, const cuda::Stream& stream) {
  used(stream.raw(), "fill_activations", {}, {memory(x, tokens * hidden)});
  std::vector<float> values(tokens * hidden);
  fill_activations(seed, first_token, hidden, values);
  store(values, x);
}

}  // namespace fleet

namespace cuda {

GreenContext::~GreenContext() = default;

std::vector<Partition> split(std::span<const int> sms) {
  const int all = std::reduce(sms.begin(), sms.end());
  if (all > sm_count()) {
    throw EnvironmentError("the stand-in has 132 SMs");
  }
  std::vector<Partition> parts;
  for (const int wanted : sms) {
    parts.push_back({wanted, GreenContext(nullptr), Stream()});
  }
  return parts;
}

Stream urgent_stream(const Partition&) { return Stream::urgent(); }

}  // namespace cuda

}  // namespace moevar
