#pragma once

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::placement {

/// The call throws InputError with a message of one line that holds all the `parts`.
inline void expect_refused(const std::function<void()>& call,
                           const std::vector<std::string>& parts) {
  try {
    call();
    ADD_FAILURE() << "accepted; expected a message with " << parts.front();
  } catch (const InputError& error) {
    const std::string what = error.what();
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    for (const std::string& part : parts) {
      EXPECT_NE(what.find(part), std::string::npos) << "no \"" << part << "\" in: " << what;
    }
  }
}

}  // namespace moevar::placement
