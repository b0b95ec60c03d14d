#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/doctor_facts.hpp"
#include "cli/doctor_report.hpp"
#include "cli/doctor_verdicts.hpp"
#include "fleet/gpu_binding.hpp"
#include "system/mpi.hpp"

namespace moevar::cli {

namespace {

using nlohmann::json;

std::string dumped(const json& document, int indent = -1) {
  return document.dump(indent, ' ', false, json::error_handler_t::replace);
}

class DoctorCommand : public Command {
 public:
  void add_options(CLI::App& app) override {
    app.add_flag("--json", json_, "the same facts as JSON, every field in results/README.md");
    app.add_flag("--share-gpu", gpus_.share_gpu,
                 "show the map of a run whose ranks may have the same GPU");
    app.add_option("--gpus", gpus_.gpus,
                   "show the map of a run with these fleet.gpus: CUDA ordinals or UUIDs");
    app.footer(
        "Collective under mpirun: rank 0 shows every host. It looks and changes nothing, and "
        "its exit status is 0 whatever it finds.");
  }

  ExitStatus run(int argc, char** argv) override {
    const mpi::Session session(&argc, &argv);
    const auto world = mpi::Communicator::world();
    const auto views = fleet::gather_views(world);
    auto hosts = gather_hosts(world);
    if (world.is_root()) {
      json document{{"schema", 1},
                    {"moevar", build_facts()},
                    {"mpi", mpi_facts(world.size())},
                    {"hdf5", hdf5_facts()}};
      document["ranks"] = map_ranks(views, gpus_, hosts);
      document["devices"] = usable_devices(views, gpus_, hosts);
      document["hosts"] = hosts;
      fmt::print("{}", json_ ? dumped(document, 2) + "\n" : render_doctor(document));
    }
    return ExitStatus::ok;
  }

 private:
  /// Every host's facts, from its first rank, in the order of nodes.
  static std::vector<json> gather_hosts(const mpi::Communicator& world) {
    const auto node = world.split_by_node();
    std::string mine;
    mpi::on_all(world, [&] { mine = node.is_root() ? dumped(host_facts()) : ""; });
    std::vector<json> hosts;
    for (const auto& text : world.all_gather(mine)) {
      if (!text.empty()) {
        hosts.push_back(json::parse(text));
      }
    }
    return hosts;
  }

  bool json_ = false;
  fleet::GpuOptions gpus_;
};

}  // namespace

std::unique_ptr<Command> make_doctor_command() { return std::make_unique<DoctorCommand>(); }

}  // namespace moevar::cli
