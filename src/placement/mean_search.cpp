#include "placement/mean_search.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

#include "placement/descent.hpp"
#include "placement/placement.hpp"
#include "placement/replicas.hpp"

namespace moevar::placement {

namespace {

// relative to the bound
constexpr double kEnough = 2e-5;        ///< near enough to stop
constexpr double kSettled = 1e-9;       ///< at the target, but for rounding
constexpr double kWorthMore = 5e-3;     ///< still so far off, the thorough search pays
constexpr double kRoundMustWin = 1e-6;  ///< or another round is not worth it

}  // namespace

MeanSearch::MeanSearch(std::span<const double> loads, const SpeedModels& speeds,
                       int slots_per_device)
    : loads_(loads),
      bound_us_(lower_bound_us(loads, speeds, slots_per_device)),
      packing_(speeds, slots_per_device) {
  const double all = std::accumulate(loads.begin(), loads.end(), 0.0);
  targets_.reserve(speeds.size());
  for (const auto& curve : speeds) {
    targets_.push_back(std::min(curve.tokens_within(bound_us_), all));
  }
}

std::vector<Piece> MeanSearch::cut() const {
  auto caps = targets_;
  std::ranges::sort(caps, std::greater<>{});
  std::vector<Piece> pieces;
  pieces.reserve(packing_.devices() * packing_.width());
  for (std::size_t e = 0; e < loads_.size(); ++e) {
    std::size_t count = 1;
    double covered = caps.front() * (1.0 + kSettled);
    while (covered < loads_[e] && count < caps.size()) {
      covered += caps[count++];
    }
    pieces.insert(pieces.end(), count,
                  {loads_[e] / static_cast<double>(count), static_cast<std::int32_t>(e)});
  }
  std::ranges::sort(pieces, before);
  return pieces;
}

/// Slots to fill on every device. Blanks are spread evenly; those left over go to the devices with
/// the smallest targets, for the heaviest pieces go to the others, which have nothing to receive.
std::vector<std::size_t> MeanSearch::room_for(std::size_t pieces) const {
  const std::size_t devices = packing_.devices();
  const std::size_t blanks = devices * packing_.width() - pieces;
  std::vector<std::size_t> room(devices, packing_.width() - blanks / devices);
  std::vector<std::size_t> order(devices);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t d) { return targets_[d]; });
  for (const auto device : std::span(order).first(blanks % devices)) {
    --room[device];
  }
  return room;
}

void MeanSearch::descend(int effort) { Descent(packing_, bound_us_ * (1.0 + kEnough)).run(effort); }

void MeanSearch::place() {
  constexpr int kMostRounds = 4;
  const auto pieces = cut();
  packing_.fill(pieces, targets_, room_for(pieces.size()));
  if (packing_.devices() * packing_.width() == pieces.size()) {
    descend(Descent::kThorough);
    return;
  }
  descend(Descent::kSingle);
  for (int round = 0; round < kMostRounds; ++round) {
    const double before_us = packing_.slowest_us();
    spend_blanks();
    descend(Descent::kSingle);
    if (packing_.slowest_us() > before_us * (1.0 - kRoundMustWin)) {
      break;
    }
  }
  if (packing_.slowest_us() > bound_us_ * (1.0 + kWorthMore)) {
    descend(Descent::kThorough);
  }
}

void MeanSearch::place_evenly() {
  const auto copies =
      copies_for(loads_, static_cast<int>(packing_.devices()), static_cast<int>(packing_.width()));
  std::vector<Piece> pieces;
  pieces.reserve(copies.size());
  for (const auto& copy : copies) {
    pieces.push_back({copy.load, copy.expert});
  }
  packing_.fill(pieces, targets_, std::vector(packing_.devices(), packing_.width()));
  descend(Descent::kThorough);
}

double MeanSearch::surplus(std::size_t device) const {
  return packing_.tokens(device) - targets_[device];
}

/// The lightest piece of `from` whose expert the device lacks; width() where there is none.
std::size_t MeanSearch::lightest_for(std::size_t device, std::size_t from) const {
  for (std::size_t j = packing_.width(); j-- > 0;) {
    const auto expert = packing_.on(from)[j].expert;
    if (expert != Piece::kBlank && !packing_.holds(device, expert)) {
      return j;
    }
  }
  return packing_.width();
}

/// To whom device a gives of its heaviest piece: the device with the largest lack that a's surplus
/// fills or, where it fills none, with the smallest. A device without a blank counts where it can
/// hand its lightest piece to a blank of a.
bool MeanSearch::find_gift(std::size_t a, Gift& gift) const {
  const auto& piece = packing_.on(a).front();
  const double over = surplus(a);
  bool found = false;
  for (std::size_t b = 0; b < packing_.devices(); ++b) {
    const double lack = -surplus(b);
    if (b == a || lack <= 0.0) {
      continue;
    }
    if (found && (lack <= over) != (gift.tokens <= over) && lack > over) {
      continue;
    }
    if (packing_.holds(b, piece.expert)) {
      continue;
    }
    std::size_t trade = packing_.width();
    double back = 0.0;
    if (packing_.blanks(b) == 0) {
      trade = packing_.blanks(a) > 0 ? lightest_for(a, b) : packing_.width();
      if (trade == packing_.width()) {
        continue;
      }
      back = packing_.on(b)[trade].load;
    }
    if (lack + back > piece.load) {
      continue;
    }
    const bool fills = lack <= over;
    const bool known_fills = gift.tokens <= over;
    if (!found ||
        (fills != known_fills ? fills : (fills ? lack > gift.tokens : lack < gift.tokens))) {
      gift = {b, trade, lack};
      found = true;
    }
  }
  return found;
}

bool MeanSearch::relieve(std::size_t a) {
  Gift gift;
  if (!find_gift(a, gift)) {
    return false;
  }
  const auto expert = packing_.on(a).front().expert;
  double tokens = gift.tokens;
  if (gift.trade < packing_.width()) {
    const auto piece = packing_.on(gift.to)[gift.trade];
    packing_.clear(gift.to, gift.trade);
    packing_.put(a, piece);
    tokens += piece.load;
  } else if (packing_.blanks(a) == 0) {
    tokens = std::min(tokens, surplus(a));  // a cannot be helped itself: it keeps its target
  }
  packing_.give(a, expert, gift.to, tokens);
  return true;
}

/// Each gift uses a blank up, so this ends.
void MeanSearch::spend_blanks() {
  for (;;) {
    const std::size_t a = packing_.slowest();
    if (packing_.slowest_us() <= bound_us_ * (1.0 + kSettled) || surplus(a) <= 0.0 || !relieve(a)) {
      return;
    }
  }
}

void MeanSearch::write(LayerSlots slots) const {
  std::vector<double> placed(loads_.size(), 0.0);
  for (std::size_t d = 0; d < packing_.devices(); ++d) {
    for (const auto& piece : packing_.on(d)) {
      if (piece.expert != Piece::kBlank) {
        placed[static_cast<std::size_t>(piece.expert)] += piece.load;
      }
    }
  }
  std::vector<std::size_t> falling(loads_.size());
  std::iota(falling.begin(), falling.end(), std::size_t{0});
  if (slots.expert.size() > loads_.size()) {
    std::ranges::stable_sort(falling, std::greater<>{}, [&](std::size_t e) { return loads_[e]; });
  }
  for (std::size_t slot = 0; slot < slots.expert.size(); ++slot) {
    const std::size_t device = slot / packing_.width();
    const auto& piece = packing_.on(device)[slot % packing_.width()];
    slots.expert[slot] = piece.expert;
    if (piece.expert != Piece::kBlank) {
      // an expert without tokens lies in one slot
      const double all = placed[static_cast<std::size_t>(piece.expert)];
      slots.share[slot] = all > 0.0 ? piece.load / all : 1.0;
      continue;
    }
    const auto filled = slots.expert.subspan(device * packing_.width(), slot % packing_.width());
    const auto spare = std::ranges::find_if(falling, [&](std::size_t e) {
      return std::ranges::find(filled, static_cast<std::int32_t>(e)) == filled.end();
    });
    slots.expert[slot] = static_cast<std::int32_t>(spare == falling.end() ? 0 : *spare);
    slots.share[slot] = 0.0;
  }
}

}  // namespace moevar::placement
