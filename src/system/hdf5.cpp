#include "system/hdf5.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::hdf5 {

namespace {

/// HDF5 keeps quiet, and does not flush at exit: a file that could not be written would make it
/// try again and complain. Every way in goes through here.
void set_up() {
  static const bool done = [] {
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  static_cast<void>(done);
}

/// The operating system's reason, where the text holds one, else the text on one line.
std::string reason_in(const std::string& text) {
  constexpr std::string_view kMark = "error message = '";
  const auto begin = text.find(kMark);
  const auto end = begin == std::string::npos ? begin : text.find('\'', begin + kMark.size());
  if (end != std::string::npos) {
    return text.substr(begin + kMark.size(), end - begin - kMark.size());
  }
  auto line = text;
  std::ranges::replace(line, '\n', ' ');
  return line;
}

herr_t collect(unsigned /*position*/, const H5E_error2_t* entry, void* texts) noexcept {
  try {
    static_cast<std::vector<std::string>*>(texts)->push_back(
        reason_in(entry->desc == nullptr ? "" : entry->desc));
    return 0;
  } catch (...) {
    return -1;
  }
}

/// The error stack on one line, from what was asked for down to what went wrong.
std::string error_stack() {
  std::vector<std::string> texts;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, collect, &texts);
  H5Eclear2(H5E_DEFAULT);
  if (texts.empty()) {
    return "no reason given";
  }
  return texts.size() == 1 ? texts.front() : fmt::format("{}: {}", texts.front(), texts.back());
}

void check(herr_t status, std::string_view call, SourceLocation where = SourceLocation::current()) {
  if (status < 0) {
    throw LibraryError(call, error_stack(), where);
  }
}

std::string name_of(hid_t id) {
  const auto length = H5Iget_name(id, nullptr, 0);
  if (length <= 0) {
    return "an object";
  }
  std::string name(static_cast<std::size_t>(length), '\0');
  H5Iget_name(id, name.data(), name.size() + 1);
  return name;
}

Handle properties(hid_t list_class) { return {H5Pcreate(list_class), H5Pclose, "H5Pcreate"}; }

/// No time stamps. All attributes stay in the object's header: HDF5 1.10 crashes where H5Ocopy
/// meets variable-length attributes in the indexed storage that it else takes up beyond eight.
Handle object_properties(hid_t list_class) {
  constexpr unsigned kMostAttributes = 1024;
  auto list = properties(list_class);
  check(H5Pset_attr_phase_change(list.raw(), kMostAttributes, 0), "H5Pset_attr_phase_change");
  check(H5Pset_obj_track_times(list.raw(), false), "H5Pset_obj_track_times");
  return list;
}

/// The format of HDF5 1.10, which all readers in use understand: its groups are small and bear any
/// number of attributes.
Handle file_access() {
  auto list = properties(H5P_FILE_ACCESS);
  check(H5Pset_libver_bounds(list.raw(), H5F_LIBVER_V110, H5F_LIBVER_V110), "H5Pset_libver_bounds");
  return list;
}

Handle file_creation(hsize_t user_block) {
  auto list = object_properties(H5P_FILE_CREATE);
  check(H5Pset_userblock(list.raw(), user_block), "H5Pset_userblock");
  return list;
}

Handle space_of(const Shape& shape) {
  return {H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose,
          "H5Screate_simple"};
}

Handle text_type(std::size_t length) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
  check(H5Tset_size(type.raw(), length), "H5Tset_size");
  check(H5Tset_cset(type.raw(), H5T_CSET_UTF8), "H5Tset_cset");
  if (length != H5T_VARIABLE) {
    check(H5Tset_strpad(type.raw(), H5T_STR_NULLPAD), "H5Tset_strpad");
  }
  return type;
}

std::size_t product(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>{});
}

Handle create_attribute(hid_t object, const std::string& name, hid_t type, hid_t space) {
  const auto call = fmt::format("H5Acreate2 {} of {}", name, name_of(object));
  return {H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, call};
}

Handle open_attribute(hid_t object, const std::string& name) {
  const auto call = fmt::format("H5Aopen {} of {}", name, name_of(object));
  return {H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose, call};
}

std::size_t element_count(const Handle& attribute) {
  const Handle space(H5Aget_space(attribute.raw()), H5Sclose, "H5Aget_space");
  return static_cast<std::size_t>(H5Sget_simple_extent_npoints(space.raw()));
}

}  // namespace

bool parallel() noexcept {
#ifdef MOEVAR_PARALLEL_HDF5
  return true;
#else
  return false;
#endif
}

std::string library_version() {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  set_up();
  check(H5get_libversion(&major, &minor, &release), "H5get_libversion");
  return fmt::format("{}.{}.{}", major, minor, release);
}

Handle::Handle(hid_t id, Closer closer, std::string_view call, SourceLocation where)
    : id_(id), closer_(closer) {
  if (id_ < 0) {
    throw LibraryError(call, error_stack(), where);
  }
}

Handle::~Handle() {
  if (id_ >= 0) {
    closer_(id_);
  }
}

Handle::Handle(Handle&& other) noexcept
    : id_(std::exchange(other.id_, H5I_INVALID_HID)), closer_(other.closer_) {}

Handle& Handle::operator=(Handle&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(closer_, other.closer_);
  return *this;
}

void Handle::close() {
  if (id_ >= 0) {
    const auto id = std::exchange(id_, H5I_INVALID_HID);
    check(closer_(id), "closing an HDF5 object");
  }
}

void Object::set_attribute(const std::string& name, const std::string& text) const {
  const auto type = text_type(H5T_VARIABLE);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
  auto attribute = create_attribute(raw(), name, type.raw(), space.raw());
  const char* pointer = text.c_str();
  check(H5Awrite(attribute.raw(), type.raw(), &pointer), "H5Awrite " + name);
  attribute.close();
}

void Object::set_raw_attribute(const std::string& name, hid_t type, const hsize_t* length,
                               const void* data) const {
  const Handle space(
      length == nullptr ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, length, nullptr), H5Sclose,
      "H5Screate");
  auto attribute = create_attribute(raw(), name, type, space.raw());
  check(H5Awrite(attribute.raw(), type, data), "H5Awrite " + name);
  attribute.close();
}

bool Object::has_attribute(const std::string& name) const {
  const auto found = H5Aexists(raw(), name.c_str());
  check(found, "H5Aexists " + name);
  return found > 0;
}

std::string Object::text_attribute(const std::string& name) const {
  const auto attribute = open_attribute(raw(), name);
  if (element_count(attribute) != 1) {
    throw LibraryError("H5Aread " + name, "it does not hold one text");
  }
  const auto type = text_type(H5T_VARIABLE);
  char* text = nullptr;
  check(H5Aread(attribute.raw(), type.raw(), static_cast<void*>(&text)), "H5Aread " + name);
  std::string copy = text == nullptr ? "" : text;
  H5free_memory(text);
  return copy;
}

std::size_t Object::attribute_size(const std::string& name) const {
  return element_count(open_attribute(raw(), name));
}

void Object::get_raw_attribute(const std::string& name, hid_t type, std::size_t count,
                               void* data) const {
  const auto attribute = open_attribute(raw(), name);
  if (element_count(attribute) != count) {
    throw LibraryError("H5Aread " + name, fmt::format("it does not hold {} elements", count));
  }
  check(H5Aread(attribute.raw(), type, data), "H5Aread " + name);
}

Shape Dataset::shape() const {
  const Handle space(H5Dget_space(raw()), H5Sclose, "H5Dget_space");
  Shape shape(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space.raw())));
  check(H5Sget_simple_extent_dims(space.raw(), shape.data(), nullptr), "H5Sget_simple_extent_dims");
  return shape;
}

std::size_t Dataset::size() const { return product(shape()); }

void Dataset::write_block(hid_t type, const Shape& offset, const Shape& count, std::size_t given,
                          const void* data, Transfer transfer) const {
  const auto call = "H5Dwrite " + name_of(raw());
  if (product(count) != given) {
    throw LibraryError(call, fmt::format("{} elements for a block of {}", given, product(count)));
  }
  const auto memory = space_of(count);
  const Handle target(H5Dget_space(raw()), H5Sclose, "H5Dget_space");
  if (given == 0) {
    check(H5Sselect_none(memory.raw()), "H5Sselect_none");
    check(H5Sselect_none(target.raw()), "H5Sselect_none");
  } else if (!offset.empty()) {
    check(H5Sselect_hyperslab(target.raw(), H5S_SELECT_SET, offset.data(), nullptr, count.data(),
                              nullptr),
          "H5Sselect_hyperslab");
  }
  const auto list = properties(H5P_DATASET_XFER);
  if (transfer == Transfer::collective) {
#ifdef MOEVAR_PARALLEL_HDF5
    check(H5Pset_dxpl_mpio(list.raw(), H5FD_MPIO_COLLECTIVE), "H5Pset_dxpl_mpio");
#endif
  }
  check(H5Dwrite(raw(), type, memory.raw(), target.raw(), list.raw(), data), call);
}

void Dataset::read_all(hid_t type, void* data) const {
  check(H5Dread(raw(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "H5Dread " + name_of(raw()));
}

/// A shape alone may ask for any memory. Elements that are there take room: gzip makes a thousand
/// of one at best, and types can be eight times as large in memory.
void Dataset::require_stored(std::size_t element_bytes) const {
  constexpr double kMostPerByte = 16 * 1032.0;
  constexpr double kSmall = 1 << 20;
  auto bytes = static_cast<double>(element_bytes);
  for (const auto extent : shape()) {
    bytes *= static_cast<double>(extent);
  }
  const auto stored = H5Dget_storage_size(raw());
  if (bytes > kSmall && bytes > kMostPerByte * static_cast<double>(stored)) {
    throw LibraryError(
        "H5Dread " + name_of(raw()),
        fmt::format("{:.0f} bytes by its shape, but the file has {}", bytes, stored));
  }
}

std::vector<std::string> Dataset::read_texts() const {
  const Handle stored(H5Dget_type(raw()), H5Tclose, "H5Dget_type");
  const auto length = H5Tget_size(stored.raw());
  require_stored(length);
  std::string joined(length * size(), '\0');
  read_all(text_type(length).raw(), joined.data());
  std::vector<std::string> texts;
  for (std::size_t begin = 0; begin < joined.size(); begin += length) {
    const auto padded = joined.substr(begin, length);
    texts.push_back(padded.substr(0, padded.find('\0')));
  }
  return texts;
}

Group Location::create_group(const std::string& name) const {
  const auto list = object_properties(H5P_GROUP_CREATE);
  return {H5Gcreate2(raw(), name.c_str(), H5P_DEFAULT, list.raw(), H5P_DEFAULT), H5Gclose,
          "H5Gcreate2 " + name};
}

Group Location::group(const std::string& name) const {
  return {H5Gopen2(raw(), name.c_str(), H5P_DEFAULT), H5Gclose, "H5Gopen2 " + name};
}

Dataset Location::create_raw_dataset(const std::string& name, hid_t type, const Shape& shape,
                                     const Layout& layout) const {
  const auto list = object_properties(H5P_DATASET_CREATE);
  const bool empty = product(shape) == 0;
  if (!layout.chunk.empty() && !empty) {
    check(H5Pset_chunk(list.raw(), static_cast<int>(layout.chunk.size()), layout.chunk.data()),
          "H5Pset_chunk");
    if (layout.deflate > 0) {
      check(H5Pset_shuffle(list.raw()), "H5Pset_shuffle");
      check(H5Pset_deflate(list.raw(), layout.deflate), "H5Pset_deflate");
    }
  }
  const auto space = space_of(shape);
  return {H5Dcreate2(raw(), name.c_str(), type, space.raw(), H5P_DEFAULT, list.raw(), H5P_DEFAULT),
          H5Dclose, "H5Dcreate2 " + name};
}

Dataset Location::create_texts(const std::string& name, std::span<const std::string> texts,
                               const Layout& layout) const {
  std::size_t longest = 1;
  for (const auto& text : texts) {
    longest = std::max(longest, text.size());
  }
  std::string joined(longest * texts.size(), '\0');
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::ranges::copy(texts[i], joined.begin() + static_cast<std::ptrdiff_t>(i * longest));
  }
  const auto type = text_type(longest);
  auto created = create_raw_dataset(name, type.raw(), {texts.size()}, layout);
  check(H5Dwrite(created.raw(), type.raw(), H5S_ALL, H5S_ALL, H5P_DEFAULT, joined.data()),
        "H5Dwrite " + name);
  return created;
}

Dataset Location::dataset(const std::string& name) const {
  return {H5Dopen2(raw(), name.c_str(), H5P_DEFAULT), H5Dclose, "H5Dopen2 " + name};
}

bool Location::has(const std::string& name) const {
  const auto found = H5Lexists(raw(), name.c_str(), H5P_DEFAULT);
  check(found, "H5Lexists " + name);
  return found > 0;
}

void Location::copy_from(const Location& source, const std::string& source_name,
                         const std::string& name) const {
  check(H5Ocopy(source.raw(), source_name.c_str(), raw(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT),
        "H5Ocopy " + source_name);
}

void Location::link_external(const std::string& name, const std::string& file,
                             const std::string& object) const {
  check(H5Lcreate_external(file.c_str(), object.c_str(), raw(), name.c_str(), H5P_DEFAULT,
                           H5P_DEFAULT),
        "H5Lcreate_external " + name);
}

void Location::link_hard(const std::string& name, const std::string& path) const {
  check(H5Lcreate_hard(raw(), path.c_str(), raw(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT),
        "H5Lcreate_hard " + name);
}

void Location::unlink(const std::string& name) const {
  check(H5Ldelete(raw(), name.c_str(), H5P_DEFAULT), "H5Ldelete " + name);
}

File File::create(const std::filesystem::path& path, hsize_t user_block) {
  set_up();
  const auto creation = file_creation(user_block);
  const auto access = file_access();
  return {H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.raw(), access.raw()), H5Fclose,
          "H5Fcreate " + path.string()};
}

File File::create_shared(const std::filesystem::path& path, [[maybe_unused]] MPI_Comm comm,
                         [[maybe_unused]] hsize_t user_block) {
  set_up();
#ifdef MOEVAR_PARALLEL_HDF5
  const auto creation = file_creation(user_block);
  const auto access = file_access();
  check(H5Pset_fapl_mpio(access.raw(), comm, MPI_INFO_NULL), "H5Pset_fapl_mpio");
  return {H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.raw(), access.raw()), H5Fclose,
          "H5Fcreate " + path.string()};
#else
  throw EnvironmentError(
      fmt::format("{} cannot be shared by ranks: this build's HDF5 is serial; configure with "
                  "MOEVAR_PARALLEL_HDF5",
                  path.string()));
#endif
}

File File::open(const std::filesystem::path& path) {
  set_up();
  const auto access = file_access();
  return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.raw()), H5Fclose,
          "H5Fopen " + path.string()};
}

File File::open_to_write(const std::filesystem::path& path) {
  set_up();
  const auto access = file_access();
  return {H5Fopen(path.c_str(), H5F_ACC_RDWR, access.raw()), H5Fclose, "H5Fopen " + path.string()};
}

void File::flush() const { check(H5Fflush(raw(), H5F_SCOPE_GLOBAL), "H5Fflush"); }

void File::close() {
  flush();
  Location::close();
}

}  // namespace moevar::hdf5
