#include "system/pci.hpp"

#include <fmt/format.h>

namespace moevar::pci {

std::string to_string(const Address& address) {
  return fmt::format("{:04x}:{:02x}:{:02x}.0", address.domain, address.bus, address.device);
}

}  // namespace moevar::pci
