// Writes an example study, for tests in Python and for measuring:
//     record_writer DIR PHASES DEVICES STEPS LAYERS [finish | leave | kill]
// "leave" ends without finish(). "kill" lets the kernel kill the process in the midst of writing
// the last phase: a limit on file size, whose signal nobody handles.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <sys/resource.h>

#include <fmt/format.h>

#include "example.hpp"

namespace {

using namespace moevar;

void limit_file_size() {
  std::signal(SIGXFSZ, SIG_DFL);
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  limit.rlim_cur = 16384;
  setrlimit(RLIMIT_FSIZE, &limit);
}

int run(int argc, char** argv) {
  if (argc < 6) {
    fmt::print(stderr,
               "usage: record_writer DIR PHASES DEVICES STEPS LAYERS [finish|leave|kill]\n");
    return EXIT_FAILURE;
  }
  const std::string directory = argv[1];
  const int phases = std::stoi(argv[2]);
  const record::example::Size size{std::stoi(argv[3]), std::stoul(argv[4]), std::stoul(argv[5])};
  const std::string end = argc > 6 ? argv[6] : "finish";

  const auto world = mpi::Communicator::world();
  record::StudyWriter writer(world, directory, record::example::header(phases));
  record::Summary summary{"example µ", "model", end == "finish", {}};
  double seconds = 0.0;
  for (int index = 0; index < phases; ++index) {
    const auto phase = record::example::make_phase(world, index, size);
    if (end == "kill" && index + 1 == phases) {
      limit_file_size();
    }
    world.barrier();
    const auto start = std::chrono::steady_clock::now();
    writer.write(phase.record(), true);
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    summary.cells.push_back(record::example::summary_of(phase));
  }
  const auto start = std::chrono::steady_clock::now();
  if (end == "finish") {
    writer.finish();
  }
  if (world.is_root()) {
    record::write_summary(directory, summary);
    const double joining =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double cells =
        static_cast<double>(phases) * size.devices * static_cast<double>(size.steps * size.layers);
    fmt::print("{} phases in {:.3f} s: {:.3g} device-layer-steps/s; joined in {:.3f} s\n{}", phases,
               seconds, cells / seconds, joining, record::render_table(summary));
  }
  if (end == "finish") {
    writer.remove_parts();
  }
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Session session(&argc, &argv);
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "record_writer: {}\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
  }
  return EXIT_FAILURE;
}
