#pragma once

#include <memory>

#include "run/backend.hpp"
#include "study/plan.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// GPUs as devices, timed by their own clocks: the first ranks of `comm` have one each, or, with
/// fleet.emulated_sms, several parts of one; the others take part in every member, and own no
/// device. `comm` and `study` outlive the object. `tokens_per_device`: of the largest step.
/// Collective. Throws EnvironmentError, alike on every rank, where this cannot be had: no GPU for a
/// rank, one that two ranks would have to share, too little memory, an exchange that was asked for
/// by name and is not there, a program built without CUDA; InputError for sizes that make no layer.
std::unique_ptr<Backend> make_cuda_backend(const mpi::Communicator& comm, const study::Study& study,
                                           const study::ModelShape& model,
                                           const study::PhaseSpec& phase, int tokens_per_device);

}  // namespace moevar::run
