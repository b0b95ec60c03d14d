#include "fleet/gpu_binding.hpp"

#include <cstdint>
#include <map>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace moevar::fleet {

namespace {

using nlohmann::json;

json to_json(const SeenGpu& seen) {
  const auto& gpu = seen.gpu;
  json all{{"ordinal", gpu.ordinal},
           {"name", gpu.name},
           {"uuid", gpu.uuid},
           {"domain", gpu.pci.domain},
           {"bus", gpu.pci.bus},
           {"device", gpu.pci.device},
           {"sms", gpu.sms},
           {"capability", gpu.capability},
           {"memory", gpu.memory_bytes}};
  if (seen.near) {
    all["threads"] = seen.near->threads;
    all["memory_nodes"] = seen.near->memory_nodes;
  }
  return all;
}

SeenGpu seen_from(const json& from) {
  SeenGpu seen{.gpu = {.ordinal = from["ordinal"],
                       .name = from["name"],
                       .uuid = from["uuid"],
                       .pci = {from["domain"], from["bus"], from["device"]},
                       .sms = from["sms"],
                       .capability = from["capability"],
                       .memory_bytes = from["memory"]},
               .near = std::nullopt};
  if (from.contains("threads")) {
    seen.near = affinity::Locality{from["threads"], from["memory_nodes"]};
  }
  return seen;
}

/// What this rank sees, but for its place.
std::string view_text() {
  const affinity::Machine machine;
  json gpus = json::array();
  for (auto& gpu : gpu::visible()) {
    auto near = machine.near(gpu.pci);
    gpus.push_back(to_json({std::move(gpu), std::move(near)}));
  }
  return json{{"host", affinity::host_name()}, {"cores", machine.usable_cores()}, {"gpus", gpus}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

RankView view_from(const std::string& text, const NodePlace& place) {
  const auto from = json::parse(text);
  RankView view{.place = place, .host = from["host"], .gpus = {}, .cores = from["cores"]};
  for (const auto& seen : from["gpus"]) {
    view.gpus.push_back(seen_from(seen));
  }
  return view;
}

}  // namespace

std::vector<RankView> gather_views(const mpi::Communicator& comm) {
  const auto places = gather_places(comm, comm.split_by_node());
  std::string mine;
  mpi::on_all(comm, [&] { mine = view_text(); });
  const auto texts = comm.all_gather(mine);
  std::vector<RankView> views;
  views.reserve(texts.size());
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    views.push_back(view_from(texts[rank], places[rank]));
  }
  return views;
}

GpuFleet bind_gpu_fleet(const mpi::Communicator& comm, int devices, const GpuOptions& options) {
  return bind_gpu_fleet(comm, gather_views(comm), devices, options);
}

GpuFleet bind_gpu_fleet(const mpi::Communicator& comm, const std::vector<RankView>& views,
                        int devices, const GpuOptions& options) {
  std::vector<AssignedGpu> assigned;
  std::vector<CoreShare> shares;
  std::int64_t memory_bound = 0;
  mpi::on_all(comm, [&] {
    if (devices > comm.size()) {
      throw EnvironmentError(
          fmt::format("study asks for {} GPUs, started with {} rank{}; start it with mpirun -np {}",
                      devices, comm.size(), comm.size() == 1 ? "" : "s", devices));
    }
    assigned = assign_gpus(views, options);
    shares = deal_cores(views, assigned);
    const auto me = static_cast<std::size_t>(comm.rank());
    memory_bound = affinity::bind_to_cores(shares[me].cores) ? 1 : 0;
  });
  const auto bound = comm.all_gather(memory_bound);

  std::map<std::string, int> ranks_of;
  for (const auto& mine : assigned) {
    ++ranks_of[mine.uuid];
  }
  GpuFleet fleet;
  std::map<std::string, int> uses;
  for (std::size_t rank = 0; rank < views.size(); ++rank) {
    const auto& view = views[rank];
    const auto& seen = view.gpus[assigned[rank].seen];
    fleet.ranks.push_back({.gpu = seen.gpu,
                           .share = shares[rank],
                           .memory_nodes = seen.near ? seen.near->memory_nodes : std::vector<int>{},
                           .memory_bound = bound[rank] != 0,
                           .sharers = ranks_of.at(seen.gpu.uuid)});
    if (rank >= static_cast<std::size_t>(devices)) {
      continue;
    }
    const int before = uses[seen.gpu.uuid]++;
    fleet.devices.push_back(
        {.device = static_cast<DeviceId>(rank),
         .kind = "cuda",
         .uuid = before == 0 ? seen.gpu.uuid : fmt::format("{}.{}", seen.gpu.uuid, before),
         .name = seen.gpu.name,
         .host = view.host,
         .node = view.place.node,
         .slot = view.place.local_rank,
         .rank = static_cast<int>(rank)});
  }
  return fleet;
}

}  // namespace moevar::fleet
