#include "fleet/gpu_assignment.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::fleet {
namespace {

using Names = std::vector<std::string>;

/// A rank that sees these GPUs, ordinals in their order, and has cores 0 to 15.
RankView rank_on(int node, int local_rank, const Names& uuids) {
  RankView rank{
      .place = {node, local_rank}, .host = fmt::format("node{}", node), .gpus = {}, .cores = {}};
  rank.cores.resize(16);
  std::iota(rank.cores.begin(), rank.cores.end(), 0);
  for (const auto& uuid : uuids) {
    SeenGpu seen;
    seen.gpu.ordinal = static_cast<int>(rank.gpus.size());
    seen.gpu.uuid = uuid;
    rank.gpus.push_back(seen);
  }
  return rank;
}

/// As many ranks of a node as `seen` has elements.
std::vector<RankView> node_of(const std::vector<Names>& seen, int node = 0) {
  std::vector<RankView> ranks;
  for (const auto& uuids : seen) {
    ranks.push_back(rank_on(node, static_cast<int>(ranks.size()), uuids));
  }
  return ranks;
}

std::vector<RankView> operator+(std::vector<RankView> a, const std::vector<RankView>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Names uuids_of(const std::vector<AssignedGpu>& assigned) {
  Names uuids;
  for (const auto& gpu : assigned) {
    uuids.push_back(gpu.uuid);
  }
  return uuids;
}

std::vector<int> ordinals_of(const std::vector<AssignedGpu>& assigned) {
  std::vector<int> ordinals;
  for (const auto& gpu : assigned) {
    ordinals.push_back(gpu.ordinal);
  }
  return ordinals;
}

/// The one-line error of an assignment that must be refused with exit status 3.
std::string refusal(const std::vector<RankView>& ranks, const GpuOptions& options = {}) {
  try {
    (void)assign_gpus(ranks, options);
  } catch (const EnvironmentError& error) {
    EXPECT_EQ(error.status(), ExitStatus::environment);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "not refused";
}

void expect_parts(const std::string& text, const Names& parts) {
  for (const auto& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
  }
}

const Names kFour{"GPU-a", "GPU-b", "GPU-c", "GPU-d"};

TEST(AssignGpus, AllVisibleToAllGoByLocalRank) {
  const auto assigned = assign_gpus(node_of({kFour, kFour, kFour}), {});
  EXPECT_EQ(uuids_of(assigned), (Names{"GPU-a", "GPU-b", "GPU-c"}));
  EXPECT_EQ(ordinals_of(assigned), (std::vector{0, 1, 2}));
}

TEST(AssignGpus, OneVisibleToEach) {
  const auto assigned = assign_gpus(node_of({{"GPU-c"}, {"GPU-a"}, {"GPU-b"}}), {});
  EXPECT_EQ(uuids_of(assigned), (Names{"GPU-c", "GPU-a", "GPU-b"}));
  EXPECT_EQ(ordinals_of(assigned), (std::vector{0, 0, 0}));
}

TEST(AssignGpus, SeveralOfItsOwnVisibleToEach) {
  const auto assigned = assign_gpus(node_of({{"GPU-a", "GPU-b"}, {"GPU-c", "GPU-d"}}), {});
  EXPECT_EQ(uuids_of(assigned), (Names{"GPU-a", "GPU-c"}));
}

TEST(AssignGpus, TheSameGpusInAnotherOrderForEveryRank) {
  const auto assigned = assign_gpus(
      node_of(
          {{"GPU-a", "GPU-b", "GPU-c"}, {"GPU-b", "GPU-c", "GPU-a"}, {"GPU-c", "GPU-a", "GPU-b"}}),
      {});
  EXPECT_EQ(uuids_of(assigned), (Names{"GPU-a", "GPU-b", "GPU-c"}));
  EXPECT_EQ(ordinals_of(assigned), (std::vector{0, 0, 0}));
}

TEST(AssignGpus, NodesOfBothForms) {
  const Names far{"GPU-x", "GPU-y"};
  const auto ranks =
      node_of({{"GPU-b"}, {"GPU-a"}}) + node_of({far, far}, 1) + node_of({{"GPU-z"}}, 2);
  EXPECT_EQ(uuids_of(assign_gpus(ranks, {})), (Names{"GPU-b", "GPU-a", "GPU-x", "GPU-y", "GPU-z"}));
}

TEST(AssignGpus, NodesWhoseRanksAlternate) {
  const Names near{"GPU-a", "GPU-b"};
  const Names far{"GPU-x", "GPU-y"};
  const std::vector ranks{rank_on(0, 0, near), rank_on(1, 0, far), rank_on(0, 1, near),
                          rank_on(1, 1, far)};
  EXPECT_EQ(uuids_of(assign_gpus(ranks, {})), (Names{"GPU-a", "GPU-x", "GPU-b", "GPU-y"}));
}

TEST(AssignGpus, FewerGpusThanRanksAreRefusedOrSharedInTurn) {
  const Names two{"GPU-a", "GPU-b"};
  const auto ranks = node_of({two}) + node_of({two, two, two, two}, 1);
  const auto crowd = node_of({two, two, two, two, two});
  expect_parts(refusal(crowd),
               {"ranks 2, 3 and 4 on node0", "GPU-a, GPU-b", "--share-gpu", "at most 2 ranks"});
  EXPECT_EQ(uuids_of(assign_gpus(crowd, {.gpus = {}, .share_gpu = true})),
            (Names{"GPU-a", "GPU-b", "GPU-a", "GPU-b", "GPU-a"}));
  expect_parts(refusal(ranks), {"ranks 3 and 4 on node1"});
}

TEST(AssignGpus, ARankWithoutGpusIsRefusedEvenWhereTheyAreShared) {
  const auto ranks = node_of({{"GPU-a"}, {}});
  expect_parts(refusal(ranks), {"rank 1 on node0: no GPU visible", "CUDA_VISIBLE_DEVICES"});
  expect_parts(refusal(ranks, {.gpus = {}, .share_gpu = true}),
               {"rank 1 on node0: no GPU visible"});
}

TEST(AssignGpus, OneGpuUnderTwoOrdinalsIsOneGpu) {
  // rank 0 sees it as its second, rank 1 as its only one
  const auto ranks = node_of({{"GPU-a", "GPU-b"}, {"GPU-b"}});
  const GpuOptions second{.gpus = {"GPU-b"}, .share_gpu = false};
  expect_parts(refusal(ranks, second),
               {"rank 0 on node0 and rank 1 on node0", "GPU-b", "ordinals 1 and 0", "--share-gpu"});
  EXPECT_EQ(uuids_of(assign_gpus(ranks, {})), (Names{"GPU-a", "GPU-b"}));
  EXPECT_EQ(uuids_of(assign_gpus(ranks, {.gpus = {"GPU-b"}, .share_gpu = true})),
            (Names{"GPU-b", "GPU-b"}));
}

TEST(AssignGpus, OneGpuBoundToTwoTasks) {
  expect_parts(refusal(node_of({{"GPU-a"}, {"GPU-a"}})),
               {"rank 1 on node0", "GPU-a", "--share-gpu"});
}

TEST(AssignGpus, OneGpuInTwoContainersIsOneGpu) {
  expect_parts(refusal(node_of({{"GPU-a"}}) + node_of({{"GPU-a"}}, 1)),
               {"rank 0 on node0 and rank 1 on node1", "GPU-a"});
}

TEST(AssignGpus, AListOfOrdinalsAndUuids) {
  const auto ranks = node_of({kFour, kFour, kFour});
  EXPECT_EQ(ordinals_of(assign_gpus(ranks, {.gpus = {"3", "GPU-a", "2"}, .share_gpu = false})),
            (std::vector{3, 0, 2}));
  expect_parts(refusal(ranks, {.gpus = {"3", "GPU-a"}, .share_gpu = false}),
               {"rank 2 on node0", "fleet.gpus lists 2", "--share-gpu"});
  EXPECT_EQ(ordinals_of(assign_gpus(ranks, {.gpus = {"3", "1"}, .share_gpu = true})),
            (std::vector{3, 1, 3}));
}

TEST(AssignGpus, AListOfUuidsOverNodes) {
  const Names far{"GPU-x", "GPU-y"};
  const auto ranks = node_of({kFour, kFour}) + node_of({far}, 1);
  EXPECT_EQ(uuids_of(assign_gpus(ranks, {.gpus = {"GPU-y", "GPU-d", "GPU-b"}, .share_gpu = false})),
            (Names{"GPU-d", "GPU-b", "GPU-y"}));
  expect_parts(refusal(ranks, {.gpus = {"GPU-d", "GPU-b"}, .share_gpu = false}),
               {"rank 2 on node1", "GPU-x, GPU-y"});
}

TEST(AssignGpus, AListOfOrdinalsWhereEachSeesOne) {
  const auto ranks = node_of({{"GPU-c"}, {"GPU-a"}});
  EXPECT_EQ(uuids_of(assign_gpus(ranks, {.gpus = {"0"}, .share_gpu = false})),
            (Names{"GPU-c", "GPU-a"}));
  EXPECT_EQ(uuids_of(assign_gpus(ranks, {.gpus = {"GPU-a", "GPU-c"}, .share_gpu = false})),
            (Names{"GPU-c", "GPU-a"}));
}

TEST(AssignGpus, AnEntryThatNoGpuHas) {
  const auto ranks = node_of({kFour, kFour});
  for (const bool share : {false, true}) {
    expect_parts(refusal(ranks, {.gpus = {"0", "4"}, .share_gpu = share}),
                 {"\"4\"", "node0", "0: GPU-a", "3: GPU-d"});
    expect_parts(refusal(ranks, {.gpus = {"GPU-A"}, .share_gpu = share}), {"\"GPU-A\""});
  }
}

TEST(AssignGpus, AGpuListedTwice) {
  const auto ranks = node_of({kFour, kFour, kFour});
  const GpuOptions twice{.gpus = {"1", "GPU-c", "GPU-b"}, .share_gpu = false};
  expect_parts(refusal(ranks, twice),
               {"\"1\" and \"GPU-b\" are the same GPU, GPU-b on node0", "--share-gpu"});
  EXPECT_EQ(ordinals_of(assign_gpus(ranks, {.gpus = twice.gpus, .share_gpu = true})),
            (std::vector{1, 2, 1}));
}

/// Four ranks with GPUs a and b near threads 0 to 7, c and d near 8 to 15; a core is every second
/// thread.
std::vector<RankView> two_sockets() {
  auto ranks = node_of({kFour, kFour, kFour, kFour});
  for (auto& rank : ranks) {
    rank.cores = {0, 2, 4, 6, 8, 10, 12, 14};
    for (std::size_t g = 0; g < rank.gpus.size(); ++g) {
      const int node = g < 2 ? 0 : 1;
      std::vector<int> threads(8);
      std::iota(threads.begin(), threads.end(), 8 * node);
      rank.gpus[g].near = affinity::Locality{threads, {node}};
    }
  }
  return ranks;
}

std::vector<CoreShare> deal(const std::vector<RankView>& ranks, const GpuOptions& options = {}) {
  return deal_cores(ranks, assign_gpus(ranks, options));
}

using Cores = std::vector<int>;

TEST(DealCores, RanksNearTheSameMemoryShareItsCoresOut) {
  const auto shares = deal(two_sockets());
  EXPECT_EQ(shares[0], (CoreShare{{0, 2}, ""}));
  EXPECT_EQ(shares[1], (CoreShare{{4, 6}, ""}));
  EXPECT_EQ(shares[2], (CoreShare{{8, 10}, ""}));
  EXPECT_EQ(shares[3], (CoreShare{{12, 14}, ""}));
}

TEST(DealCores, TheGpuDecidesNotTheRank) {
  const auto shares = deal(two_sockets(), {.gpus = {"3", "0", "2", "1"}, .share_gpu = false});
  EXPECT_EQ(shares[0].cores, (Cores{8, 10}));
  EXPECT_EQ(shares[1].cores, (Cores{0, 2}));
  EXPECT_EQ(shares[2].cores, (Cores{12, 14}));
  EXPECT_EQ(shares[3].cores, (Cores{4, 6}));
}

TEST(DealCores, WhatTheLauncherLeftToOneMayGoToAnother) {
  auto ranks = two_sockets();
  // bound to sockets in turn, as mpirun does by itself from three ranks on
  ranks[0].cores = ranks[2].cores = {0, 2, 4, 6};
  ranks[1].cores = ranks[3].cores = {8, 10, 12, 14};
  EXPECT_EQ(deal(ranks), deal(two_sockets()));
}

TEST(DealCores, NeverMoreThanTheLauncherLeft) {
  auto ranks = two_sockets();
  for (auto& rank : ranks) {
    rank.cores = {4, 6};  // all near a and b
  }
  const auto shares = deal(ranks);
  EXPECT_EQ(shares[0], (CoreShare{{4}, ""}));
  EXPECT_EQ(shares[1], (CoreShare{{6}, ""}));
  EXPECT_NE(shares[2].note.find("--bind-to none"), std::string::npos) << shares[2].note;
  EXPECT_EQ(shares[2].cores, Cores{4});
  EXPECT_EQ(shares[3].cores, Cores{6});
}

TEST(DealCores, FewerCoresThanRanksGoRound) {
  auto ranks = node_of({kFour, kFour, kFour});
  for (auto& rank : ranks) {
    rank.cores = {3, 5};
  }
  const auto shares = deal(ranks);
  EXPECT_EQ(shares[0].cores, Cores{3});
  EXPECT_EQ(shares[1].cores, Cores{5});
  EXPECT_EQ(shares[2].cores, Cores{3});
}

TEST(DealCores, AnUnknownPlaceIsSaidAndSharesWhatTheOthersLeave) {
  auto ranks = two_sockets();
  for (auto& rank : ranks) {
    rank.gpus[3].near.reset();
  }
  const auto shares = deal(ranks);
  EXPECT_EQ(shares[2], (CoreShare{{8, 10, 12, 14}, ""})) << "alone near the second memory node";
  EXPECT_NE(shares[3].note.find("does not tell"), std::string::npos) << shares[3].note;
  EXPECT_EQ(shares[3].cores.size(), 8U) << "no core is left, so it shares all";
  const std::vector all_unknown = node_of({kFour, kFour});
  EXPECT_EQ(deal(all_unknown)[0].cores, (Cores{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(deal(all_unknown)[1].cores, (Cores{8, 9, 10, 11, 12, 13, 14, 15}));
}

TEST(DealCores, AtMostEightEach) {
  auto ranks = node_of({kFour});
  ranks[0].cores.resize(96);
  std::iota(ranks[0].cores.begin(), ranks[0].cores.end(), 0);
  EXPECT_EQ(deal(ranks)[0].cores, (Cores{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(DealCores, WhatIsDealtAgainStaysAsItIs) {
  for (auto ranks : {two_sockets(), node_of({kFour, kFour, kFour})}) {
    for (auto& rank : ranks) {
      rank.cores.pop_back();  // an odd number of cores
    }
    const auto once = deal(ranks);
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      ranks[r].cores = once[r].cores;
    }
    EXPECT_EQ(deal(ranks), once);
  }
}

TEST(DealCores, NodesAreDealtApart) {
  const auto shares = deal(node_of({{"GPU-a"}}) + node_of({{"GPU-b"}}, 1));
  EXPECT_EQ(shares[0].cores, shares[1].cores);
}

}  // namespace
}  // namespace moevar::fleet
