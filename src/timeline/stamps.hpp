#pragma once

#include <span>
#include <vector>

#include "base/tensor.hpp"
#include "base/units.hpp"
#include "system/mpi.hpp"
#include "timeline/clock.hpp"
#include "timeline/timeline.hpp"

namespace moevar::timeline {

/// What one device notes down while steps run, on its own clock. Nothing is exchanged meanwhile.
struct Stamps {
  Stamps(std::size_t steps, std::size_t layers);

  std::vector<Nanoseconds> entered;  ///< [steps]: past the barrier that starts a step
  Matrix<Nanoseconds> dispatched;    ///< [steps][layers]: its tokens are there, experts begin
  Matrix<Nanoseconds> arrived;       ///< [steps][layers]: its experts are done
  Matrix<Nanoseconds> exited;        ///< [steps][layers]: it leaves the layer
  Matrix<std::uint32_t> tokens;      ///< [steps][layers]: rows that its experts received
};

/// The timeline of this rank's devices, [devices][steps][layers], on the common clock; collective
/// over ranks whose devices have stamps of the same shape, at least one each. A layer starts with
/// the last exit from the layer before; the first with the last entry into the step. `fit` takes
/// this rank's clock to the common one; where clocks err, dispatch and wait may fall below 0 by
/// their residual.
Timeline timeline_of(const mpi::Communicator& comm, std::span<const Stamps> stamps,
                     const ClockFit& fit);
inline Timeline timeline_of(const mpi::Communicator& comm, const Stamps& stamps,
                            const ClockFit& fit) {
  return timeline_of(comm, std::span(&stamps, 1), fit);
}

}  // namespace moevar::timeline
