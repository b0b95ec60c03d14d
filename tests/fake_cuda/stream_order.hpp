#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

/// Who comes before whom on a GPU: streams are in order, events order streams, and what the host
/// has waited for comes before what it queues next. Two uses of the same memory, one of them a
/// write, that nothing orders are a race, however lucky the moment: vector clocks, as race
/// detectors of threads have them (Mattern 1989; FastTrack, Flanagan and Freund 2009).
namespace moevar::fake {

struct Bytes {
  const void* begin = nullptr;
  std::size_t size = 0;
};

class StreamOrder {
 public:
  using Stream = const void*;  ///< its address; nullptr: the host
  using Event = const void*;

  /// Something that a stream, or the host, does with memory. What it races with, in words; empty:
  /// nothing.
  std::string use(Stream stream, const std::string& what, std::span<const Bytes> reads,
                  std::span<const Bytes> writes);

  void record(Event event, Stream stream);
  /// Later work of `stream` comes after the event as it was last recorded, if ever.
  void wait(Stream stream, Event event);
  /// The host has waited for all of a stream so far, for an event, for everything.
  void synchronise_stream(Stream stream);
  void synchronise_event(Event event);
  void synchronise_all();

  /// The memory is another's from now on.
  void forget(Bytes memory);
  void forget_stream(Stream stream);
  void forget_event(Event event);

 private:
  using Clock = std::vector<std::uint64_t>;  ///< by number of a stream
  struct Use {
    std::size_t stream = 0;
    std::uint64_t tick = 0;  ///< of that stream; 0: none
    std::string what;
  };
  /// Memory from its key in the map on.
  struct Piece {
    std::uintptr_t end = 0;
    Use write;
    std::map<std::size_t, Use> reads;  ///< the latest of each stream since the write
  };
  using Pieces = std::map<std::uintptr_t, Piece>;

  std::size_t number_of(Stream stream);
  Clock& clock_of(std::size_t number);
  static void join(Clock& into, const Clock& other);
  static bool before(const Use& use, const Clock& clock);
  static std::string race(const Use& earlier, const std::string& how, const Use& now);
  void split(std::uintptr_t at);
  /// The pieces of a range, all of which are there then.
  std::pair<Pieces::iterator, Pieces::iterator> cover(Bytes memory);
  std::string read(Bytes memory, const Use& now, const Clock& clock);
  std::string write(Bytes memory, const Use& now, const Clock& clock);

  std::mutex mutex_;
  std::map<Stream, std::size_t> numbers_{{nullptr, 0}};
  std::size_t next_number_ = 1;
  std::vector<Clock> clocks_;
  std::map<Event, Clock> events_;
  Pieces pieces_;
};

}  // namespace moevar::fake
