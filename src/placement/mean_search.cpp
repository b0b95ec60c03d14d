#include "placement/mean_search.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

#include "placement/placement.hpp"
#include "placement/replicas.hpp"

namespace moevar::placement {

namespace {

// relative to the bound
constexpr double kSettled = 1e-9;       ///< at the target, but for rounding
constexpr double kJustAbove = 4e-9;     ///< more than kSlotPrecision in lower_bound.cpp
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
    // the bound lies just below the times that are possible: where a curve is flat, a step below
    targets_.push_back(std::min(curve.tokens_within(bound_us_ * (1.0 + kJustAbove)), all));
  }
}

std::vector<Piece> MeanSearch::cut() const {
  auto caps = targets_;
  std::ranges::sort(caps, std::greater<>{});
  std::vector<Piece> pieces;
  const std::size_t slots = packing_.devices() * packing_.width();
  pieces.reserve(slots);
  std::size_t spare = slots - loads_.size();  // enough by the bound, but for loads next to nothing
  for (std::size_t e = 0; e < loads_.size(); ++e) {
    std::size_t count = 1;
    double covered = caps.front() * (1.0 + kSettled);
    while (covered < loads_[e] && count < caps.size() && spare > 0) {
      covered += caps[count++];
      --spare;
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

void MeanSearch::descend(Descent::Effort effort, double enough) {
  Descent(packing_, bound_us_ * (1.0 + enough)).run(effort);
}

void MeanSearch::place() {
  const auto pieces = cut();
  packing_.fill(pieces, targets_, room_for(pieces.size()));
  packing_.merge_twins();
  if (packing_.devices() * packing_.width() == loads_.size()) {
    descend(Descent::Effort::thorough);
  } else {
    spend_and_descend();
  }
}

void MeanSearch::spend_and_descend() {
  constexpr int kMostRounds = 4;
  descend(Descent::Effort::single);
  for (int round = 0; round < kMostRounds; ++round) {
    const double before_us = packing_.slowest_us();
    spend_blanks();
    descend(Descent::Effort::single);
    if (packing_.slowest_us() > before_us * (1.0 - kRoundMustWin)) {
      break;
    }
  }
  if (packing_.slowest_us() > bound_us_ * (1.0 + kWorthMore)) {
    descend(Descent::Effort::thorough);
  }
}

void MeanSearch::improve(std::span<const std::int32_t> expert_of_slot, const ReceiveBudget& budget,
                         bool even_shares) {
  std::vector<std::size_t> needed(loads_.size(), 0);
  if (!even_shares) {
    for (const auto& piece : cut()) {
      ++needed[static_cast<std::size_t>(piece.expert)];
    }
  }
  std::vector<std::vector<std::size_t>> slots_of(loads_.size());
  for (std::size_t slot = 0; slot < expert_of_slot.size(); ++slot) {
    slots_of[static_cast<std::size_t>(expert_of_slot[slot])].push_back(slot);
  }
  std::vector<Piece> pieces(expert_of_slot.size());
  for (std::size_t e = 0; e < slots_of.size(); ++e) {
    auto& slots = slots_of[e];
    std::ranges::stable_sort(slots, std::greater<>{},
                             [&](std::size_t slot) { return targets_[slot / packing_.width()]; });
    const std::size_t kept = even_shares ? slots.size() : std::min(needed[e], slots.size());
    for (const auto slot : std::span(slots).first(kept)) {
      pieces[slot] = {loads_[e] / static_cast<double>(kept), static_cast<std::int32_t>(e)};
    }
  }
  budget_ = &budget;
  packing_.limit(budget);
  packing_.lay(pieces);
  if (even_shares || expert_of_slot.size() == loads_.size()) {
    descend(Descent::Effort::thorough);
  } else {
    spend_and_descend();
  }
}

void MeanSearch::place_evenly(double enough) {
  const auto copies =
      copies_for(loads_, static_cast<int>(packing_.devices()), static_cast<int>(packing_.width()));
  std::vector<Piece> pieces;
  pieces.reserve(copies.size());
  for (const auto& copy : copies) {
    pieces.push_back({copy.load, copy.expert});
  }
  packing_.fill(pieces, targets_, std::vector(packing_.devices(), packing_.width()));
  descend(Descent::Effort::thorough, enough);
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
      if (trade == packing_.width() || !packing_.may_receive(a, {}, {&packing_.on(b)[trade], 1})) {
        continue;
      }
      back = packing_.on(b)[trade].load;
    }
    if (lack + back > piece.load || !packing_.may_receive(b, {}, {&piece, 1})) {
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

/// Moves what device a has above its target to a replica on a device that lacks it: as much as
/// settles one of both.
bool MeanSearch::shift(std::size_t a) {
  if (!packing_.has_replicas()) {
    return false;
  }
  std::int32_t expert = Piece::kBlank;
  std::size_t to = 0;
  double tokens = 0.0;
  for (std::size_t b = 0; b < packing_.devices(); ++b) {
    const double most = std::min(surplus(a), -surplus(b));
    if (b == a || most <= tokens) {
      continue;
    }
    for (const auto& piece : packing_.on(a)) {
      if (std::min(most, piece.load) > tokens && packing_.holds(b, piece.expert)) {
        tokens = std::min(most, piece.load);
        expert = piece.expert;
        to = b;
      }
    }
  }
  if (tokens <= kSettled * targets_[a]) {
    return false;
  }
  packing_.give(a, expert, to, tokens);
  return true;
}

bool MeanSearch::relieve(std::size_t a) {
  if (shift(a)) {
    return true;
  }
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

/// Each gift uses a blank up, each shift settles a device.
void MeanSearch::spend_blanks() {
  const std::size_t most = 4 * packing_.devices() * packing_.width();
  for (std::size_t round = 0; round < most; ++round) {
    const std::size_t a = packing_.slowest();
    if (packing_.slowest_us() <= bound_us_ * (1.0 + kSettled) || surplus(a) <= 0.0 || !relieve(a)) {
      return;
    }
  }
}

void MeanSearch::write_evenly(LayerSlots slots) const {
  std::vector<double> loads(slots.expert.size());
  for (std::size_t slot = 0; slot < slots.expert.size(); ++slot) {
    const auto& piece = packing_.on(slot / packing_.width())[slot % packing_.width()];
    slots.expert[slot] = piece.expert;
    loads[slot] = piece.load;
  }
  if (budget_ == nullptr) {
    separate_replicas(static_cast<int>(packing_.width()), slots.expert, loads);
  }
  share_evenly(slots.expert, static_cast<int>(loads_.size()), slots.share);
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
    const auto may_lie = [&](std::size_t e) {
      return budget_ == nullptr || !budget_->is_new(device, static_cast<std::int32_t>(e));
    };
    auto spare = std::ranges::find_if(falling, [&](std::size_t e) {
      return may_lie(e) && std::ranges::find(filled, static_cast<std::int32_t>(e)) == filled.end();
    });
    if (spare == falling.end()) {  // all that may lie there does: once more
      spare = std::ranges::find_if(falling, may_lie);
    }
    slots.expert[slot] = static_cast<std::int32_t>(*spare);
    slots.share[slot] = 0.0;
  }
}

}  // namespace moevar::placement
