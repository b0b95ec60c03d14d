#include "run/layer_schedule.hpp"

#include <algorithm>

namespace moevar::run {

std::vector<LayerOperation> layer_schedule(std::size_t batches) {
  const bool overlaps = batches > 1;
  std::vector<LayerOperation> operations;
  operations.reserve(batches * static_cast<std::size_t>(LayerPart::count));
  const auto compute = [&](LayerPart part, std::size_t batch, std::optional<LayerPart> after) {
    operations.push_back({part, batch, Queue::compute, overlaps ? after : std::nullopt,
                          overlaps && part != LayerPart::finish});
  };
  const auto exchange = [&](LayerPart part, std::size_t batch, LayerPart after) {
    operations.push_back({part, batch, overlaps ? Queue::exchange : Queue::compute,
                          overlaps ? std::optional(after) : std::nullopt, overlaps});
  };
  for (std::size_t batch = 0; batch < batches; ++batch) {
    compute(LayerPart::send, batch, std::nullopt);
  }
  for (std::size_t batch = 0; batch < batches; ++batch) {
    exchange(LayerPart::dispatch, batch, LayerPart::send);
    compute(LayerPart::work, batch, LayerPart::dispatch);
  }
  for (std::size_t batch = 0; batch < batches; ++batch) {
    exchange(LayerPart::combine, batch, LayerPart::work);
    compute(LayerPart::finish, batch, LayerPart::combine);
  }
  return operations;
}

std::vector<TokenRange> batches_of(std::size_t tokens, std::size_t batches) {
  const std::size_t count = std::max<std::size_t>(std::min(tokens, batches), 1);
  std::vector<TokenRange> ranges;
  ranges.reserve(count);
  std::size_t first = 0;
  for (std::size_t batch = 0; batch < count; ++batch) {
    const std::size_t size = tokens / count + (batch < tokens % count ? 1 : 0);
    ranges.push_back({first, size});
    first += size;
  }
  return ranges;
}

}  // namespace moevar::run
