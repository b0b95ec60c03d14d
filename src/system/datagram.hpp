#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <sys/socket.h>
#include <vector>

/// UDP: packets that may be lost, between processes of one job. Nothing here is collective.
namespace moevar::datagram {

/// Who can be sent to.
struct Address {
  sockaddr_storage bytes{};
  socklen_t length = 0;
};

/// One socket with a port of its own, for IPv4.
class Socket {
 public:
  /// Throws EnvironmentError.
  Socket();
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  [[nodiscard]] std::uint16_t port() const;
  /// Whether the system took it; a lost packet is not noticed.
  bool send(std::span<const std::byte> packet, const Address& to) const noexcept;
  /// Waits until a packet is there, `patience` at most.
  void wait(std::chrono::milliseconds patience) const noexcept;
  /// The next packet that is there, into `room`; its length and sender. A longer one is cut.
  struct Packet {
    std::size_t length = 0;
    Address from;
  };
  std::optional<Packet> receive(std::span<std::byte> room) const noexcept;

 private:
  int fd_ = -1;
};

/// This host's own IPv4 addresses, as text, that of the loopback last.
std::vector<std::string> own_addresses();

/// Throws InputError where `text` is no IPv4 address.
Address address_of(const std::string& text, std::uint16_t port);

}  // namespace moevar::datagram
