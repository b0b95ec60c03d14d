#include <vector>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "workload/load_file.hpp"

namespace moevar::workload {
namespace {

TEST(LoadsFile, DenseLayersAreLeftOut) {
  const auto loads = parse_loads(R"({"logical_count": [[[0, 0], [1, 2], [0, 0], [0, 0]],
                                                        [[0, 0], [3, 4], [0, 0], [5, 0]]]})",
                                 "a.json");
  EXPECT_EQ(loads.layers, (std::vector<std::int64_t>{1, 3}));
  EXPECT_EQ(loads.model_layers, 4);
  ASSERT_EQ(loads.counts.shape(), (std::array<std::size_t, 3>{2, 2, 2}));
  EXPECT_EQ(loads.counts(0, 0, 1), 2.0);
  EXPECT_EQ(loads.counts(1, 0, 0), 3.0);
  EXPECT_EQ(loads.counts(0, 1, 0), 0.0);  // a layer that another step uses
  EXPECT_EQ(loads.counts(1, 1, 0), 5.0);
}

TEST(LoadsFile, CsvKeepsItsOwnNumbers) {
  const auto loads = parse_loads("layer,expert,count\n7,0,1\n7,1,2\n3,0,5\n3,1,6\n", "a.csv");
  EXPECT_EQ(loads.layers, (std::vector<std::int64_t>{3, 7}));
  EXPECT_EQ(loads.model_layers, 8);
  EXPECT_EQ(loads.counts(0, 1, 1), 2.0);
}

TEST(LoadsFile, SomeLayerMustHaveTokens) {
  EXPECT_THROW(parse_loads(R"({"logical_count": [[0, 0]]})", "a.json"), InputError);
}

}  // namespace
}  // namespace moevar::workload
