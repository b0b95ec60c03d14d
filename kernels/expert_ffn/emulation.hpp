#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <cblas.h>

#include "base/random.hpp"
#include "expert_ffn/elementwise.hpp"
#include "expert_ffn/expert_ffn.hpp"
#include "expert_ffn/slot_layout.hpp"

/// For tests: what runs on a GPU, step by step on the host, with the same functions for an element,
/// the same descriptions of the products, and OpenBLAS for the tensor cores.
namespace moevar::expert_ffn::emulation {

inline std::vector<BFloat16> values(std::uint64_t key, std::size_t count, double scale) {
  std::vector<BFloat16> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    all[i] = BFloat16::from(static_cast<float>(scale * RandomKey(key)[i].normal()));
  }
  return all;
}

inline std::vector<float> floats(std::span<const BFloat16> from) {
  std::vector<float> all(from.size());
  std::transform(from.begin(), from.end(), all.begin(), [](BFloat16 v) { return v.value(); });
  return all;
}

/// The value of an e4m3 (OCP 8-bit floating point specification, 1.0: bias 7, no infinity).
inline float of_e4m3(std::uint8_t bits) {
  const int exponent = bits >> 3U & 15U;
  const auto fraction = static_cast<float>(bits & 7U) / 8.0F;
  const float size =
      exponent == 0 ? std::ldexp(fraction, -6) : std::ldexp(1 + fraction, exponent - 7);
  return (bits & 0x80U) != 0 ? -size : size;
}

struct Experts {
  Shape shape;
  std::vector<std::vector<BFloat16>> plain;  ///< of every expert: W1, W3, W2
  std::vector<std::size_t> rows;
  std::vector<BFloat16> x;

  Experts(const Shape& s, std::vector<std::size_t> of_experts, std::uint64_t key)
      : shape(s), rows(std::move(of_experts)) {
    const double scale = 1.0 / std::sqrt(static_cast<double>(shape.hidden));
    plain.reserve(rows.size());
    for (std::size_t e = 0; e < rows.size(); ++e) {
      plain.push_back(values(key + e + 1, 3 * shape.hidden * shape.intermediate, scale));
    }
    x = values(key, total() * shape.hidden, 1.0);
  }
  [[nodiscard]] std::size_t total() const {
    return std::accumulate(rows.begin(), rows.end(), std::size_t{0});
  }

  [[nodiscard]] std::vector<double> reference() const {
    const std::size_t matrix = shape.hidden * shape.intermediate;
    std::vector<std::vector<float>> weights;
    std::vector<Group> groups;
    weights.reserve(plain.size());
    groups.reserve(plain.size());
    for (std::size_t e = 0; e < plain.size(); ++e) {
      weights.push_back(floats(plain[e]));
      const std::span<const float> all(weights.back());
      groups.push_back(
          {{all.first(matrix), all.subspan(matrix, matrix), all.last(matrix)}, rows[e]});
    }
    std::vector<double> y(x.size());
    run_reference(shape, groups, floats(x), y);
    return y;
  }
};

/// A slot made on the host. `bytes` have slot_bytes().
struct Slots {
  std::vector<std::vector<std::byte>> all;

  Slots(const Experts& experts, Precision precision) {
    all.reserve(experts.plain.size());
    for (const auto& plain : experts.plain) {
      all.emplace_back(slot_bytes(experts.shape, precision));
      precision == Precision::bf16 ? bf16(experts.shape, plain) : fp8(experts.shape, plain);
    }
  }

 private:
  /// Element of a slot's matrices that element i of the plain ones becomes.
  static std::size_t place(const Shape& shape, std::size_t i) {
    const std::size_t row = i / shape.hidden;
    if (row >= 2 * shape.intermediate) {
      return i;
    }
    const bool up = row >= shape.intermediate;
    return slot_row({row - (up ? shape.intermediate : 0), up}) * shape.hidden + i % shape.hidden;
  }
  void bf16(const Shape& shape, std::span<const BFloat16> plain) {
    auto* const slot = reinterpret_cast<BFloat16*>(all.back().data());
    for (std::size_t i = 0; i < plain.size(); ++i) {
      slot[place(shape, i)] = plain[i];
    }
  }
  void fp8(const Shape& shape, std::span<const BFloat16> plain) {
    const std::size_t matrix = shape.hidden * shape.intermediate;
    auto* const slot = reinterpret_cast<std::uint8_t*>(all.back().data());
    auto* const factors = reinterpret_cast<float*>(slot + 3 * matrix);
    for (std::size_t m = 0; m < 3; ++m) {
      float largest = 0.0F;
      for (const BFloat16 value : plain.subspan(m * matrix, matrix)) {
        largest = std::max(largest, std::abs(value.value()));
      }
      factors[m] = largest / kMostE4m3;
      for (std::size_t i = m * matrix; i < (m + 1) * matrix; ++i) {
        slot[place(shape, i)] = e4m3_of(plain[i].value(), inverse_factor_of(largest));
      }
    }
  }
};

/// Memory of a run on the host, and the arrays that describe it.
struct HostRun {
  Experts* experts;
  Precision precision;
  std::vector<std::uint8_t> inputs;
  std::vector<float> input_factors;
  std::vector<BFloat16> products;
  std::vector<std::byte> activations;
  std::vector<float> activation_factors;
  std::vector<BFloat16> y;
  std::vector<ProductShape> first_shapes, second_shapes;
  std::vector<const void*> inputs_at, w13, w2;
  std::vector<void*> products_at, activations_at, outputs;
  std::vector<const float*> input_factors_at, activation_factors_at, weight_factors;
  std::vector<int> first_rows;
  int groups = 0;

  [[nodiscard]] bool fp8() const { return precision == Precision::fp8; }
  [[nodiscard]] std::size_t element() const { return fp8() ? 1 : 2; }

  RunArrays arrays() {
    return {first_shapes.data(),
            second_shapes.data(),
            inputs_at.data(),
            w13.data(),
            products_at.data(),
            activations_at.data(),
            w2.data(),
            outputs.data(),
            input_factors_at.data(),
            activation_factors_at.data(),
            weight_factors.data(),
            first_rows.data()};
  }

  HostRun(Experts& all, const Slots& slots, Precision with) : experts(&all), precision(with) {
    const std::size_t rows = all.total();
    const std::size_t count = all.rows.size();
    products.resize(rows * 2 * all.shape.intermediate);
    activations.resize(rows * all.shape.intermediate * element());
    y.assign(rows * all.shape.hidden, BFloat16::from(std::nanf("")));
    input_factors.resize(rows);
    activation_factors.resize(rows);
    first_shapes.resize(count);
    second_shapes.resize(count);
    first_rows.resize(count);
    for (auto* pointers : {&inputs_at, &w13, &w2}) {
      pointers->resize(count);
    }
    for (auto* pointers : {&products_at, &activations_at, &outputs}) {
      pointers->resize(count);
    }
    for (auto* pointers : {&input_factors_at, &activation_factors_at, &weight_factors}) {
      pointers->resize(count);
    }
    if (fp8()) {
      inputs.resize(rows * all.shape.hidden);
      quantise_rows();
    }
    describe(slots);
  }

  void quantise_rows() {
    const std::size_t hidden = experts->shape.hidden;
    for (std::size_t row = 0; row < input_factors.size(); ++row) {
      const auto from = std::span(experts->x).subspan(row * hidden, hidden);
      float largest = 0.0F;
      for (const BFloat16 value : from) {
        largest = std::max(largest, std::abs(value.value()));
      }
      input_factors[row] = largest / kMostE4m3;
      for (std::size_t i = 0; i < hidden; ++i) {
        inputs[row * hidden + i] = e4m3_of(from[i].value(), inverse_factor_of(largest));
      }
    }
  }

  void describe(const Slots& slots) {
    const RunBuffers buffers{fp8() ? reinterpret_cast<const std::byte*>(inputs.data())
                                   : reinterpret_cast<const std::byte*>(experts->x.data()),
                             reinterpret_cast<std::byte*>(products.data()),
                             activations.data(),
                             reinterpret_cast<std::byte*>(y.data()),
                             input_factors.data(),
                             activation_factors.data()};
    const RunSizes sizes{static_cast<int>(experts->shape.hidden),
                         static_cast<int>(experts->shape.intermediate),
                         static_cast<int>(element())};
    GroupPart part;
    int before = 0;
    const auto flush = [&] {
      for (std::size_t i = 0; i < static_cast<std::size_t>(part.count); ++i) {
        describe_group(i, part, sizes, buffers, arrays());
      }
      groups += part.count;
      part.first = groups;
      part.count = 0;
    };
    for (std::size_t e = 0; e < experts->rows.size(); ++e) {
      if (experts->rows[e] == 0) {
        continue;
      }
      const auto at = static_cast<std::size_t>(part.count++);
      part.slots[at] = slots.all[e].data();
      part.first_rows[at] = before;
      part.rows[at] = static_cast<int>(experts->rows[e]);
      before += part.rows[at];
      if (part.count == 3) {  // more than one part
        flush();
      }
    }
    flush();
  }

  [[nodiscard]] std::vector<float> operand(const void* from, std::size_t count) const {
    if (!fp8()) {
      return floats({static_cast<const BFloat16*>(from), count});
    }
    const std::span<const std::uint8_t> bits(static_cast<const std::uint8_t*>(from), count);
    std::vector<float> all(count);
    std::transform(bits.begin(), bits.end(), all.begin(), of_e4m3);
    return all;
  }

  /// A grouped product as its arrays describe it.
  void multiply(const ProductShape& shape, const void* a, const void* b, const float* factors,
                void* out) const {
    const auto m = static_cast<std::size_t>(shape.rows);
    const auto n = static_cast<std::size_t>(shape.columns);
    const auto k = static_cast<std::size_t>(shape.depth);
    const auto left = operand(a, m * k);
    const auto right = operand(b, n * k);
    std::vector<float> sums(m * n);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, shape.rows, shape.columns, shape.depth,
                1.0F, left.data(), shape.depth, right.data(), shape.depth, 0.0F, sums.data(),
                shape.columns);
    auto* const to = static_cast<BFloat16*>(out);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      to[i] = BFloat16::from(fp8() ? sums[i] * factors[i / n] : sums[i]);
    }
  }

  /// What activate_kernel and activate_and_quantise_kernel do with a row.
  void activate_row(std::size_t row) {
    const std::size_t intermediate = experts->shape.intermediate;
    const auto group =
        static_cast<std::size_t>(group_of(static_cast<int>(row), first_rows.data(), groups));
    const float* const factors = fp8() ? weight_factors[group] : nullptr;
    std::vector<float> all(intermediate);
    for (std::size_t i = 0; i < intermediate; ++i) {
      const BFloat16* const block =
          products.data() + row * 2 * intermediate + i / kBlockActivations * kBlockRows;
      all[i] = block_activation(block, i % kBlockActivations, fp8() ? factors[0] : 1.0F,
                                fp8() ? factors[1] : 1.0F);
    }
    if (!fp8()) {
      auto* const to = reinterpret_cast<BFloat16*>(activations.data()) + row * intermediate;
      std::transform(all.begin(), all.end(), to, BFloat16::from);
      return;
    }
    float largest = 0.0F;
    for (const float value : all) {
      largest = std::max(largest, std::abs(value));
    }
    auto* const to = reinterpret_cast<std::uint8_t*>(activations.data()) + row * intermediate;
    std::transform(all.begin(), all.end(), to,
                   [largest](float value) { return e4m3_of(value, inverse_factor_of(largest)); });
    activation_factors[row] = largest / kMostE4m3 * factors[2];
  }

  void run() {
    for (std::size_t g = 0; g < static_cast<std::size_t>(groups); ++g) {
      multiply(first_shapes[g], inputs_at[g], w13[g], input_factors_at[g], products_at[g]);
    }
    for (std::size_t row = 0; row < input_factors.size(); ++row) {
      activate_row(row);
    }
    for (std::size_t g = 0; g < static_cast<std::size_t>(groups); ++g) {
      multiply(second_shapes[g], activations_at[g], w2[g], activation_factors_at[g], outputs[g]);
    }
  }

  /// |y - reference| / |reference| over all rows, Euclidean; infinite where a value is missing.
  [[nodiscard]] double error() const {
    const auto expected = experts->reference();
    double difference = 0.0;
    double norm = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      difference += std::pow(static_cast<double>(y[i].value()) - expected[i], 2);
      norm += expected[i] * expected[i];
    }
    const double error = std::sqrt(difference / norm);
    return std::isnan(error) ? INFINITY : error;
  }
};

}  // namespace moevar::expert_ffn::emulation
