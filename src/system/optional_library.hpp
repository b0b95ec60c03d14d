#pragma once

#include <string>

namespace moevar {

/// A library that a program may do without, as it would be loaded here and now.
struct OptionalLibrary {
  std::string name;      ///< what was asked for: "libnccl.so.2"
  bool found = false;    ///< loaded, and told its version
  int version = 0;       ///< as the library numbers it
  std::string readable;  ///< "2.28.9"; empty where it is not known
  std::string problem;   ///< why not; empty where found

  /// `readable`, or "unknown" of a library that does not tell, or "none".
  [[nodiscard]] std::string version_text() const;
};

/// NCCL: libnccl.so.2, or the library that the environment variable MOEVAR_NCCL names. Version:
/// major × 10000 + minor × 100 + patch. Not collective; never throws for what is not there.
OptionalLibrary find_nccl();
/// The first NCCL that takes two ranks on one GPU (NCCL_MULTI_RANK_GPU_ENABLE=1).
inline constexpr int kNcclSharesGpus = 23003;

/// cuBLASLt of the CUDA that this program was built with (else 13, then 12), or the library that
/// MOEVAR_CUBLASLT names. Version: major × 10000 + minor × 100 + patch.
OptionalLibrary find_cublaslt();

}  // namespace moevar
