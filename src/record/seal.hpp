#pragma once

#include <cstdint>
#include <filesystem>

/// A file that says of itself that it is whole: its first 512 bytes, HDF5's user block, hold the
/// SHA-256 of all that follows. HDF5 1.10 can crash on a file that was cut off or changed, so what
/// a run goes on from is looked at in this way first. Nothing here is collective.
namespace moevar::record {

/// What hdf5::File::create needs for a file that is to be sealed.
inline constexpr std::uintmax_t kSealBytes = 512;

/// Seals a finished file. Throws EnvironmentError where it cannot be read or written.
void seal(const std::filesystem::path& path);

/// Whether the file is as it was when it was sealed; false where it is not there. Throws
/// EnvironmentError where it is, but cannot be read.
bool is_whole(const std::filesystem::path& path);

}  // namespace moevar::record
