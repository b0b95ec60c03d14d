#include "system/affinity.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "system/files.hpp"

namespace moevar::affinity {
namespace {

TEST(Affinity, UsableCoresAreAscendingAndAllowed) {
  const auto cores = usable_cores();
  ASSERT_FALSE(cores.empty());
  EXPECT_TRUE(std::ranges::is_sorted(cores));
  EXPECT_EQ(std::ranges::adjacent_find(cores), cores.end());
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  for (const int core : cores) {
    EXPECT_TRUE(CPU_ISSET(static_cast<unsigned>(core), &allowed)) << core;
  }
}

TEST(Affinity, BindingTakesTheRankthCoreAndWrapsRound) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const auto cores = usable_cores();
  for (const std::size_t rank : {std::size_t{0}, cores.size() - 1, cores.size()}) {
    const int core = bind_to_core(static_cast<int>(rank));
    EXPECT_EQ(core, cores[rank % cores.size()]);
    cpu_set_t now;
    ASSERT_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    EXPECT_EQ(CPU_COUNT(&now), 1);
    EXPECT_TRUE(CPU_ISSET(static_cast<unsigned>(core), &now));
    EXPECT_EQ(usable_cores(), std::vector<int>{core});
    ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  }
}

/// The memory nodes that new memory of this thread is taken from first, as a mask; 0: any.
std::uint64_t memory_policy_nodes() {
  int mode = 0;
  std::array<std::uint64_t, 16> nodes{};
  EXPECT_EQ(::syscall(SYS_get_mempolicy, &mode, nodes.data(), 64 * nodes.size(), nullptr, 0), 0);
  return nodes[0];
}

TEST(Affinity, BindingTakesAllTheCoresAndTheirMemory) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const auto cores = usable_cores();
  ASSERT_EQ(memory_policy_nodes(), 0U);
  const bool memory = bind_to_cores(cores);
  EXPECT_EQ(usable_cores(), cores);
  EXPECT_EQ(memory_policy_nodes() != 0, memory);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  ASSERT_EQ(::syscall(SYS_set_mempolicy, 0, nullptr, 0), 0);
  EXPECT_THROW(bind_to_cores({}), LibraryError);
}

/// Two sockets with a memory node, four cores of two threads, and two GPUs each; a device that
/// belongs to neither.
std::string two_sockets() { return files::read_text(MOEVAR_TOPOLOGIES "/two-sockets.xml"); }

TEST(Machine, CoresNearADevice) {
  const Machine machine(two_sockets());
  EXPECT_EQ(machine.usable_cores(), (std::vector<int>{0, 2, 4, 6, 8, 10, 12, 14}));
  const Locality first{{0, 1, 2, 3, 4, 5, 6, 7}, {0}};
  const Locality second{{8, 9, 10, 11, 12, 13, 14, 15}, {1}};
  EXPECT_EQ(machine.near({0, 0x1b, 0}), first);
  EXPECT_EQ(machine.near({0, 0x2a, 0}), first);
  EXPECT_EQ(machine.near({0, 0x9b, 0}), second);
  EXPECT_EQ(machine.near({0, 0xba, 0}), second);
}

TEST(Machine, AnUnknownPlaceIsNoPlace) {
  const Machine machine(two_sockets());
  EXPECT_EQ(machine.near({0, 0x1c, 0}), std::nullopt) << "no such device";
  EXPECT_EQ(machine.near({1, 0x1b, 0}), std::nullopt) << "another domain";
  EXPECT_EQ(machine.near({0, 0x1b, 1}), std::nullopt) << "another device on the bus";
  EXPECT_EQ(machine.near({0, 0x01, 0}), std::nullopt) << "two memory nodes, and next to both";
}

TEST(Machine, WithOneMemoryNodeAllIsNear) {
  auto xml = two_sockets();
  // the second memory node goes; its cores have the first one's memory
  const auto begin = xml.find(R"(<object type="NUMANode" os_index="1")");
  const std::string_view end = "</object>";
  xml.erase(begin, xml.find(end, begin) + end.size() - begin);
  for (std::string_view nodes : {R"(nodeset="0x00000002")", R"(nodeset="0x00000003")"}) {
    for (auto at = xml.find(nodes); at != std::string::npos; at = xml.find(nodes)) {
      xml.replace(at, nodes.size(), R"(nodeset="0x00000001")");
    }
  }
  const Machine machine(xml);
  const auto near = machine.near({0, 0x01, 0});
  ASSERT_TRUE(near);
  EXPECT_EQ(near->threads.size(), 16U);
  EXPECT_EQ(near->memory_nodes, std::vector<int>{0});
}

TEST(Machine, ThisOneHasTheSameCores) { EXPECT_EQ(Machine().usable_cores(), usable_cores()); }

TEST(Machine, WhatIsNoTopologyIsRefused) { EXPECT_THROW(Machine("<topology"), LibraryError); }

TEST(Affinity, NamesAndMemoryAreThere) {
  EXPECT_FALSE(host_name().empty());
  EXPECT_EQ(host_name().find('.'), std::string::npos);
  EXPECT_FALSE(cpu_model().empty());
  EXPECT_GT(available_memory_bytes(), std::size_t{1} << 20U);
  EXPECT_LT(available_memory_bytes(), std::size_t{1} << 50U);
}

}  // namespace
}  // namespace moevar::affinity
