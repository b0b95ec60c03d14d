#include "placement/descent.hpp"

#include <algorithm>
#include <cmath>

namespace moevar::placement {

namespace {

constexpr double kGain = 1e-9;  ///< relative; smaller ones are rounding

}  // namespace

void Descent::bundles_of(std::size_t device, std::size_t size, std::vector<Bundle>& bundles) const {
  bundles.clear();
  const auto pieces = packing_.on(device);
  if (size == 1) {  // already by falling load
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      bundles.push_back({pieces[i].load, {i, i}, 1});
    }
    return;
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    for (std::size_t k = i + 1; k < pieces.size(); ++k) {
      bundles.push_back({pieces[i].load + pieces[k].load, {i, k}, 2});
    }
  }
  std::ranges::stable_sort(bundles, std::greater<>{}, &Bundle::load);
}

bool Descent::within_budget(std::size_t device, const Bundle& give, std::size_t from,
                            const Bundle& take) const {
  std::array<Piece, 2> pieces;
  std::ranges::transform(std::span(take.pieces).first(take.count), pieces.begin(),
                         [&](std::size_t i) { return packing_.on(from)[i]; });
  return packing_.may_receive(device, std::span(give.pieces).first(give.count),
                              std::span(pieces).first(take.count));
}

bool Descent::may(std::size_t a, const Bundle& give, std::size_t b, const Bundle& take) const {
  // NOLINTNEXTLINE(readability-suspicious-call-argument): what one gives the other takes
  if (packing_.limited() && !(within_budget(a, give, b, take) && within_budget(b, take, a, give))) {
    return false;
  }
  if (!packing_.has_replicas()) {
    return true;
  }
  const auto fits = [&](std::size_t from, const Bundle& bundle, std::size_t to) {
    return std::ranges::none_of(std::span(bundle.pieces).first(bundle.count), [&](std::size_t i) {
      const auto expert = packing_.on(from)[i].expert;
      return expert != Piece::kBlank && packing_.holds(to, expert);
    });
  };
  return fits(a, give, b) && fits(b, take, a);
}

/// Among exchanges of a bundle of a (mine_) for one of b (theirs_): the one that comes nearest to
/// bringing both to the same time.
bool Descent::best_with(std::size_t a, std::size_t b, double limit_us, Exchange& best) {
  const double time_a = packing_.time_us(a);
  const double time_b = packing_.time_us(b);
  const double most = packing_.speeds()[b].tokens_within(limit_us) - packing_.tokens(b);
  const double slope_a = time_a / packing_.tokens(a);
  const double slope_b = time_b > 0.0 ? time_b / packing_.tokens(b) : slope_a;
  const double wanted = std::min((time_a - time_b) / (slope_a + slope_b), most);
  double error = most;
  const Bundle* give = nullptr;
  const Bundle* take = nullptr;
  std::size_t j = 0;
  for (const auto& bundle : mine_) {
    // theirs fall along j, mine from bundle to bundle: the first exchange that moves enough
    while (j > 0 && bundle.load - theirs_[j - 1].load >= wanted) {
      --j;
    }
    while (j < theirs_.size() && bundle.load - theirs_[j].load < wanted) {
      ++j;
    }
    for (std::size_t k = j > 0 ? j - 1 : 0; k <= j && k < theirs_.size(); ++k) {
      const double moved = bundle.load - theirs_[k].load;
      if (moved > 0.0 && moved < most && std::abs(moved - wanted) < error &&
          may(a, bundle, b, theirs_[k])) {
        error = std::abs(moved - wanted);
        give = &bundle;
        take = &theirs_[k];
      }
    }
  }
  if (give == nullptr) {
    return false;
  }
  const double moved = give->load - take->load;
  const double after = std::max(packing_.time_us(a, packing_.tokens(a) - moved),
                                packing_.time_us(b, packing_.tokens(b) + moved));
  if (after >= best.time_us) {
    return false;
  }
  best = {b, *give, *take, after};
  return true;
}

/// The exchange of a with any device but `never` that leaves the slower of both fastest, and faster
/// than `limit_us`.
bool Descent::best_exchange(std::size_t a, std::size_t never, std::size_t size, double limit_us,
                            Exchange& best) {
  bool found = false;
  best.time_us = limit_us;
  bundles_of(a, size, mine_);
  for (std::size_t b = 0; b < packing_.devices(); ++b) {
    if (b != a && b != never && packing_.time_us(b) < best.time_us) {
      bundles_of(b, size, theirs_);
      found = best_with(a, b, limit_us, best) || found;
    }
  }
  return found;
}

void Descent::apply(std::size_t a, const Exchange& exchange) {
  packing_.exchange(a, std::span(exchange.give.pieces).first(exchange.give.count), exchange.device,
                    std::span(exchange.take.pieces).first(exchange.take.count));
}

/// Device a hands a little to b, which hands some on to a third; all three end up within
/// `limit_us`.
bool Descent::pass_on(std::size_t a, std::size_t b, double limit_us) {
  constexpr std::size_t kTries = 4;  // the smallest first steps
  struct Step {
    double moved;
    std::size_t i;
    std::size_t j;
  };
  std::vector<Step> steps;
  for (std::size_t i = 0; i < packing_.width(); ++i) {
    for (std::size_t j = packing_.width(); j-- > 0;) {
      const double moved = packing_.on(a)[i].load - packing_.on(b)[j].load;
      if (moved <= 0.0) {
        break;
      }
      if (packing_.time_us(a, packing_.tokens(a) - moved) < limit_us &&
          may(a, {0.0, {i, i}, 1}, b, {0.0, {j, j}, 1})) {
        steps.push_back({moved, i, j});
      }
    }
  }
  const auto tries = std::min(kTries, steps.size());
  std::ranges::partial_sort(steps, steps.begin() + static_cast<std::ptrdiff_t>(tries), {},
                            &Step::moved);
  for (const auto& step : std::span(steps).first(tries)) {
    const auto before = packing_.save(a, b);
    packing_.exchange(a, std::array{step.i}, b, std::array{step.j});
    Exchange next;
    if (best_exchange(b, a, 1, limit_us, next)) {
      apply(b, next);
      return true;
    }
    packing_.restore(before);
  }
  return false;
}

bool Descent::chain(std::size_t a) {
  const double limit_us = packing_.time_us(a) * (1.0 - kGain);
  for (std::size_t b = 0; b < packing_.devices(); ++b) {
    if (b != a && pass_on(a, b, limit_us)) {
      return true;
    }
  }
  return false;
}

void Descent::run(Effort effort) {
  constexpr int kMostRounds = 4000;
  constexpr std::size_t kWidestPairs = 24;      // beyond, single exchanges are fine enough
  constexpr std::size_t kMostForChains = 1024;  // devices: a chain tries all pairs
  for (int round = 0; round < kMostRounds; ++round) {
    const std::size_t a = packing_.slowest();
    if (packing_.time_us(a) <= enough_us_) {
      return;
    }
    const double limit_us = packing_.time_us(a) * (1.0 - kGain);
    Exchange best;
    const bool pairs = effort == Effort::thorough && packing_.width() <= kWidestPairs;
    if (best_exchange(a, a, 1, limit_us, best) ||
        (pairs && best_exchange(a, a, 2, limit_us, best))) {
      apply(a, best);
    } else if (effort == Effort::single || packing_.devices() > kMostForChains || !chain(a)) {
      return;
    }
  }
}

}  // namespace moevar::placement
