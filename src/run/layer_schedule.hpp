#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

/// In what order a MoE layer's work is queued, and what waits for what. Pure.
namespace moevar::run {

/// What is done with a batch of a device's tokens in a layer, in this order.
enum class LayerPart : std::uint8_t {
  send,      ///< gate and permute: rows to send
  dispatch,  ///< they travel
  work,      ///< group, experts, ungroup
  combine,   ///< the way back
  finish,    ///< unpermute: outputs
  count
};

constexpr bool is_exchange(LayerPart part) noexcept {
  return part == LayerPart::dispatch || part == LayerPart::combine;
}

/// The queues of a device, each in order, that run beside each other.
enum class Queue : std::uint8_t { compute, exchange };

/// A part of a batch's layer in its queue.
struct LayerOperation {
  LayerPart part = LayerPart::send;
  std::size_t batch = 0;
  Queue queue = Queue::compute;
  /// A part of the same batch in the other queue that must be over before this one begins.
  std::optional<LayerPart> after;
  bool awaited = false;  ///< another operation names this one so
  bool operator==(const LayerOperation&) const = default;
};

/// A layer with a device's tokens in `batches` batches, as the host queues it, every device alike.
///
/// One batch: one part after the other, all in one queue.
///
/// Two: two-batch overlap, as DeepSeek-V3 (arXiv 2412.19437, section 3.4) and SGLang have it. What
/// travels has a queue of its own, so that one batch's rows travel while the experts of the other
/// compute:
///
///     compute   send 0, send 1,  work 0,      work 1,     finish 0, finish 1
///     exchange     dispatch 0,   dispatch 1,  combine 0,  combine 1
///
/// Every rank has its exchanges in this one order, as NCCL and MPI want it. What an exchange may
/// make the host wait for is queued before it, and what can compute meanwhile too. Both batches
/// leave a layer before one enters the next, so that a layer is as long as its last output, as it
/// is without overlap.
std::vector<LayerOperation> layer_schedule(std::size_t batches);

/// The tokens of a batch: from `first` on, `count` of them.
struct TokenRange {
  std::size_t first = 0;
  std::size_t count = 0;
  bool operator==(const TokenRange&) const = default;
};

/// A device's tokens in order in at most `batches` batches whose sizes differ by one at most; none
/// is empty, but for the only one of no tokens.
std::vector<TokenRange> batches_of(std::size_t tokens, std::size_t batches);

}  // namespace moevar::run
