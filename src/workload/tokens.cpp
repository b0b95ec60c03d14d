#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"
#include "workload/load_file.hpp"
#include "workload/sampler.hpp"

namespace moevar::workload {

namespace {

class TokensRouting final : public Routing {
 public:
  /// `ids`: [recorded steps][layers][recorded tokens][top_k].
  TokensRouting(const RoutingShape& shape, std::uint64_t seed, Tensor<std::int32_t, 4> ids)
      : shape_(shape), draw_key_(random_stream(seed, Stream::token)), ids_(std::move(ids)) {}

  [[nodiscard]] RoutingShape shape() const override { return shape_; }

  void sample(std::int64_t step, std::int64_t tokens,
              std::span<std::uint32_t> counts) const override {
    check_sample(shape_, step, tokens, counts.size());
    std::vector<std::uint32_t> uses(ids_.extent(2), 0);
    for (std::size_t i = 0; i < static_cast<std::size_t>(tokens); ++i) {
      ++uses[recorded_token(step, tokens, i)];
    }
    std::ranges::fill(counts, 0U);
    const auto experts = static_cast<std::size_t>(shape_.experts);
    for (std::size_t layer = 0; layer < ids_.extent(1); ++layer) {
      const auto row = counts.subspan(layer * experts, experts);
      const auto ids = ids_.row(recorded_step(step), layer);
      for (std::size_t token = 0; token < uses.size(); ++token) {
        for (std::size_t choice = 0; uses[token] > 0 && choice < ids_.extent(3); ++choice) {
          row[static_cast<std::size_t>(ids[token * ids_.extent(3) + choice])] += uses[token];
        }
      }
    }
  }

  [[nodiscard]] Matrix<std::int32_t> token_experts(std::int64_t step, int layer,
                                                   std::int64_t tokens) const override {
    check_token_request(shape_, step, layer, tokens);
    Matrix<std::int32_t> experts({static_cast<std::size_t>(tokens), ids_.extent(3)});
    for (std::size_t i = 0; i < experts.extent(0); ++i) {
      std::ranges::copy(ids_.row(recorded_step(step), static_cast<std::size_t>(layer),
                                 recorded_token(step, tokens, i)),
                        experts.row(i).begin());
    }
    return experts;
  }

 private:
  [[nodiscard]] std::size_t recorded_step(std::int64_t step) const {
    return static_cast<std::size_t>(step) % ids_.extent(0);
  }

  /// The same in every layer, so that what a token picks in one goes with what it picks in others.
  [[nodiscard]] std::size_t recorded_token(std::int64_t step, std::int64_t tokens,
                                           std::size_t i) const {
    return static_cast<std::size_t>(tokens) == ids_.extent(2)
               ? i
               : draw_key_[static_cast<std::uint64_t>(step)][i].below(ids_.extent(2));
  }

  RoutingShape shape_;
  RandomKey draw_key_;
  Tensor<std::int32_t, 4> ids_;
};

void check_distinct(const Tensor<std::int32_t, 4>& ids, const Recording& recorded,
                    const std::string& path) {
  std::vector<std::int32_t> sorted(ids.extent(3));
  for (std::size_t step = 0; step < ids.extent(0); ++step) {
    for (std::size_t layer = 0; layer < ids.extent(1); ++layer) {
      for (std::size_t token = 0; token < ids.extent(2); ++token) {
        std::ranges::copy(ids.row(step, layer, token), sorted.begin());
        std::ranges::sort(sorted);
        const auto twin = std::ranges::adjacent_find(sorted);
        if (twin != sorted.end()) {
          throw InputError(fmt::format(
              "{}, step {}, layer {}, token {}: expert {} twice; expected {} different experts",
              path, step, recorded.layers[layer], token, *twin, sorted.size()));
        }
      }
    }
  }
}

}  // namespace

std::unique_ptr<Routing> make_tokens(const std::string& text, const std::string& path,
                                     const RoutingShape& expected, std::uint64_t seed) {
  const double most_id = expected.experts > 0 ? expected.experts - 1 : kLargestId;
  const Recording recorded = file_kind(path) == FileKind::json ? parse_ids_json(text, path, most_id)
                                                               : parse_ids_csv(text, path, most_id);
  const auto top_k = static_cast<int>(recorded.values.extent(3));
  if (expected.top_k > 0 && expected.top_k != top_k) {
    throw InputError(fmt::format("{}: {} experts per token; expected {}, the model's top_k", path,
                                 top_k, expected.top_k));
  }
  Tensor<std::int32_t, 4> ids(recorded.values.shape());
  std::ranges::transform(recorded.values.flat(), ids.flat().begin(),
                         [](double id) { return static_cast<std::int32_t>(id); });
  check_distinct(ids, recorded, path);

  const std::size_t layers = layers_to_use(expected, ids.extent(1), path);
  const int experts = expected.experts > 0 ? expected.experts : std::ranges::max(ids.flat()) + 1;
  const RoutingShape shape{static_cast<int>(layers), experts, top_k};
  check_shape(shape, path);
  if (layers < ids.extent(1)) {
    Tensor<std::int32_t, 4> first({ids.extent(0), layers, ids.extent(2), ids.extent(3)});
    for (std::size_t step = 0; step < ids.extent(0); ++step) {
      std::ranges::copy(ids.row(step).first(first.row(step).size()), first.row(step).begin());
    }
    ids = std::move(first);
  }
  return std::make_unique<TokensRouting>(shape, seed, std::move(ids));
}

}  // namespace moevar::workload
