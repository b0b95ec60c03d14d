#include "record/serving_record.hpp"

#include <array>
#include <limits>

#include <nlohmann/json.hpp>

#include "record/put.hpp"
#include "record/whole_number.hpp"

namespace moevar::record {

namespace {

using Json = nlohmann::ordered_json;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::optional<double> optional_number(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<double>());
}

double number(const Json& json) { return json.is_null() ? kNone : json.get<double>(); }

Json interval_of(const serving::Estimate& estimate) {
  return estimate.low || estimate.high
             ? Json::array({or_null(estimate.low), or_null(estimate.high)})
             : Json(nullptr);
}

serving::Estimate estimate_of(const Json& value, const Json& interval) {
  serving::Estimate estimate{number(value), {}, {}};
  if (!interval.is_null()) {
    estimate.low = optional_number(interval.at(0));
    estimate.high = optional_number(interval.at(1));
  }
  return estimate;
}

Json to_json(const serving::Latency& quantiles) {
  return {{"p50", quantiles.p50.value},
          {"p90", quantiles.p90.value},
          {"p99", quantiles.p99.value},
          {"p50_interval", interval_of(quantiles.p50)},
          {"p90_interval", interval_of(quantiles.p90)},
          {"p99_interval", interval_of(quantiles.p99)},
          {"n", quantiles.n},
          {"independent", quantiles.independent}};
}

serving::Latency quantiles_from(const Json& json) {
  return {estimate_of(json.at("p50"), json.at("p50_interval")),
          estimate_of(json.at("p90"), json.at("p90_interval")),
          estimate_of(json.at("p99"), json.at("p99_interval")),
          whole_number<std::size_t>(json, "n"), number(json.at("independent"))};
}

Json to_json(const serving::Metrics& metrics) {
  Json json;
  json["requests"] = metrics.requests;
  json["ttft_ms"] = to_json(metrics.ttft_ms);
  json["tpot_ms"] = metrics.tpot_ms ? to_json(*metrics.tpot_ms) : Json(nullptr);
  json["e2e_ms"] = to_json(metrics.e2e_ms);
  json["slo_attainment"] = metrics.attainment.value;
  json["slo_attainment_interval"] = interval_of(metrics.attainment);
  json["goodput_rps"] = metrics.goodput_rps;
  json["throughput_rps"] = metrics.throughput_rps;
  json["arrival_rps"] = or_null(metrics.arrival_rps);
  json["output_tokens_per_s"] = metrics.output_tokens_per_s;
  json["duration_s"] = metrics.duration_s;
  json["mean_in_system"] = metrics.mean_in_system;
  json["little_error"] = metrics.little_error;
  return json;
}

serving::Metrics metrics_from(const Json& json) {
  serving::Metrics metrics;
  metrics.requests = whole_number<std::size_t>(json, "requests");
  metrics.ttft_ms = quantiles_from(json.at("ttft_ms"));
  if (!json.at("tpot_ms").is_null()) {
    metrics.tpot_ms = quantiles_from(json.at("tpot_ms"));
  }
  metrics.e2e_ms = quantiles_from(json.at("e2e_ms"));
  metrics.attainment = estimate_of(json.at("slo_attainment"), json.at("slo_attainment_interval"));
  metrics.goodput_rps = number(json.at("goodput_rps"));
  metrics.throughput_rps = number(json.at("throughput_rps"));
  metrics.arrival_rps = optional_number(json.at("arrival_rps"));
  metrics.output_tokens_per_s = number(json.at("output_tokens_per_s"));
  metrics.duration_s = number(json.at("duration_s"));
  metrics.mean_in_system = number(json.at("mean_in_system"));
  metrics.little_error = number(json.at("little_error"));
  return metrics;
}

Json to_json(const RateFound& found) {
  Json evaluations = Json::array();
  for (const auto& [rate, attainment] : found.evaluations) {
    evaluations.push_back({rate, attainment});
  }
  return {{"rate", or_null(found.rate)},
          {"low", or_null(found.kept)},
          {"high", or_null(found.missed)},
          {"evaluations", std::move(evaluations)}};
}

RateFound found_from(const Json& json) {
  RateFound found{optional_number(json.at("rate")),
                  optional_number(json.at("low")),
                  optional_number(json.at("high")),
                  {}};
  for (const auto& pair : json.at("evaluations")) {
    found.evaluations.emplace_back(pair.at(0).get<double>(), pair.at(1).get<double>());
  }
  return found;
}

Json to_json(const Rearrangement& move) {
  return {{"at_s", move.at_s},
          {"because", move.because},
          {"moved_experts", move.moved_experts},
          {"migrate_ms", move.migrate_ms}};
}

Json to_json(const Change& change) {
  return {{"what", change.what},
          {"at_s", change.at_s},
          {"noticed_after_s", or_null(change.noticed_after_s)},
          {"recovered_after_s", or_null(change.recovered_after_s)},
          {"tax_before", or_null(change.tax_before)},
          {"tax_peak", or_null(change.tax_peak)},
          {"tax_end", or_null(change.tax_end)},
          {"moved_experts", change.moved_experts},
          {"stopped_ms", change.stopped_ms},
          {"ttft_before_ms", or_null(change.ttft_before_ms)},
          {"ttft_peak_ms", or_null(change.ttft_peak_ms)}};
}

Change change_from(const Json& json) {
  return {json.at("what").get<std::string>(),
          {},  // which device is said in `what`
          number(json.at("at_s")),
          optional_number(json.at("noticed_after_s")),
          optional_number(json.at("recovered_after_s")),
          optional_number(json.at("tax_before")),
          optional_number(json.at("tax_peak")),
          optional_number(json.at("tax_end")),
          whole_number<std::int64_t>(json, "moved_experts"),
          number(json.at("stopped_ms")),
          optional_number(json.at("ttft_before_ms")),
          optional_number(json.at("ttft_peak_ms"))};
}

}  // namespace

Json to_json(const ServingSummary& summary) {
  Json json = to_json(summary.metrics);
  json["steps"] = summary.steps;
  json["layers_s"] = summary.layers_s;
  json["rest_s"] = summary.rest_s;
  if (summary.search) {
    json["max_rate"] = to_json(*summary.search);
  }
  if (summary.predicted) {
    json["predicted"] = to_json(*summary.predicted);
  }
  json["rearrangements"] = Json::array();
  for (const auto& move : summary.rearrangements) {
    json["rearrangements"].push_back(to_json(move));
  }
  json["changes"] = Json::array();
  for (const auto& change : summary.changes) {
    json["changes"].push_back(to_json(change));
  }
  return json;
}

ServingSummary serving_from_json(const Json& json) {
  ServingSummary summary;
  summary.metrics = metrics_from(json);
  summary.steps = whole_number<std::size_t>(json, "steps");
  summary.layers_s = number(json.at("layers_s"));
  summary.rest_s = number(json.at("rest_s"));
  if (json.contains("max_rate")) {
    summary.search = found_from(json.at("max_rate"));
  }
  if (json.contains("predicted")) {
    summary.predicted = metrics_from(json.at("predicted"));
  }
  for (const auto& move : json.at("rearrangements")) {
    summary.rearrangements.push_back(
        {number(move.at("at_s")), move.at("because").get<std::string>(),
         whole_number<std::int64_t>(move, "moved_experts"), number(move.at("migrate_ms"))});
  }
  for (const auto& change : json.at("changes")) {
    summary.changes.push_back(change_from(change));
  }
  return summary;
}

void write_serving(const hdf5::Group& phase, const ServingRecord& record) {
  const auto group = phase.create_group("serving");
  const auto requests = group.create_group("requests");
  using serving::Served;
  put_column<double>(requests, "intended_s", record.requests, &Served::intended_s, "s");
  put_column<double>(requests, "started_s", record.requests, &Served::started_s, "s");
  put_column<double>(requests, "first_token_s", record.requests, &Served::first_token_s, "s");
  put_column<double>(requests, "finished_s", record.requests, &Served::finished_s, "s");
  put_column<std::int32_t>(requests, "input_tokens", record.requests, &Served::input_tokens,
                           "tokens");
  put_column<std::int32_t>(requests, "output_tokens", record.requests, &Served::output_tokens,
                           "tokens");
  put_column<std::int32_t>(requests, "kind", record.requests, &Served::kind, "1");
  const auto steps = group.create_group("steps");
  put_column<double>(steps, "start_s", record.steps, &ServingStep::start_s, "s");
  put_column<std::int64_t>(steps, "layers_ns", record.steps, &ServingStep::layers_ns, "ns");
  put_column<std::int64_t>(steps, "rest_ns", record.steps, &ServingStep::rest_ns, "ns");
  put_column<std::int64_t>(steps, "prefill_tokens", record.steps, &ServingStep::prefill_tokens,
                           "tokens");
  put_column<std::int64_t>(steps, "decode_tokens", record.steps, &ServingStep::decode_tokens,
                           "tokens");
  put_column<std::int32_t>(steps, "running", record.steps, &ServingStep::running, "requests");
  put_column<std::int32_t>(steps, "waiting", record.steps, &ServingStep::waiting, "requests");
  if (record.rearrangements.empty()) {
    return;  // h5diff cannot compare empty ones
  }
  const auto moves = group.create_group("rearrangements");
  put_column<double>(moves, "at_s", record.rearrangements, &Rearrangement::at_s, "s");
  put_column<std::int64_t>(moves, "moved_experts", record.rearrangements,
                           &Rearrangement::moved_experts, "1");
  put_column<double>(moves, "migrate_ms", record.rearrangements, &Rearrangement::migrate_ms, "ms");
}

}  // namespace moevar::record
