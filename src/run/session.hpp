#pragma once

#include <vector>

#include "record/manifest.hpp"
#include "study/parse.hpp"
#include "system/mpi.hpp"

/// What manifest.json says of a run.
namespace moevar::run {

/// This start of the program: `program` is what is known of its build, to which the libraries are
/// added. Collective; every rank gets it.
record::Session describe_session(const mpi::Communicator& comm, record::Facts program);

/// The files that the study reads, with their digests. Throws EnvironmentError where one cannot be
/// read.
std::vector<record::InputFile> inputs_of(const study::Study& study);

}  // namespace moevar::run
