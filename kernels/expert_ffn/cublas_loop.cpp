#include "expert_ffn/cublas_loop.hpp"

namespace moevar::expert_ffn {

namespace {

constexpr int kMostAlgorithms = 8;

}  // namespace

std::size_t size_of_rows(std::size_t rows) noexcept {
  std::size_t size = 16;
  while (size < rows) {
    const bool power_of_two = (size & (size - 1)) == 0;
    size = power_of_two ? size / 2 * 3 : size / 3 * 4;
  }
  return size;
}

CublasLanes::CublasLanes(std::size_t lanes) : ends_(lanes - 1) {
  handles_.reserve(lanes);
  for (std::size_t i = 0; i < lanes; ++i) {
    handles_.emplace_back();
  }
  streams_.resize(lanes - 1);
}

void CublasLanes::fork(std::size_t lanes, const cuda::Stream& callers) const {
  if (lanes > 1) {
    start_.record(callers);
  }
  for (std::size_t lane = 1; lane < lanes; ++lane) {
    start_.hold(streams_[lane - 1]);
  }
}

void CublasLanes::join(std::size_t lanes, const cuda::Stream& callers) const {
  for (std::size_t lane = 1; lane < lanes; ++lane) {
    ends_[lane - 1].record(streams_[lane - 1]);
    ends_[lane - 1].hold(callers);
  }
}

CublasLoop::CublasLoop(CublasLanes& lanes, std::size_t columns, std::size_t depth,
                       Precision precision, int sm_limit)
    : lanes_(&lanes), sm_limit_(sm_limit), gemms_(lanes.size()), exact_(lanes.size()) {
  product_.columns = columns;
  product_.depth = depth;
  if (precision == Precision::fp8) {
    product_.in = cublas_lt::Type::e4m3;
    product_.scales = cublas_lt::Scales::rows;
  }
}

cublas_lt::Gemm& CublasLoop::gemm(std::size_t rows, std::size_t lane) {
  const std::size_t size = size_of_rows(rows);
  auto found = gemms_[lane].find(size);
  if (found == gemms_[lane].end()) {
    cublas_lt::Product product = product_;
    product.rows = size;
    const auto chosen = chosen_.find(size);
    cublas_lt::Gemm made(lanes_->handle(lane), product,
                         chosen == chosen_.end() ? 1 : kMostAlgorithms, sm_limit_);
    if (chosen != chosen_.end()) {
      made.choose(chosen->second);
    }
    found = gemms_[lane].emplace(size, std::move(made)).first;
  }
  return found->second;
}

void CublasLoop::multiply(const LoopGroup& group, std::size_t lane, const cuda::Stream& stream) {
  auto& proposed = gemm(group.rows, lane);
  proposed.set_rows(group.rows);
  try {
    proposed.run(group.operands, stream);
  } catch (const cuda::CudaError&) {
    throw;
  } catch (const LibraryError&) {
    // an algorithm proposed for more rows need not take these
    cublas_lt::Product product = product_;
    product.rows = group.rows;
    auto& exact = exact_[lane];
    exact.try_emplace(group.rows, lanes_->handle(lane), product, 1, sm_limit_)
        .first->second.run(group.operands, stream);
  }
}

void CublasLoop::run(std::span<const LoopGroup> groups, std::size_t lanes,
                     const cuda::Stream& stream) {
  lanes_->fork(lanes, stream);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const std::size_t lane = i % lanes;
    multiply(groups[i], lane, lanes_->stream(lane, stream));
  }
  lanes_->join(lanes, stream);
}

void CublasLoop::tune(const LoopGroup& group, const cuda::Stream& stream) {
  const std::size_t size = size_of_rows(group.rows);
  cublas_lt::Product product = product_;
  product.rows = group.rows;
  cublas_lt::Gemm all(lanes_->handle(0), product, kMostAlgorithms, sm_limit_);
  all.tune(group.operands, stream);
  chosen_[size] = all.chosen();
  for (auto& of_lane : gemms_) {
    of_lane.erase(size);
  }
  if (group.rows == size) {
    gemms_[0].emplace(size, std::move(all));
  }
}

}  // namespace moevar::expert_ffn
