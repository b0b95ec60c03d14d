#include "system/datagram.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstring>
#include <ifaddrs.h>
#include <memory>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::datagram {

namespace {

[[noreturn]] void fail(const char* call) {
  throw EnvironmentError(fmt::format("{}: {}", call, std::generic_category().message(errno)));
}

const sockaddr* raw(const Address& address) noexcept {
  return reinterpret_cast<const sockaddr*>(&address.bytes);
}

Address packed(const sockaddr_in& from) {
  Address address;
  std::memcpy(&address.bytes, &from, sizeof from);
  address.length = sizeof from;
  return address;
}

}  // namespace

Socket::Socket() : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
  if (fd_ < 0) {
    fail("socket");
  }
  // room for thousands of ranks that speak at once; the system may grant less
  constexpr int kRoom = 4 << 20U;
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &kRoom, sizeof kRoom);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  const auto address = packed(any);
  if (::bind(fd_, raw(address), address.length) != 0) {
    const int code = errno;
    ::close(fd_);
    errno = code;
    fail("bind");
  }
}

Socket::~Socket() { ::close(fd_); }

std::uint16_t Socket::port() const {
  Address mine;
  mine.length = sizeof mine.bytes;
  if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&mine.bytes), &mine.length) != 0) {
    fail("getsockname");
  }
  sockaddr_in address{};
  std::memcpy(&address, &mine.bytes, sizeof address);
  return ntohs(address.sin_port);
}

bool Socket::send(std::span<const std::byte> packet, const Address& to) const noexcept {
  return ::sendto(fd_, packet.data(), packet.size(), MSG_NOSIGNAL, raw(to), to.length) ==
         static_cast<ssize_t>(packet.size());
}

void Socket::wait(std::chrono::milliseconds patience) const noexcept {
  pollfd waiting{fd_, POLLIN, 0};
  ::poll(&waiting, 1, static_cast<int>(patience.count()));
}

std::optional<Socket::Packet> Socket::receive(std::span<std::byte> room) const noexcept {
  Packet packet;
  packet.from.length = sizeof packet.from.bytes;
  const auto length =
      ::recvfrom(fd_, room.data(), room.size(), 0, reinterpret_cast<sockaddr*>(&packet.from.bytes),
                 &packet.from.length);
  if (length < 0) {
    return std::nullopt;
  }
  packet.length = static_cast<std::size_t>(length);
  return packet;
}

std::vector<std::string> own_addresses() {
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) {
    fail("getifaddrs");
  }
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> list(first, ::freeifaddrs);
  std::vector<std::string> addresses;
  for (const auto* one = first; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET ||
        (one->ifa_flags & static_cast<unsigned>(IFF_UP)) == 0 ||
        (one->ifa_flags & static_cast<unsigned>(IFF_LOOPBACK)) != 0) {
      continue;
    }
    sockaddr_in address{};
    std::memcpy(&address, one->ifa_addr, sizeof address);
    std::array<char, INET_ADDRSTRLEN> text{};
    if (::inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size()) != nullptr) {
      addresses.emplace_back(text.data());
    }
  }
  addresses.emplace_back("127.0.0.1");
  return addresses;
}

Address address_of(const std::string& text, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (::inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1) {
    throw InputError(fmt::format("{} is no IPv4 address", text));
  }
  return packed(address);
}

}  // namespace moevar::datagram
