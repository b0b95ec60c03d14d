#include "system/cublas_lt.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cublasLt.h>
#include <dlfcn.h>
#include <limits>
#include <optional>
#include <vector>

#include <fmt/format.h>

namespace moevar::cublas_lt {

namespace {

/// The functions in use.
struct Functions {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtGetStatusName) status_name = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristics = nullptr;
  decltype(&cublasLtMatmulDescCreate) create_product = nullptr;
  decltype(&cublasLtMatmulDescDestroy) destroy_product = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_product = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) set_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
};

struct Library {
  Functions call;
  std::string problem;  ///< empty: ready

  Library() {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing in this program changes its environment
    const char* other = std::getenv("MOEVAR_CUBLASLT");
    if (other != nullptr && *other != '\0') {
      open({other});
    } else {
      open({"libcublasLt.so.13", "libcublasLt.so.12"});
    }
  }

 private:
  void open(std::initializer_list<const char*> names) {
    void* library = nullptr;
    for (const char* name : names) {
      library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (library != nullptr) {
        load(library, name);
        return;
      }
      // NOLINTNEXTLINE(concurrency-mt-unsafe): dlerror is of this thread
      const char* const why = dlerror();
      problem = problem.empty() ? fmt::format(
                                      "cuBLASLt cannot be loaded (MOEVAR_CUBLASLT may "
                                      "name its file): {}",
                                      why)
                                : problem;
    }
  }

  template <class F>
  void take(void* library, const char* file, F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (function == nullptr && problem.empty()) {
      problem = fmt::format("{} is no cuBLASLt that moevar knows: it has no {}", file, name);
    }
  }

  void load(void* library, const char* file) {
    problem.clear();
    take(library, file, call.create, "cublasLtCreate");
    take(library, file, call.destroy, "cublasLtDestroy");
    take(library, file, call.version, "cublasLtGetVersion");
    take(library, file, call.status_name, "cublasLtGetStatusName");
    take(library, file, call.matmul, "cublasLtMatmul");
    take(library, file, call.heuristics, "cublasLtMatmulAlgoGetHeuristic");
    take(library, file, call.create_product, "cublasLtMatmulDescCreate");
    take(library, file, call.destroy_product, "cublasLtMatmulDescDestroy");
    take(library, file, call.set_product, "cublasLtMatmulDescSetAttribute");
    take(library, file, call.create_layout, "cublasLtMatrixLayoutCreate");
    take(library, file, call.destroy_layout, "cublasLtMatrixLayoutDestroy");
    take(library, file, call.set_layout, "cublasLtMatrixLayoutSetAttribute");
    take(library, file, call.create_preference, "cublasLtMatmulPreferenceCreate");
    take(library, file, call.destroy_preference, "cublasLtMatmulPreferenceDestroy");
    take(library, file, call.set_preference, "cublasLtMatmulPreferenceSetAttribute");
  }
};

const Library& library() {
  static const Library only;
  return only;
}

const Functions& calls() {
  if (!library().problem.empty()) {
    throw EnvironmentError(library().problem);
  }
  return library().call;
}

void check(cublasStatus_t status, std::string_view call,
           SourceLocation where = SourceLocation::current()) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw LibraryError(call, library().call.status_name(status), where);
  }
}

cudaDataType_t type_of(Type type) {
  switch (type) {
    case Type::bf16:
      return CUDA_R_16BF;
    case Type::e4m3:
      return CUDA_R_8F_E4M3;
    default:
      return CUDA_R_32F;
  }
}

// Since cuBLAS 12.9; headers from before do not name them.
constexpr auto kAScaleMode = static_cast<cublasLtMatmulDescAttributes_t>(31);
constexpr auto kBScaleMode = static_cast<cublasLtMatmulDescAttributes_t>(32);
constexpr std::int32_t kScalesOfRows = 3;

struct DestroyProduct {
  void operator()(cublasLtMatmulDesc_t product) const {
    (void)library().call.destroy_product(product);
  }
};
struct DestroyLayout {
  void operator()(cublasLtMatrixLayout_t layout) const {
    (void)library().call.destroy_layout(layout);
  }
};
struct DestroyPreference {
  void operator()(cublasLtMatmulPreference_t preference) const {
    (void)library().call.destroy_preference(preference);
  }
};
using ProductPointer = std::unique_ptr<cublasLtMatmulDescOpaque_t, DestroyProduct>;
using LayoutPointer = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, DestroyLayout>;
using PreferencePointer = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, DestroyPreference>;

/// The library counts by columns: what is [rows, columns] by rows is [columns, rows] to it.
LayoutPointer layout_of(Type type, std::size_t rows, std::size_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(calls().create_layout(&layout, type_of(type), columns, rows,
                              static_cast<std::int64_t>(columns)),
        "cublasLtMatrixLayoutCreate");
  return LayoutPointer(layout);
}

template <class T>
void set(const ProductPointer& product, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(calls().set_product(product.get(), attribute, &value, sizeof(value)),
        fmt::format("cublasLtMatmulDescSetAttribute({})", static_cast<int>(attribute)));
}

}  // namespace

bool available() noexcept {
  try {
    return library().problem.empty();
  } catch (...) {
    return false;
  }
}

std::string why_unavailable() { return library().problem; }

std::size_t version() { return calls().version(); }

struct Handle::State {
  cublasLtHandle_t handle = nullptr;
  cuda::DeviceArray<std::byte> workspace;

  explicit State(std::size_t workspace_bytes) {
    check(calls().create(&handle), "cublasLtCreate");
    try {
      workspace = cuda::DeviceArray<std::byte>(workspace_bytes);
    } catch (...) {
      (void)calls().destroy(handle);
      throw;
    }
  }
  ~State() { (void)library().call.destroy(handle); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  State(State&&) = delete;
  State& operator=(State&&) = delete;
};

Handle::Handle(std::size_t workspace_bytes) : state_(std::make_unique<State>(workspace_bytes)) {}
Handle::~Handle() = default;
Handle::Handle(Handle&&) noexcept = default;
Handle& Handle::operator=(Handle&&) noexcept = default;

struct Gemm::State {
  Handle::State* handle = nullptr;
  Product product;
  ProductPointer operation;
  LayoutPointer a;
  LayoutPointer b;
  LayoutPointer out;
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  std::size_t chosen = 0;

  State(Handle::State& owner, const Product& wanted, int sm_limit)
      : handle(&owner),
        product(wanted),
        a(layout_of(wanted.in, wanted.rows, wanted.depth)),
        b(wanted.b_by_depth ? layout_of(wanted.in, wanted.depth, wanted.columns)
                            : layout_of(wanted.in, wanted.columns, wanted.depth)),
        out(layout_of(wanted.out, wanted.rows, wanted.columns)) {
    cublasLtMatmulDesc_t made = nullptr;
    check(calls().create_product(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "cublasLtMatmulDescCreate");
    operation.reset(made);
    // counted by columns, out^T [columns, rows] = op(b) a^T: b is the library's first matrix
    const cublasOperation_t first = wanted.b_by_depth ? CUBLAS_OP_N : CUBLAS_OP_T;
    set(operation, CUBLASLT_MATMUL_DESC_TRANSA, static_cast<std::int32_t>(first));
    if (sm_limit > 0) {
      set(operation, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, static_cast<std::int32_t>(sm_limit));
    }
    if (wanted.in == Type::e4m3) {
      // sums in the tensor cores' own registers, as every library does for inference
      set(operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, std::int8_t{1});
    }
    if (wanted.scales == Scales::rows) {
      set(operation, kAScaleMode, kScalesOfRows);
      set(operation, kBScaleMode, kScalesOfRows);
    }
  }

  void propose(int most_algorithms) {
    cublasLtMatmulPreference_t made = nullptr;
    check(calls().create_preference(&made), "cublasLtMatmulPreferenceCreate");
    const PreferencePointer preference(made);
    const auto workspace = static_cast<std::uint64_t>(handle->workspace.bytes());
    check(calls().set_preference(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                 sizeof(workspace)),
          "cublasLtMatmulPreferenceSetAttribute");
    constexpr std::uint32_t kAlignment = 16;
    for (const auto which :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      check(calls().set_preference(made, which, &kAlignment, sizeof(kAlignment)),
            "cublasLtMatmulPreferenceSetAttribute");
    }
    std::vector<cublasLtMatmulHeuristicResult_t> results(
        static_cast<std::size_t>(std::max(most_algorithms, 1)));
    int count = 0;
    const auto status =
        calls().heuristics(handle->handle, operation.get(), b.get(), a.get(), out.get(), out.get(),
                           made, static_cast<int>(results.size()), results.data(), &count);
    const auto call = fmt::format("cublasLtMatmulAlgoGetHeuristic for {} x {} x {}", product.rows,
                                  product.columns, product.depth);
    check(status, call);
    for (int i = 0; i < count; ++i) {
      const auto& result = results[static_cast<std::size_t>(i)];
      if (result.state == CUBLAS_STATUS_SUCCESS) {
        algorithms.push_back(result.algo);
      }
    }
    if (algorithms.empty()) {
      throw LibraryError(call, "no algorithm");
    }
  }
};

Gemm::Gemm(Handle& handle, const Product& product, int most_algorithms, int sm_limit)
    : state_(std::make_unique<State>(*handle.state_, product, sm_limit)) {
  state_->propose(most_algorithms);
}
Gemm::~Gemm() = default;
Gemm::Gemm(Gemm&&) noexcept = default;
Gemm& Gemm::operator=(Gemm&&) noexcept = default;

const Product& Gemm::product() const noexcept { return state_->product; }
std::size_t Gemm::algorithms() const noexcept { return state_->algorithms.size(); }
void Gemm::choose(std::size_t algorithm) {
  if (algorithm >= algorithms()) {
    throw InputError(fmt::format("cuBLASLt's algorithm {} of {}", algorithm, algorithms()));
  }
  state_->chosen = algorithm;
}
std::size_t Gemm::chosen() const noexcept { return state_->chosen; }

void Gemm::set_rows(std::size_t rows) {
  // the library's columns are our rows
  const auto columns = static_cast<std::uint64_t>(rows);
  for (const auto* layout : {&state_->a, &state_->out}) {
    check(calls().set_layout(layout->get(), CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof(columns)),
          "cublasLtMatrixLayoutSetAttribute");
  }
  state_->product.rows = rows;
}

void Gemm::run(const Operands& operands, const cuda::Stream& stream) {
  State& s = *state_;
  if (s.product.scales == Scales::rows) {
    set(s.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, operands.b_scales);
    set(s.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, operands.a_scales);
  }
  constexpr float kOne = 1.0F;
  constexpr float kZero = 0.0F;
  check(calls().matmul(s.handle->handle, s.operation.get(), &kOne, operands.b, s.b.get(),
                       operands.a, s.a.get(), &kZero, operands.out, s.out.get(), operands.out,
                       s.out.get(), &s.algorithms[s.chosen], s.handle->workspace.data(),
                       s.handle->workspace.bytes(), stream.raw()),
        "cublasLtMatmul");
}

float Gemm::tune(const Operands& operands, const cuda::Stream& stream, int repeats) {
  const cuda::Event start;
  const cuda::Event end;
  std::optional<std::size_t> best;
  float best_us = std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < algorithms(); ++i) {
    choose(i);
    try {
      run(operands, stream);
    } catch (const LibraryError&) {
      continue;
    }
    start.record(stream);
    for (int r = 0; r < repeats; ++r) {
      run(operands, stream);
    }
    end.record(stream);
    end.synchronise();
    const float us = end.us_since(start) / static_cast<float>(repeats);
    if (us < best_us) {
      best_us = us;
      best = i;
    }
  }
  if (!best) {
    throw LibraryError("cublasLtMatmul", "no proposed algorithm runs");
  }
  choose(*best);
  return best_us;
}

}  // namespace moevar::cublas_lt
