#include "study/model_presets.hpp"

#include <array>

namespace moevar::study {

std::span<const ModelShape> model_presets() {
  static const std::array<ModelShape, 15> presets{{
      {"deepseek-v3", 7168, 2048, 256, 8, 58},
      {"kimi-k2", 7168, 2048, 384, 8, 60},
      {"qwen3-235b", 4096, 1536, 128, 8, 94},
      {"qwen3-30b", 2048, 768, 128, 8, 48},
      {"mixtral-8x7b", 4096, 14336, 8, 2, 32},
      {"mixtral-8x22b", 6144, 16384, 8, 2, 56},
      {"olmoe-1b-7b", 2048, 1024, 64, 8, 16},
      {"gpt-oss-20b", 2880, 2880, 32, 4, 24},
      {"gpt-oss-120b", 2880, 2880, 128, 4, 36},
      {"llama4-maverick", 5120, 8192, 128, 1, 24},
      {"llama4-scout", 5120, 8192, 16, 1, 48},
      {"hunyuan-a13b", 4096, 3072, 64, 8, 32},
      {"glm-4.5", 5120, 1536, 160, 8, 89},
      {"glm-4.5-air", 4096, 1408, 128, 8, 45},
      {"dbrx", 6144, 10752, 16, 4, 40},
  }};
  return presets;
}

}  // namespace moevar::study
