#include "expert_ffn/expert_ffn_cuda.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "expert_ffn/cublas_loop.hpp"
#include "expert_ffn/elementwise.hpp"
#include "expert_ffn/grouped_gemm.hpp"
#include "expert_ffn/ways.hpp"

namespace moevar::expert_ffn {

namespace {

constexpr std::size_t kMultiple = 16;  ///< of both sizes: a slot's blocks, and 16 bytes of e4m3
constexpr std::size_t kMostLanes = 4;
constexpr int kHopper = 90;

void check_shape(const Shape& shape) {
  if (shape.hidden == 0 || shape.intermediate == 0 || shape.hidden % kMultiple != 0 ||
      shape.intermediate % kMultiple != 0) {
    throw InputError(fmt::format(
        "experts of {} x {}: on a GPU hidden and intermediate have to be multiples of {}",
        shape.hidden, shape.intermediate, kMultiple));
  }
}

/// Typed parts of one piece of the GPU's memory.
class Arena {
 public:
  explicit Arena(std::size_t bytes) : memory_(bytes) {}
  static constexpr std::size_t padded(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
  template <class T>
  void take(T*& part, std::size_t size) {
    part = reinterpret_cast<T*>(memory_.data() + used_);
    used_ += padded(size * sizeof(T));
  }
  [[nodiscard]] std::size_t bytes() const { return memory_.bytes(); }

 private:
  cuda::DeviceArray<std::byte> memory_;
  std::size_t used_ = 0;
};

/// Scratch memory: what a run leaves for its own next step.
struct Scratch {
  RunArrays arrays;
  std::int64_t* hidden_strides = nullptr;
  std::int64_t* intermediate_strides = nullptr;
  std::int64_t* product_strides = nullptr;
  BFloat16* products = nullptr;         ///< [rows, 2 intermediate]
  std::byte* activations = nullptr;     ///< [rows, intermediate] of the precision
  std::byte* inputs = nullptr;          ///< fp8: [rows, hidden]
  float* input_factors = nullptr;       ///< fp8: [rows]
  float* activation_factors = nullptr;  ///< fp8: [rows]
  float* ones = nullptr;                ///< fp8: cuBLASLt's factors of weights, which are elsewhere
  std::byte* workspace = nullptr;       ///< CUTLASS's

  /// Calls take(pointer, size) for each.
  template <class Take>
  void each(const Shape& shape, Precision precision, const DeviceOptions& options,
            std::size_t workspace_bytes, Take&& take) {
    const std::size_t groups = std::max<std::size_t>(options.most_groups, 1);
    const std::size_t rows = options.most_rows;
    take(arrays.first_shapes, groups);
    take(arrays.second_shapes, groups);
    take(arrays.inputs, groups);
    take(arrays.w13, groups);
    take(arrays.products, groups);
    take(arrays.activations, groups);
    take(arrays.w2, groups);
    take(arrays.outputs, groups);
    take(arrays.input_factors, groups);
    take(arrays.activation_factors, groups);
    take(arrays.weight_factors, groups);
    take(arrays.first_rows, groups);
    take(hidden_strides, groups);
    take(intermediate_strides, groups);
    take(product_strides, groups);
    take(products, rows * 2 * shape.intermediate);
    const bool fp8 = precision == Precision::fp8;
    take(activations, rows * shape.intermediate * (fp8 ? 1 : 2));
    take(inputs, fp8 ? rows * shape.hidden : 0);
    take(input_factors, fp8 ? rows : 0);
    take(activation_factors, fp8 ? rows : 0);
    take(ones, fp8 ? std::max(shape.hidden, 2 * shape.intermediate) : 0);
    take(workspace, workspace_bytes);
  }
};

}  // namespace

struct DeviceExperts::State {
  Shape shape;
  Precision precision;
  DeviceOptions options;
  int sms = 0;
  KnownWays ways;
  std::optional<CublasLanes> lanes;
  std::optional<CublasLoop> first_loop;
  std::optional<CublasLoop> second_loop;
  std::optional<Arena> arena;
  Scratch scratch;

  // of the run that is being queued
  std::vector<DeviceGroup> active;
  std::size_t rows = 0;
  std::vector<LoopGroup> loop;

  State(const Shape& shape_, Precision precision_, const DeviceOptions& options_)
      : shape(shape_), precision(precision_), options(options_) {
    check_shape(shape);
    if (options.most_rows > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
      throw InputError(fmt::format("{} rows on one GPU; 2^31 - 1 at most", options.most_rows));
    }
    sms = options.sm_limit > 0 ? options.sm_limit : cuda::sm_count();
    std::size_t workspace_bytes = 0;
    if (with_cutlass()) {
      workspace_bytes = add_cutlass();
    }
    if (with_cublas()) {
      add_cublas();
    }
    if (ways.first.empty()) {
      throw EnvironmentError(cublas_lt::why_unavailable());
    }
    allocate(workspace_bytes);
    active.reserve(options.most_groups);
    loop.reserve(options.most_groups);
  }

  [[nodiscard]] bool fp8() const { return precision == Precision::fp8; }

  [[nodiscard]] bool with_cutlass() const {
    const bool possible = built_with_cutlass() && cuda::compute_capability() == kHopper;
    if (options.method == Method::cutlass && !possible) {
      throw EnvironmentError(
          built_with_cutlass()
              ? fmt::format("CUTLASS's grouped GEMM was compiled for compute capability 9.0, and "
                            "this GPU has {}.{}: choose cublaslt or automatic",
                            cuda::compute_capability() / 10, cuda::compute_capability() % 10)
              : "moevar was built without CUTLASS (CMake: CUTLASS_ROOT): choose cublaslt or "
                "automatic");
    }
    return possible && options.method != Method::cublaslt;
  }

  [[nodiscard]] bool with_cublas() const {
    return options.method == Method::cublaslt ||
           (options.method == Method::automatic && cublas_lt::available());
  }

  /// Returns the largest workspace that a kernel wants.
  std::size_t add_cutlass() {
    std::size_t workspace_bytes = 0;
    for (const GroupedGemm& gemm : grouped_gemms()) {
      if ((gemm.result == Result::scaled) != fp8()) {
        continue;
      }
      workspace_bytes = std::max(workspace_bytes, gemm.workspace_bytes(sms));
      for (const bool along_columns : {true, false}) {
        ways.first.push_back({&gemm, along_columns, 0});
        if (gemm.result != Result::swiglu) {
          ways.second.push_back({&gemm, along_columns, 0});
        }
      }
    }
    return workspace_bytes;
  }

  void add_cublas() {
    // a stream made here would leave the part of the GPU that a limit speaks of
    const std::size_t most = options.sm_limit > 0 ? 1 : kMostLanes;
    lanes.emplace(most);
    first_loop.emplace(*lanes, 2 * shape.intermediate, shape.hidden, precision, options.sm_limit);
    second_loop.emplace(*lanes, shape.hidden, shape.intermediate, precision, options.sm_limit);
    for (std::size_t count = 1; count <= most; count *= kMostLanes) {
      ways.first.push_back({nullptr, false, count});
      ways.second.push_back({nullptr, false, count});
    }
  }

  void allocate(std::size_t workspace_bytes) {
    std::size_t bytes = 0;
    scratch.each(shape, precision, options, workspace_bytes,
                 [&bytes]<class T>(T*& /*part*/, std::size_t size) {
                   bytes += Arena::padded(size * sizeof(T));
                 });
    arena.emplace(bytes);
    scratch.each(shape, precision, options, workspace_bytes,
                 [this](auto*& part, std::size_t size) { arena->take(part, size); });
    const cuda::Stream stream;
    const std::size_t groups = std::max<std::size_t>(options.most_groups, 1);
    fill(scratch.hidden_strides, static_cast<std::int64_t>(shape.hidden), groups, stream);
    fill(scratch.intermediate_strides, static_cast<std::int64_t>(shape.intermediate), groups,
         stream);
    fill(scratch.product_strides, static_cast<std::int64_t>(2 * shape.intermediate), groups,
         stream);
    if (fp8()) {
      fill(scratch.ones, 1.0F, std::max(shape.hidden, 2 * shape.intermediate), stream);
    }
    stream.synchronise();
  }

  /// Takes a run's groups that have rows; throws where they are too many.
  void take(std::span<const DeviceGroup> groups) {
    active.clear();
    rows = 0;
    for (const DeviceGroup& group : groups) {
      rows += group.rows;
      if (group.rows > 0 && active.size() < options.most_groups) {
        active.push_back(group);
      } else if (group.rows > 0) {
        throw InputError(
            fmt::format("more than the {} groups that were announced", options.most_groups));
      }
    }
    if (rows > options.most_rows) {
      throw InputError(
          fmt::format("{} rows, where at most {} were announced", rows, options.most_rows));
    }
  }

  /// Where the run's rows lie, for `x` and `y` of the caller.
  [[nodiscard]] RunBuffers buffers(const BFloat16* x, BFloat16* y) const {
    return {fp8() ? scratch.inputs : reinterpret_cast<const std::byte*>(x),
            reinterpret_cast<std::byte*>(scratch.products),
            scratch.activations,
            reinterpret_cast<std::byte*>(y),
            scratch.input_factors,
            scratch.activation_factors};
  }

  void describe(const BFloat16* x, BFloat16* y, const cuda::Stream& stream) const {
    const RunSizes sizes{static_cast<int>(shape.hidden), static_cast<int>(shape.intermediate),
                         fp8() ? 1 : 2};
    std::size_t before = 0;
    for (std::size_t first = 0; first < active.size(); first += GroupPart::kMost) {
      GroupPart part;
      part.first = static_cast<int>(first);
      part.count = static_cast<int>(std::min<std::size_t>(active.size() - first, GroupPart::kMost));
      for (std::size_t i = 0; i < static_cast<std::size_t>(part.count); ++i) {
        part.slots[i] = active[first + i].slot;
        part.rows[i] = static_cast<int>(active[first + i].rows);
        part.first_rows[i] = static_cast<int>(before);
        before += active[first + i].rows;
      }
      describe_run(part, sizes, buffers(x, y), scratch.arrays, stream);
    }
  }

  /// The same for cuBLASLt, on the host.
  void fill_loop(bool second, const BFloat16* x, BFloat16* y) {
    const RunBuffers at = buffers(x, y);
    const std::size_t element = fp8() ? 1 : 2;
    const std::size_t matrix = shape.hidden * shape.intermediate * element;
    loop.clear();
    std::size_t before = 0;
    for (const DeviceGroup& group : active) {
      const auto* const slot = static_cast<const std::byte*>(group.slot);
      cublas_lt::Operands operands;
      if (second) {
        operands = {at.activations + before * shape.intermediate * element, slot + 2 * matrix,
                    at.outputs + before * shape.hidden * sizeof(BFloat16),
                    scratch.activation_factors + before, scratch.ones};
      } else {
        operands = {at.inputs + before * shape.hidden * element, slot,
                    scratch.products + before * 2 * shape.intermediate,
                    scratch.input_factors + before, scratch.ones};
      }
      loop.push_back({group.rows, operands});
      before += group.rows;
    }
  }

  /// What the products of CUTLASS read; `way` makes the activations itself where it is fused.
  [[nodiscard]] GroupedProduct grouped(bool second, const Way& way) const {
    const RunArrays& all = scratch.arrays;
    const auto groups = static_cast<int>(active.size());
    if (second) {
      return {groups,
              all.second_shapes,
              all.activations,
              all.w2,
              all.outputs,
              all.activation_factors,
              scratch.intermediate_strides,
              scratch.intermediate_strides,
              scratch.hidden_strides};
    }
    return {groups,
            all.first_shapes,
            all.inputs,
            all.w13,
            way.fused() ? all.activations : all.products,
            all.input_factors,
            scratch.hidden_strides,
            scratch.hidden_strides,
            way.fused() ? scratch.intermediate_strides : scratch.product_strides};
  }

  void multiply(bool second, const Way& way, const BFloat16* x, BFloat16* y,
                const cuda::Stream& stream) {
    if (way.gemm != nullptr) {
      way.gemm->run(grouped(second, way), scratch.workspace, sms, way.along_columns, stream);
    } else {
      fill_loop(second, x, y);
      (second ? second_loop : first_loop)->run(loop, way.lanes, stream);
    }
  }

  /// The run's parts, one after the other.
  void prepare(bool with_cutlass, const BFloat16* x, BFloat16* y,
               const cuda::Stream& stream) const {
    if (with_cutlass || fp8()) {
      describe(x, y, stream);
    }
    if (fp8()) {
      quantise(x, reinterpret_cast<std::uint8_t*>(scratch.inputs), scratch.input_factors, rows,
               shape.hidden, stream);
    }
  }
  void first(const Way& way, const BFloat16* x, BFloat16* y, const cuda::Stream& stream) {
    multiply(false, way, x, y, stream);
    if (fp8()) {
      activate_and_quantise(scratch.products, scratch.arrays, static_cast<int>(active.size()),
                            reinterpret_cast<std::uint8_t*>(scratch.activations),
                            scratch.activation_factors, rows, shape.intermediate, stream);
    } else if (!way.fused()) {
      activate(scratch.products, reinterpret_cast<BFloat16*>(scratch.activations), rows,
               shape.intermediate, stream);
    }
  }
  void second(const Way& way, const BFloat16* x, BFloat16* y, const cuda::Stream& stream) {
    multiply(true, way, x, y, stream);
  }

  /// Picks among cuBLASLt's own algorithms.
  void tune_loop(bool second, const BFloat16* x, BFloat16* y, const cuda::Stream& stream) {
    auto& products = second ? second_loop : first_loop;
    if (!products) {
      return;
    }
    fill_loop(second, x, y);
    try {
      products->tune(loop.front(), stream);
    } catch (const cuda::CudaError&) {
      throw;
    } catch (const LibraryError&) {
      // a cuBLASLt without such products: fastest() passes it over, and says so if nothing is left
    }
  }

  Choice tune(const BFloat16* x, BFloat16* y, const cuda::Stream& stream) {
    prepare(true, x, y, stream);
    Choice choice;
    tune_loop(false, x, y, stream);
    choice.first = fastest(ways.first, stream, [&](const Way& way) { first(way, x, y, stream); });
    tune_loop(true, x, y, stream);
    choice.second =
        fastest(ways.second, stream, [&](const Way& way) { second(way, x, y, stream); });
    return choice;
  }
};

bool built_with_cutlass() noexcept { return !grouped_gemms().empty(); }

void to_slot(const Shape& shape, Precision precision, const BFloat16* plain, void* slot,
             const cuda::Stream& stream) {
  check_shape(shape);
  const std::size_t matrices =
      3 * shape.hidden * shape.intermediate * (precision == Precision::bf16 ? 2 : 1);
  const std::size_t rest = slot_bytes(shape, precision) - matrices;
  if (rest > 0) {
    MOEVAR_CUDA(cudaMemsetAsync(static_cast<std::byte*>(slot) + matrices, 0, rest, stream.raw()));
  }
  if (precision == Precision::bf16) {
    bf16_to_slot(shape, plain, slot, stream);
  } else {
    fp8_to_slot(shape, plain, slot, stream);
  }
}

DeviceExperts::DeviceExperts(const Shape& shape, Precision precision, const DeviceOptions& options)
    : state_(std::make_unique<State>(shape, precision, options)) {}
DeviceExperts::~DeviceExperts() = default;
DeviceExperts::DeviceExperts(DeviceExperts&&) noexcept = default;
DeviceExperts& DeviceExperts::operator=(DeviceExperts&&) noexcept = default;

void DeviceExperts::run(std::span<const DeviceGroup> groups, const BFloat16* x, BFloat16* y,
                        const cuda::Stream& stream) {
  State& s = *state_;
  s.take(groups);
  if (s.active.empty()) {
    return;
  }
  const Choice choice = s.ways.choice_for(s.rows / s.active.size());
  const Way& first = s.ways.first[choice.first];
  const Way& second = s.ways.second[choice.second];
  s.prepare(first.gemm != nullptr || second.gemm != nullptr, x, y, stream);
  s.first(first, x, y, stream);
  s.second(second, x, y, stream);
}

void DeviceExperts::tune(std::span<const void* const> slots, std::span<const std::size_t> rows,
                         const cuda::Stream& stream) {
  State& s = *state_;
  const auto fits = [&](std::size_t count) {
    return count > 0 && !slots.empty() && count * slots.size() <= s.options.most_rows;
  };
  std::size_t most = 0;
  for (const std::size_t count : rows) {
    most = fits(count) ? std::max(most, count) : most;
  }
  if (most == 0) {
    return;
  }
  const std::size_t values = most * slots.size() * s.shape.hidden;
  const cuda::DeviceArray<BFloat16> x(values);
  const cuda::DeviceArray<BFloat16> y(values);
  fill_noise(x.data(), values, stream);
  for (const std::size_t count : rows) {
    if (!fits(count)) {
      continue;
    }
    std::vector<DeviceGroup> groups(slots.size());
    std::transform(slots.begin(), slots.end(), groups.begin(), [count](const void* slot) {
      return DeviceGroup{slot, count};
    });
    s.take(groups);
    s.ways.tuned[count] = s.tune(x.data(), y.data(), stream);
  }
}

DeviceExperts::Ways DeviceExperts::ways() const {
  const auto names = [](const std::vector<Way>& ways) {
    std::vector<std::string> all(ways.size());
    std::transform(ways.begin(), ways.end(), all.begin(),
                   [](const Way& way) { return way.name(); });
    return all;
  };
  return {names(state_->ways.first), names(state_->ways.second)};
}

void DeviceExperts::force(std::size_t first, std::size_t second) {
  if (first >= state_->ways.first.size() || second >= state_->ways.second.size()) {
    throw InputError(fmt::format("ways {} and {} of {} and {}", first, second,
                                 state_->ways.first.size(), state_->ways.second.size()));
  }
  state_->ways.forced = Choice{first, second};
}

std::string DeviceExperts::chosen(std::size_t rows) const {
  const Choice choice = state_->ways.choice_for(rows);
  return fmt::format("{}, then {}", state_->ways.first[choice.first].name(),
                     state_->ways.second[choice.second].name());
}

std::size_t DeviceExperts::scratch_bytes() const noexcept { return state_->arena->bytes(); }

}  // namespace moevar::expert_ffn
