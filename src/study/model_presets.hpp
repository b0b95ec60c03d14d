#pragma once

#include <span>

#include "study/study.hpp"

namespace moevar::study {

/// MoE shapes of published models: hidden size, one expert's FFN size, routed experts, top-k, MoE
/// layers. Sources: the models' own configuration files and reports (llama4-scout:
/// Llama-4-Scout-17B-16E, every layer MoE; hunyuan-a13b: Hunyuan-A13B-Instruct, 64 routed experts
/// beside a shared one); gpt-oss-20b's top-k and gpt-oss-120b's layers are taken from summaries.
/// 2880 and 1408 are no multiples of 256: awkward on purpose.
std::span<const ModelShape> model_presets();

}  // namespace moevar::study
