#pragma once

#include <string>

namespace moevar::pci {

/// Where a device sits on the PCI bus; a GPU's function is always 0.
struct Address {
  unsigned domain = 0;
  unsigned bus = 0;
  unsigned device = 0;
  bool operator==(const Address&) const = default;
};

/// "0000:1b:00.0", as Linux writes it.
std::string to_string(const Address& address);

}  // namespace moevar::pci
