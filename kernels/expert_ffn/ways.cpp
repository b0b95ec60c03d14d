#include "expert_ffn/ways.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <string_view>

#include <fmt/format.h>

namespace moevar::expert_ffn {

bool Way::fused() const noexcept { return gemm != nullptr && gemm->result == Result::swiglu; }

std::string Way::name() const {
  if (gemm == nullptr) {
    return lanes == 1 ? "cublaslt" : fmt::format("cublaslt on {} streams", lanes);
  }
  return fmt::format("cutlass {}{}{}", gemm->name, fused() ? " fused" : "",
                     along_columns ? " by columns" : " by rows");
}

Choice KnownWays::rule_of_thumb(std::size_t rows_a_group) const {
  constexpr std::size_t kFew = 64;
  constexpr std::size_t kMany = 512;
  const std::string_view tile =
      rows_a_group <= kFew ? "64x128" : (rows_a_group < kMany ? "128x128" : "128x256");
  // fused where there is such a way: fp8 has none
  const auto best = [tile](const std::vector<Way>& ways) {
    const auto of_tile = [tile](const Way& way) {
      return way.gemm != nullptr && way.gemm->name == tile;
    };
    auto found = std::find_if(ways.begin(), ways.end(),
                              [&](const Way& way) { return of_tile(way) && way.fused(); });
    if (found == ways.end()) {
      found = std::find_if(ways.begin(), ways.end(), of_tile);
    }
    return found == ways.end() ? 0 : static_cast<std::size_t>(found - ways.begin());
  };
  return {best(first), best(second)};
}

Choice KnownWays::choice_for(std::size_t rows_a_group) const {
  if (forced) {
    return *forced;
  }
  if (tuned.empty()) {
    return rule_of_thumb(rows_a_group);
  }
  const auto above = tuned.lower_bound(rows_a_group);
  if (above == tuned.begin()) {
    return above->second;
  }
  const auto below = std::prev(above);
  if (above == tuned.end()) {
    return below->second;
  }
  // the nearer one by ratio
  return rows_a_group * rows_a_group < above->first * below->first ? below->second : above->second;
}

std::size_t fastest(const std::vector<Way>& ways, const cuda::Stream& stream,
                    const std::function<void(const Way&)>& start) {
  constexpr int kRepeats = 3;
  constexpr float kHopeless = 2.0F;
  const cuda::Event begin;
  const cuda::Event end;
  const auto time_of = [&](const Way& way, int repeats) {
    begin.record(stream);
    for (int r = 0; r < repeats; ++r) {
      start(way);
    }
    end.record(stream);
    end.synchronise();
    return end.us_since(begin) / static_cast<float>(repeats);
  };
  std::optional<std::size_t> best;
  float best_us = std::numeric_limits<float>::infinity();
  std::string why;
  for (std::size_t i = 0; i < ways.size(); ++i) {
    try {
      start(ways[i]);
      if (time_of(ways[i], 1) > kHopeless * best_us) {
        continue;
      }
      if (const float us = time_of(ways[i], kRepeats); us < best_us) {
        best_us = us;
        best = i;
      }
    } catch (const cuda::CudaError&) {
      throw;
    } catch (const LibraryError& error) {
      why = error.what();
    }
  }
  if (!best) {
    throw EnvironmentError(why);
  }
  return *best;
}

}  // namespace moevar::expert_ffn
