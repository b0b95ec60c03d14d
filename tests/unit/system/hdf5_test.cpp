#include "system/hdf5.hpp"

#include <cstdio>
#include <filesystem>
#include <numeric>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "system/sha256.hpp"
#include "temporary_folder.hpp"

namespace moevar::hdf5 {
namespace {

class Hdf5Test : public testing::Test {
 protected:
  [[nodiscard]] std::filesystem::path path(const char* name) const { return folder_.path() / name; }
  TemporaryFolder folder_;
};

std::vector<double> count_up(std::size_t n) {
  std::vector<double> values(n);
  std::iota(values.begin(), values.end(), 1.0);
  return values;
}

TEST_F(Hdf5Test, ReadsBackEveryType) {
  {
    auto file = File::create(path("a.h5"));
    const auto put = [&]<class T>(const char* name, const std::vector<T>& values) {
      auto dataset = file.create_dataset<T>(name, {values.size()});
      dataset.write(std::span<const T>(values));
      dataset.close();
    };
    put("double", std::vector<double>{0.1, -1e300});
    put("int64", std::vector<std::int64_t>{-(std::int64_t{1} << 62U)});
    put("uint64", std::vector<std::uint64_t>{~std::uint64_t{0}});
    put("int32", std::vector<std::int32_t>{-7});
    put("uint32", std::vector<std::uint32_t>{4000000000U});
    put("uint8", std::vector<std::uint8_t>{255});
    put("empty", std::vector<double>{});
    const std::vector<std::string> texts{"", "µ", "longer text"};
    file.create_texts("texts", texts).close();
    file.close();
  }
  const auto file = File::open(path("a.h5"));
  EXPECT_EQ(file.dataset("double").read<double>(), (std::vector<double>{0.1, -1e300}));
  EXPECT_EQ(file.dataset("int64").read<std::int64_t>()[0], -(std::int64_t{1} << 62U));
  EXPECT_EQ(file.dataset("uint64").read<std::uint64_t>()[0], ~std::uint64_t{0});
  EXPECT_EQ(file.dataset("int32").read<std::int32_t>()[0], -7);
  EXPECT_EQ(file.dataset("uint32").read<std::uint32_t>()[0], 4000000000U);
  EXPECT_EQ(file.dataset("uint8").read<std::uint8_t>()[0], 255);
  EXPECT_TRUE(file.dataset("empty").read<double>().empty());
  EXPECT_EQ(file.dataset("texts").read_texts(), (std::vector<std::string>{"", "µ", "longer text"}));
}

TEST_F(Hdf5Test, AttributesHoldTextNumbersAndArrays) {
  const std::string long_text(100000, 'x');  // beyond the 64 KiB of an object's header
  {
    auto file = File::create(path("a.h5"));
    const auto group = file.create_group("g");
    group.set_attribute("text", "µs");
    group.set_attribute("long", long_text);
    group.set_attribute("empty", "");
    group.set_attribute("integer", std::int64_t{-5});
    group.set_attribute("real", 0.25);
    const auto values = count_up(3);
    group.set_attribute("array", std::span<const double>(values));
  }
  const auto file = File::open(path("a.h5"));
  const auto group = file.group("g");
  EXPECT_EQ(group.text_attribute("text"), "µs");
  EXPECT_EQ(group.text_attribute("long"), long_text);
  EXPECT_EQ(group.text_attribute("empty"), "");
  EXPECT_EQ(group.attribute<std::int64_t>("integer"), -5);
  EXPECT_EQ(group.attribute<double>("real"), 0.25);
  EXPECT_EQ(group.array_attribute<double>("array"), count_up(3));
  EXPECT_THROW(static_cast<void>(group.attribute<double>("array")), LibraryError);
  EXPECT_FALSE(group.has_attribute("none"));
  EXPECT_THROW(static_cast<void>(group.text_attribute("none")), LibraryError);
}

TEST_F(Hdf5Test, WritesABlockOfACompressedArray) {
  {
    auto file = File::create(path("a.h5"));
    auto dataset = file.create_dataset<double>("x", {4, 3}, {.chunk = {2, 3}, .deflate = 1});
    const auto values = count_up(6);
    dataset.write(std::span<const double>(values), {1, 0}, {2, 3});
    dataset.write(std::span<const double>{}, {0, 0}, {0, 3});
    EXPECT_THROW(dataset.write(std::span<const double>(values), {0, 0}, {1, 3}), LibraryError);
    EXPECT_THROW(dataset.write(std::span<const double>(values), {3, 0}, {2, 3}), LibraryError);
    dataset.close();
    file.close();
  }
  const auto dataset = File::open(path("a.h5")).dataset("x");
  EXPECT_EQ(dataset.shape(), (Shape{4, 3}));
  EXPECT_EQ(dataset.read<double>(), (std::vector<double>{0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0}));
}

TEST_F(Hdf5Test, CopiesGroupsAndFollowsLinksBetweenFiles) {
  {
    const auto part = File::create(path("part.h5"));
    const auto group = part.create_group("g");
    // beyond eight attributes HDF5 would store them apart, where its 1.10 cannot copy text
    for (int i = 0; i < 30; ++i) {
      group.set_attribute("text" + std::to_string(i), "value");
    }
    const auto values = count_up(6);
    group.create_dataset<double>("x", {6}, {.chunk = {4}, .deflate = 1})
        .write(std::span<const double>(values));
  }
  {
    const auto whole = File::create(path("whole.h5"));
    whole.copy_from(File::open(path("part.h5")), "g", "copy");
    whole.link_external("link", "part.h5", "/g");
  }
  const auto whole = File::open(path("whole.h5"));
  EXPECT_EQ(whole.dataset("copy/x").read<double>(), count_up(6));
  EXPECT_EQ(whole.group("copy").text_attribute("text29"), "value");
  EXPECT_EQ(whole.dataset("link/x").read<double>(), count_up(6));
  EXPECT_TRUE(whole.has("copy"));
  EXPECT_FALSE(whole.has("other"));
  EXPECT_THROW(whole.copy_from(whole, "other", "copy2"), LibraryError);
}

TEST_F(Hdf5Test, EqualContentMakesEqualFiles) {
  for (const char* name : {"a.h5", "b.h5"}) {
    const auto file = File::create(path(name));
    const auto values = count_up(4);
    file.create_group("g").create_dataset<double>("x", {4}).write(std::span<const double>(values));
    file.set_attribute("text", "same");
  }
  const auto bytes = [&](const char* name) {
    std::FILE* file = std::fopen(path(name).c_str(), "rb");
    std::string all(std::filesystem::file_size(path(name)), '\0');
    EXPECT_EQ(std::fread(all.data(), 1, all.size(), file), all.size());
    std::fclose(file);
    return all;
  };
  EXPECT_TRUE(bytes("a.h5") == bytes("b.h5"));
}

TEST_F(Hdf5Test, ErrorsSayWhatHdf5SaysOnOneLineAndPrintNothing) {
  testing::internal::CaptureStderr();
  std::string text;
  try {
    File::open(path("absent.h5"));
  } catch (const LibraryError& error) {
    text = error.what();
    EXPECT_EQ(error.status(), ExitStatus::environment);
  }
  EXPECT_NE(text.find("H5Fopen"), std::string::npos) << text;
  EXPECT_NE(text.find("absent.h5"), std::string::npos) << text;
  EXPECT_NE(text.find("No such file or directory"), std::string::npos) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  EXPECT_THROW(File::create("/proc/absent/a.h5"), LibraryError);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(Hdf5Test, SharedFilesNeedTheMpiBuild) {
  if (parallel()) {
    GTEST_SKIP() << "HDF5 is its MPI build: tests/mpi/record uses shared files";
  }
  EXPECT_THROW(File::create_shared(path("a.h5"), MPI_COMM_NULL), EnvironmentError);
}

TEST(Sha256, AgreesWithTheStandard) {
  // FIPS 180-4 examples
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace moevar::hdf5
