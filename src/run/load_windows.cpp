#include "run/load_windows.hpp"

#include <algorithm>

namespace moevar::run {

const workload::Routing& LoadWindows::routing_of(const study::PhaseSpec& phase) {
  if (!phase.even_load && phase.experts == study_.model.experts) {
    return own_;
  }
  if (other_ == nullptr || other_->shape().experts != phase.experts ||
      other_is_even_ != phase.even_load) {
    other_.reset();  // its memory goes before the next one's comes
    other_ = synthetic_routing(study_, phase.experts, phase.even_load);
    other_is_even_ = phase.even_load;
  }
  return *other_;
}

const workload::Routing& LoadWindows::routing_of(const study::PhaseSpec& phase, int kind) {
  if (kind == 0 || study_.workload.kind != study::WorkloadKind::synthetic) {
    return routing_of(phase);
  }
  auto& routing = kinds_[{kind, phase.experts, phase.even_load}];
  if (routing == nullptr) {
    routing = synthetic_routing(study_, phase.experts, phase.even_load, kind);
  }
  return *routing;
}

const workload::Loads& LoadWindows::loads_of(const study::PhaseSpec& phase, int segment) {
  const auto known = std::ranges::find_if(windows_, [&](const Window& w) {
    return w.devices == phase.devices && w.experts == phase.experts && w.even == phase.even_load &&
           w.segment == segment;
  });
  if (known != windows_.end()) {
    windows_.splice(windows_.end(), windows_, known);
  } else {
    if (windows_.size() == 2) {
      windows_.pop_front();
    }
    windows_.push_back({phase.devices, phase.experts, phase.even_load, segment,
                        sample_loads(comm_, routing_of(phase), segments_.first_measured(segment),
                                     segments_.steps, tokens_of_step(phase.devices))});
  }
  return windows_.back().loads;
}

}  // namespace moevar::run
