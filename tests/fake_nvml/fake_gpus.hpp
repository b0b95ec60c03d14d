#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

#include "state.hpp"

namespace moevar::fake_nvml {

/// The fake GPUs of a test program: made once, before NVML is first used, and put back to their
/// first state by reset().
class FakeGpus {
 public:
  static FakeGpus& only() {
    static FakeGpus gpus;
    return gpus;
  }

  /// H100s, at their default limit of 700 W, and an empty state folder.
  void reset() {
    std::filesystem::remove_all(folder());
    std::filesystem::create_directory(folder());
    std::filesystem::permissions(folder(), std::filesystem::perms::owner_all);
    std::memset(static_cast<void*>(state_), 0, sizeof(State));
    state_->magic = kMagic;
    state_->gpus = kCount;
    for (int i = 0; i < kCount; ++i) {
      auto& gpu = state_->gpu[static_cast<std::size_t>(i)];
      const auto text = uuid(i);
      for (std::size_t w = 0; w < gpu.uuid.size(); ++w) {
        std::uint64_t bytes = 0;
        std::memcpy(&bytes, text.data() + 8 * w, 8);
        gpu.uuid[w] = bytes;
      }
      gpu.min_mw = 200'000;
      gpu.default_mw = gpu.max_mw = gpu.requested_mw = 700'000;
      gpu.idle_mw = 70'000;
      gpu.burn_mw = 690'000;
      gpu.idle_mc = gpu.changed_mc = 30'000;
      gpu.burn_mc = 66'000;
      gpu.tau_ms = 2'000;
      gpu.idle_mhz = 345;
      gpu.burn_mhz = 1'980;
      gpu.changed_at_ns = now_ns();
      gpu.pci_bus = 0x10 + static_cast<unsigned>(i);
      gpu.memory_bytes = std::uint64_t{80} << 30U;
      gpu.capability = 90;
    }
  }

  static std::string uuid(int i) { return fmt::format("GPU-00000000-fa4e-4000-8000-{:012x}", i); }
  static std::vector<std::string> uuids(int count) {
    std::vector<std::string> all;
    for (int i = 0; i < count; ++i) {
      all.push_back(uuid(i));
    }
    return all;
  }
  Gpu& gpu(int i) { return state_->gpu[static_cast<std::size_t>(i)]; }
  [[nodiscard]] std::filesystem::path folder() const { return root_ / "state"; }

  static constexpr int kCount = 4;

 private:
  FakeGpus() {
    auto name = (std::filesystem::temp_directory_path() / "moevar-fake-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    const auto path = root_ / "gpus";
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ::ftruncate(fd, sizeof(State)) != 0) {
      std::abort();
    }
    void* memory = ::mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    state_ = static_cast<State*>(memory);
    ::setenv("MOEVAR_NVML", MOEVAR_FAKE_NVML_LIBRARY, 1);
    ::setenv("MOEVAR_FAKE_NVML_STATE", path.c_str(), 1);
    ::setenv("MOEVAR_STATE_DIR", folder().c_str(), 1);
    owner_ = ::getpid();
    reset();
  }
  ~FakeGpus() {
    if (::getpid() == owner_) {
      std::filesystem::remove_all(root_);
    }
  }

  std::filesystem::path root_;
  State* state_ = nullptr;
  pid_t owner_ = 0;
};

}  // namespace moevar::fake_nvml
