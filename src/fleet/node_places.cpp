#include "fleet/node_places.hpp"

#include <cstdint>
#include <map>
#include <span>

namespace moevar::fleet {

std::vector<NodePlace> gather_places(const mpi::Communicator& comm, const mpi::Communicator& node) {
  std::int64_t first_rank = comm.rank();
  node.broadcast(std::span(&first_rank, 1));
  const auto first_ranks = comm.all_gather(first_rank);
  const auto local_ranks = comm.all_gather(std::int64_t{node.rank()});
  std::map<std::int64_t, int> node_of;
  std::vector<NodePlace> places;
  places.reserve(first_ranks.size());
  for (std::size_t rank = 0; rank < first_ranks.size(); ++rank) {
    const int next = static_cast<int>(node_of.size());
    places.push_back({node_of.try_emplace(first_ranks[rank], next).first->second,
                      static_cast<int>(local_ranks[rank])});
  }
  return places;
}

}  // namespace moevar::fleet
