#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hdf5.h>
#include <mpi.h>

#include "base/error.hpp"

/// HDF5, one thin throwing function per call. A failed call throws LibraryError with the text of
/// HDF5's own error stack; HDF5 itself prints nothing. Objects carry no time stamps, so that equal
/// content makes equal files. Nothing here is collective but File::create_shared, what is done
/// through such a file, and Transfer::collective.
namespace moevar::hdf5 {

/// Whether HDF5 is its MPI build (MOEVAR_PARALLEL_HDF5), which create_shared needs.
bool parallel() noexcept;

/// "1.10.8".
std::string library_version();

using Shape = std::vector<hsize_t>;

/// HDF5's type of a C++ element; files hold the same type, little-endian on every machine that
/// moevar builds on.
template <class T>
hid_t type_of() = delete;
template <>
inline hid_t type_of<double>() {
  return H5T_NATIVE_DOUBLE;
}
template <>
inline hid_t type_of<std::int64_t>() {
  return H5T_NATIVE_INT64;
}
template <>
inline hid_t type_of<std::uint64_t>() {
  return H5T_NATIVE_UINT64;
}
template <>
inline hid_t type_of<std::int32_t>() {
  return H5T_NATIVE_INT32;
}
template <>
inline hid_t type_of<std::uint32_t>() {
  return H5T_NATIVE_UINT32;
}
template <>
inline hid_t type_of<std::uint8_t>() {
  return H5T_NATIVE_UINT8;
}

/// An identifier that this object owns. The destructor closes it and drops errors; where unwritten
/// data hang on it, call close(). An identifier that HDF5 refuses to close is left alone after
/// that.
class Handle {
 public:
  using Closer = herr_t (*)(hid_t);

  /// Throws LibraryError, naming `call`, where `id` is no identifier.
  Handle(hid_t id, Closer closer, std::string_view call,
         SourceLocation where = SourceLocation::current());
  ~Handle();
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  [[nodiscard]] hid_t raw() const noexcept { return id_; }
  void close();

 private:
  hid_t id_ = H5I_INVALID_HID;
  Closer closer_ = nullptr;
};

/// What can bear attributes.
class Object : public Handle {
 public:
  using Handle::Handle;

  /// UTF-8 text of any length.
  void set_attribute(const std::string& name, const std::string& text) const;
  void set_attribute(const std::string& name, const char* text) const {
    set_attribute(name, std::string(text));
  }
  template <class T>
  void set_attribute(const std::string& name, T value) const {
    set_raw_attribute(name, type_of<T>(), nullptr, &value);
  }
  /// One-dimensional.
  template <class T>
  void set_attribute(const std::string& name, std::span<const T> values) const {
    const hsize_t length = values.size();
    set_raw_attribute(name, type_of<T>(), &length, values.data());
  }

  [[nodiscard]] bool has_attribute(const std::string& name) const;
  [[nodiscard]] std::string text_attribute(const std::string& name) const;
  template <class T>
  [[nodiscard]] T attribute(const std::string& name) const {
    T value{};
    get_raw_attribute(name, type_of<T>(), 1, &value);
    return value;
  }
  template <class T>
  [[nodiscard]] std::vector<T> array_attribute(const std::string& name) const {
    std::vector<T> values(attribute_size(name));
    get_raw_attribute(name, type_of<T>(), values.size(), values.data());
    return values;
  }

 private:
  void set_raw_attribute(const std::string& name, hid_t type, const hsize_t* length,
                         const void* data) const;
  [[nodiscard]] std::size_t attribute_size(const std::string& name) const;
  void get_raw_attribute(const std::string& name, hid_t type, std::size_t count, void* data) const;
};

/// Whether a rank transfers by itself, or with all ranks of a shared file.
enum class Transfer { independent, collective };

class Dataset : public Object {
 public:
  using Object::Object;

  [[nodiscard]] Shape shape() const;

  /// All of it.
  template <class T>
  void write(std::span<const T> values) const {
    write_block(type_of<T>(), {}, shape(), values.size(), values.data(), Transfer::independent);
  }
  /// The block of `count` elements along each axis from `offset` on. A `count` with a zero in it
  /// writes nothing and takes part in a collective transfer all the same.
  template <class T>
  void write(std::span<const T> values, const Shape& offset, const Shape& count,
             Transfer transfer = Transfer::independent) const {
    write_block(type_of<T>(), offset, count, values.size(), values.data(), transfer);
  }
  /// All of it. Throws EnvironmentError where the file cannot hold as much as the shape says.
  template <class T>
  [[nodiscard]] std::vector<T> read() const {
    require_stored(sizeof(T));
    std::vector<T> values(size());
    read_all(type_of<T>(), values.data());
    return values;
  }
  [[nodiscard]] std::vector<std::string> read_texts() const;

 private:
  [[nodiscard]] std::size_t size() const;
  void write_block(hid_t type, const Shape& offset, const Shape& count, std::size_t given,
                   const void* data, Transfer transfer) const;
  void read_all(hid_t type, void* data) const;
  void require_stored(std::size_t element_bytes) const;
};

/// How a dataset lies in the file. No chunk: in one piece, uncompressed. With a chunk, `deflate` 1
/// to 9 is gzip's level behind a byte shuffle; 0 is none.
struct Layout {
  Shape chunk;
  unsigned deflate = 0;
};

class Group;

/// What holds objects: a group, or a file's root.
class Location : public Object {
 public:
  using Object::Object;

  [[nodiscard]] Group create_group(const std::string& name) const;
  [[nodiscard]] Group group(const std::string& name) const;
  template <class T>
  [[nodiscard]] Dataset create_dataset(const std::string& name, const Shape& shape,
                                       const Layout& layout = {}) const {
    return create_raw_dataset(name, type_of<T>(), shape, layout);
  }
  /// One-dimensional, fixed length (of the longest), UTF-8, padded with zeros.
  [[nodiscard]] Dataset create_texts(const std::string& name, std::span<const std::string> texts,
                                     const Layout& layout = {}) const;
  [[nodiscard]] Dataset dataset(const std::string& name) const;
  [[nodiscard]] bool has(const std::string& name) const;
  /// Copies `source`'s object with all below it; chunks go over as they lie, still compressed.
  void copy_from(const Location& source, const std::string& source_name,
                 const std::string& name) const;
  /// `file` relative to the folder of the file that holds the link.
  void link_external(const std::string& name, const std::string& file,
                     const std::string& object) const;
  /// A second name for what lies at `path` of the same file.
  void link_hard(const std::string& name, const std::string& path) const;
  /// Takes a name away; what it named stays where another one names it.
  void unlink(const std::string& name) const;

 private:
  [[nodiscard]] Dataset create_raw_dataset(const std::string& name, hid_t type, const Shape& shape,
                                           const Layout& layout) const;
};

class Group : public Location {
 public:
  using Location::Location;
};

class File : public Location {
 public:
  /// Empties what is there. `user_block`: bytes before HDF5's own that it leaves alone, 0 or a
  /// power of two from 512 on.
  static File create(const std::filesystem::path& path, hsize_t user_block = 0);
  /// All ranks of `comm` open one file through MPI-IO; from then on, every call that changes its
  /// structure is collective. Throws EnvironmentError where HDF5 is not its MPI build.
  static File create_shared(const std::filesystem::path& path, MPI_Comm comm,
                            hsize_t user_block = 0);
  static File open(const std::filesystem::path& path);
  static File open_to_write(const std::filesystem::path& path);

  void flush() const;
  /// Flushes and closes. It does not fsync: files::publish does.
  void close();

 private:
  using Location::Location;
};

}  // namespace moevar::hdf5
