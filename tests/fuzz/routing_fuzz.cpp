#include <vector>

#include "fuzz.hpp"
#include "workload/load_file.hpp"
#include "workload/routing.hpp"

/// Recorded routing, counts and token ids. MOEVAR_FUZZ_PATH names the format by its ending.
namespace {

using namespace moevar;

constexpr std::size_t kSmall = 1 << 16;  ///< counts of a step that are worth sampling

void check_sample(const workload::Routing& routing, std::int64_t step, std::int64_t tokens) {
  const auto shape = routing.shape();
  const auto experts = static_cast<std::size_t>(shape.experts);
  const auto layers = static_cast<std::size_t>(shape.layers);
  std::vector<std::uint32_t> counts(layers * experts);
  routing.sample(step, tokens, counts);
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const auto row = std::span(counts).subspan(layer * experts, experts);
    std::int64_t sum = 0;
    for (const auto count : row) {
      fuzz::require(count <= tokens, "an expert has more tokens than there are");
      sum += count;
    }
    fuzz::require(sum == tokens * shape.top_k, "counts do not sum to tokens × top_k");
    const auto picked = routing.token_experts(step, static_cast<int>(layer), tokens);
    std::vector<std::uint32_t> histogram(experts, 0U);
    for (const auto expert : picked.flat()) {
      ++histogram.at(static_cast<std::size_t>(expert));
    }
    fuzz::require(std::ranges::equal(row, histogram), "tokens and counts differ");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto input = fuzz::split({data, size});
  const bool ids = input.pick(2) == 1;
  const int top_k = input.pick(4);
  const workload::RoutingShape expected{input.pick(3), 2 * input.pick(3), ids ? top_k : top_k + 1};
  std::unique_ptr<workload::Routing> routing;
  const bool taken = fuzz::accepted([&] {
    routing = ids ? workload::make_tokens(input.text, MOEVAR_FUZZ_PATH, expected, 1)
                  : workload::make_counts(input.text, MOEVAR_FUZZ_PATH, expected, 1);
  });
  if (!taken) {
    return 0;
  }
  const auto shape = routing->shape();
  fuzz::require(shape.layers > 0 && shape.top_k > 0 && shape.top_k <= shape.experts &&
                    (expected.layers == 0 || shape.layers == expected.layers) &&
                    (expected.experts == 0 || shape.experts == expected.experts),
                "a routing of another shape");
  if (static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(shape.experts) <= kSmall) {
    check_sample(*routing, 0, 1);
    check_sample(*routing, 3, 17);
  }
  return 0;
}
