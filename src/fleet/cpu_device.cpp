#include "fleet/cpu_device.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "fleet/node_places.hpp"
#include "system/affinity.hpp"

namespace moevar::fleet {

CpuDevice::CpuDevice(const expert_ffn::Shape& shape, std::uint64_t seed, int layers, int slots)
    : shape_(shape),
      seed_(seed),
      slots_(layers, slots),
      groups_(static_cast<std::size_t>(slots)),
      workspace_(shape) {}

void CpuDevice::load(int layer, std::span<const std::int32_t> experts) {
  std::vector<Slot> loaded;
  for (const auto expert : experts) {
    const auto twin = std::ranges::find(loaded, expert, &Slot::expert);
    if (twin != loaded.end()) {
      loaded.push_back(*twin);
      continue;
    }
    loaded.push_back({expert, take_spare()});
    loaded.back().weights->fill(seed_, layer, expert);
  }
  place(layer, std::move(loaded));
}

std::shared_ptr<ExpertWeights> CpuDevice::take_spare() {
  auto spare = slots_.take_spare();
  return spare ? spare : std::make_shared<ExpertWeights>(shape_);
}

std::uint64_t CpuDevice::expected_checksum(int layer, std::int32_t expert) const {
  return fleet::expected_checksum(shape_, seed_, layer, expert);
}

void CpuDevice::run_experts(int layer, std::span<const std::int64_t> rows_per_slot,
                            std::span<const float> x, std::span<float> y) {
  for (std::size_t s = 0; s < groups_.size(); ++s) {
    groups_[s] = {slots_.at(layer, static_cast<int>(s)).weights->view(),
                  static_cast<std::size_t>(rows_per_slot[s])};
  }
  expert_ffn::run_cpu(shape_, groups_, x, y, workspace_);
}

std::vector<DeviceIdentity> bind_cpu_fleet(const mpi::Communicator& comm, int devices) {
  const auto node = comm.split_by_node();
  const auto places = gather_places(comm, node);
  // what can fail on one rank alone comes before the exchange of it
  int core = 0;
  std::string host;
  std::string model;
  mpi::on_all(comm, [&] {
    core = affinity::bind_to_core(node.rank());
    host = affinity::host_name();
    model = affinity::cpu_model();
  });
  const auto cores = comm.all_gather(std::int64_t{core});
  const auto hosts = comm.all_gather(host);
  const auto models = comm.all_gather(model);

  std::map<std::string, int> uses;
  std::vector<DeviceIdentity> fleet;
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(devices); ++rank) {
    std::string uuid = fmt::format("cpu-{}-{}", hosts[rank], cores[rank]);
    if (const int before = uses[uuid]++; before > 0) {
      uuid += fmt::format(".{}", before);
    }
    fleet.push_back({.device = static_cast<DeviceId>(rank),
                     .kind = "cpu",
                     .uuid = std::move(uuid),
                     .name = models[rank],
                     .host = hosts[rank],
                     .node = places[rank].node,
                     .slot = places[rank].local_rank,
                     .rank = static_cast<int>(rank)});
  }
  return fleet;
}

}  // namespace moevar::fleet
