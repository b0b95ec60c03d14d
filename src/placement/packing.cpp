#include "placement/packing.hpp"

#include <algorithm>
#include <utility>

namespace moevar::placement {

bool before(const Piece& a, const Piece& b) noexcept {
  if (a.load != b.load) {
    return a.load > b.load;
  }
  // as unsigned the blank comes last
  return static_cast<std::uint32_t>(a.expert) < static_cast<std::uint32_t>(b.expert);
}

Packing::Packing(const SpeedModels& speeds, int slots_per_device)
    : speeds_(&speeds),
      width_(static_cast<std::size_t>(slots_per_device)),
      pieces_(speeds.size() * width_),
      tokens_(speeds.size(), 0.0),
      time_us_(speeds.size(), 0.0) {}

bool Packing::holds(std::size_t device, std::int32_t expert) const noexcept {
  return std::ranges::any_of(on(device), [&](const Piece& p) { return p.expert == expert; });
}

std::size_t Packing::blanks(std::size_t device) const noexcept {
  std::size_t count = 0;
  while (count < width_ && on(device)[width_ - 1 - count].expert == Piece::kBlank) {
    ++count;
  }
  return count;
}

std::size_t Packing::slowest() const noexcept {
  return static_cast<std::size_t>(std::ranges::max_element(time_us_) - time_us_.begin());
}

void Packing::settle(std::size_t device) {
  const auto pieces = row(device);
  // one or two pieces are out of order: insertion is linear
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    for (std::size_t j = i; j > 0 && before(pieces[j], pieces[j - 1]); --j) {
      std::swap(pieces[j], pieces[j - 1]);
    }
  }
  double sum = 0.0;
  for (const auto& piece : pieces) {
    sum += piece.load;
  }
  tokens_[device] = sum;
  time_us_[device] = (*speeds_)[device].time_us(sum);
}

void Packing::fill(std::span<const Piece> falling, std::span<const double> targets,
                   std::span<const std::size_t> room) {
  struct Open {
    double shortfall;
    std::size_t device;
    std::size_t taken;
  };
  const auto needs_less = [](const Open& a, const Open& b) {
    return a.shortfall != b.shortfall ? a.shortfall < b.shortfall : a.device > b.device;
  };
  std::vector<Open> heap;
  heap.reserve(targets.size());
  for (std::size_t d = 0; d < targets.size(); ++d) {
    if (room[d] > 0) {
      heap.push_back({targets[d], d, 0});
    }
  }
  std::ranges::make_heap(heap, needs_less);
  for (std::size_t k = 1; k < falling.size(); ++k) {
    // an expert's pieces are alike, so they stand together
    has_replicas_ = has_replicas_ || (falling[k].expert == falling[k - 1].expert);
  }
  std::vector<Open> aside;
  for (const auto& piece : falling) {
    aside.clear();
    std::ranges::pop_heap(heap, needs_less);
    while (heap.size() > 1 && heap.back().taken > 0 && piece.expert != Piece::kBlank &&
           holds(heap.back().device, piece.expert)) {
      aside.push_back(heap.back());
      heap.pop_back();
      std::ranges::pop_heap(heap, needs_less);
    }
    auto& neediest = heap.back();
    row(neediest.device)[neediest.taken++] = piece;
    neediest.shortfall -= piece.load;
    if (neediest.taken < room[neediest.device]) {
      std::ranges::push_heap(heap, needs_less);
    } else {
      heap.pop_back();
    }
    for (const auto& open : aside) {
      heap.push_back(open);
      std::ranges::push_heap(heap, needs_less);
    }
  }
  for (std::size_t d = 0; d < devices(); ++d) {
    settle(d);
  }
}

void Packing::exchange(std::size_t a, std::span<const std::size_t> give, std::size_t b,
                       std::span<const std::size_t> take) {
  for (std::size_t k = 0; k < give.size(); ++k) {
    std::swap(row(a)[give[k]], row(b)[take[k]]);
  }
  settle(a);
  settle(b);
}

Packing::Saved Packing::save(std::size_t a, std::size_t b) const {
  Saved saved{{a, b}, {}};
  saved.pieces.reserve(2 * width_);
  saved.pieces.insert(saved.pieces.end(), on(a).begin(), on(a).end());
  saved.pieces.insert(saved.pieces.end(), on(b).begin(), on(b).end());
  return saved;
}

void Packing::restore(const Saved& saved) {
  auto next = saved.pieces.begin();
  for (const auto device : saved.devices) {
    std::copy_n(next, width_, row(device).begin());
    next += static_cast<std::ptrdiff_t>(width_);
    settle(device);
  }
}

void Packing::give(std::size_t a, std::int32_t expert, std::size_t b, double tokens) {
  const auto piece = std::ranges::find(row(a), expert, &Piece::expert);
  const double given = std::min(tokens, piece->load);
  piece->load -= given;
  *std::ranges::find(row(b), Piece::kBlank, &Piece::expert) = {given, expert};
  has_replicas_ = true;
  settle(a);
  settle(b);
}

void Packing::put(std::size_t device, Piece piece) {
  *std::ranges::find(row(device), Piece::kBlank, &Piece::expert) = piece;
  settle(device);
}

void Packing::clear(std::size_t device, std::size_t i) {
  row(device)[i] = {};
  settle(device);
}

}  // namespace moevar::placement
