#pragma once

#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "fleet/gpu_assignment.hpp"

/// What `moevar doctor` finds, as the JSON document that results/README.md describes. What cannot
/// be found out is null. Nothing here is collective, and nothing is ever written to a GPU.
namespace moevar::cli {

/// This host as one of the document's `hosts`, from its NVML, CUDA and libraries; GPUs that CUDA
/// alone sees are not in it yet. Throws LibraryError where hwloc cannot look.
nlohmann::json host_facts();

/// This process's MPI and HDF5, as `mpi` and `hdf5`. MPI must run.
nlohmann::json mpi_facts(int ranks);
nlohmann::json hdf5_facts();

/// Puts what the ranks see into the hosts' GPUs: SMs, CUDA ordinals, and which ranks would drive
/// them from which cores; `hosts` stand in the order of their nodes. Returns the document's
/// `ranks`.
nlohmann::json map_ranks(std::span<const fleet::RankView> views, const fleet::GpuOptions& options,
                         std::vector<nlohmann::json>& hosts);

}  // namespace moevar::cli
