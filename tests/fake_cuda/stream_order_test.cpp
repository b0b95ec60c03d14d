#include "stream_order.hpp"

#include <array>

#include <gtest/gtest.h>

namespace moevar::fake {
namespace {

class StreamOrderTest : public testing::Test {
 protected:
  std::string write(const char* stream, std::size_t begin, std::size_t size) {
    const Bytes bytes{memory_.data() + begin, size};
    return order_.use(stream, "a write", {}, std::span(&bytes, 1));
  }
  std::string read(const char* stream, std::size_t begin, std::size_t size) {
    const Bytes bytes{memory_.data() + begin, size};
    return order_.use(stream, "a read", std::span(&bytes, 1), {});
  }

  StreamOrder order_;
  std::array<char, 64> memory_{};
  std::array<char, 4> names_{};
  const char* const first_ = &names_[0];
  const char* const second_ = &names_[1];
  const char* const third_ = &names_[2];
  const char* const host_ = nullptr;
  const char* const event_ = &names_[3];
};

TEST_F(StreamOrderTest, AStreamIsInOrder) {
  EXPECT_EQ(write(first_, 0, 8), "");
  EXPECT_EQ(read(first_, 4, 8), "");
  EXPECT_EQ(write(first_, 2, 20), "");
}

TEST_F(StreamOrderTest, StreamsAreNot) {
  EXPECT_EQ(write(first_, 0, 8), "");
  EXPECT_EQ(read(second_, 8, 8), "") << "other bytes";
  EXPECT_NE(read(second_, 7, 1).find("a read on stream 2 and a write on stream 1"),
            std::string::npos);
  EXPECT_NE(write(second_, 0, 1), "");
}

TEST_F(StreamOrderTest, ReadsOfTheSameAreNoRaceButAWriteAfterThemIs) {
  EXPECT_EQ(read(first_, 0, 8), "");
  EXPECT_EQ(read(second_, 0, 8), "");
  EXPECT_NE(write(second_, 0, 8), "");
}

TEST_F(StreamOrderTest, EventsOrderStreams) {
  EXPECT_EQ(write(first_, 0, 8), "");
  order_.record(event_, first_);
  EXPECT_EQ(write(first_, 8, 8), "");
  order_.wait(second_, event_);
  EXPECT_EQ(read(second_, 0, 8), "");
  EXPECT_NE(read(second_, 8, 8), "") << "queued after the event";
}

TEST_F(StreamOrderTest, AnEventIsAsItWasLastRecorded) {
  order_.wait(second_, event_);  // never
  EXPECT_EQ(write(first_, 0, 8), "");
  order_.record(event_, first_);
  order_.record(event_, third_);
  order_.wait(second_, event_);
  EXPECT_NE(read(second_, 0, 8), "");
}

TEST_F(StreamOrderTest, OrderIsPassedOn) {
  EXPECT_EQ(write(first_, 0, 8), "");
  order_.record(event_, first_);
  order_.wait(second_, event_);
  EXPECT_EQ(read(second_, 32, 1), "");
  order_.record(event_, second_);
  order_.wait(third_, event_);
  EXPECT_EQ(write(third_, 0, 8), "");
}

TEST_F(StreamOrderTest, WhatTheHostHasWaitedForComesBeforeWhatItQueues) {
  EXPECT_EQ(write(first_, 0, 8), "");
  EXPECT_NE(read(host_, 0, 8), "");
  order_.synchronise_stream(first_);
  EXPECT_EQ(read(host_, 0, 8), "");
  EXPECT_EQ(write(second_, 0, 8), "");
  order_.record(event_, second_);
  order_.synchronise_event(event_);
  EXPECT_EQ(write(host_, 0, 8), "");
  EXPECT_EQ(read(third_, 0, 8), "") << "the host's own use came before it queued this";
  order_.synchronise_all();
  EXPECT_EQ(write(first_, 0, 8), "");
}

TEST_F(StreamOrderTest, MemoryThatIsGivenBackIsAnothers) {
  EXPECT_EQ(write(first_, 0, 16), "");
  order_.forget({memory_.data() + 4, 8});
  EXPECT_EQ(write(second_, 4, 8), "");
  EXPECT_NE(write(second_, 0, 4), "");
  EXPECT_NE(write(third_, 12, 4), "");
}

TEST_F(StreamOrderTest, PiecesOfAWriteKeepTheirOwnHistory) {
  EXPECT_EQ(write(first_, 0, 32), "");
  order_.record(event_, first_);
  order_.wait(second_, event_);
  EXPECT_EQ(write(second_, 8, 8), "");
  EXPECT_EQ(read(first_, 0, 8), "");
  EXPECT_EQ(read(first_, 16, 16), "");
  EXPECT_NE(read(first_, 15, 2), "");
}

}  // namespace
}  // namespace moevar::fake
