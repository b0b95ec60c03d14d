#include <array>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>
#include <hdf5.h>

#include "fuzz.hpp"
#include "record/recorded_run.hpp"
#include "record/seal.hpp"
#include "system/hdf5.hpp"

/// The files of finished phases that --resume goes on from. Of an input's first byte an odd number
/// cuts and changes the bytes of a whole file, which must then not count as whole: HDF5 never sees
/// it. An even number is the begin of a recipe for files that are HDF5 and sealed as they must be,
/// whose objects may be of any type, shape and value, or not there.
namespace {

using namespace moevar;
namespace fs = std::filesystem;

constexpr hsize_t kDevices = 2;
constexpr hsize_t kExperts = 4;
constexpr hsize_t kLayers = 3;
constexpr hsize_t kSlots = 6;
constexpr hsize_t kPoints = 4;

/// The input; zeros after its end, of which everything is as it must be.
class Recipe {
 public:
  explicit Recipe(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  unsigned next() {
    if (bytes_.empty()) {
      return 0;
    }
    const auto byte = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  std::uint64_t number(int bytes) {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) {
      value = value << 8U | next();
    }
    return value;
  }
  std::string text(std::size_t most) {
    const auto taken = bytes_.first(std::min(most, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return {taken.begin(), taken.end()};
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

/// A folder of this process's own, as a run has it.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / fmt::format("moevar-fuzz-{}", ::getpid())) {
    fs::create_directories(path_ / "phases");
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }
  [[nodiscard]] fs::path file(const std::string& name) const { return path_ / "phases" / name; }

 private:
  fs::path path_;
};

study::PhaseSpec spec() {
  study::PhaseSpec phase;
  phase.devices = kDevices;
  phase.experts = kExperts;
  phase.slots_per_device = kSlots / kDevices;
  phase.policy = "eplb";
  return phase;
}

std::string right_cell() {
  const auto phase = spec();
  record::CellSummary cell;
  cell.devices = phase.devices;
  cell.heat = study::to_string(phase.condition.heat);
  cell.workload = "synthetic";
  cell.policy = phase.policy;
  cell.experts = phase.experts;
  return record::to_json_text(cell);
}

hid_t text_type(std::size_t length) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, length);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

/// A type that the reader does not expect, to be closed.
hid_t other_type(Recipe& recipe) {
  constexpr hsize_t kThree = 3;
  switch (recipe.next() % 12) {
    case 0:
      return H5Tcopy(H5T_NATIVE_INT8);
    case 1:
      return H5Tcopy(H5T_NATIVE_UINT64);
    case 2:
      return H5Tcopy(H5T_NATIVE_FLOAT);
    case 3:
      return H5Tcopy(H5T_NATIVE_LDOUBLE);
    case 4:
      return text_type(recipe.next() + 1);
    case 5:
      return text_type(H5T_VARIABLE);
    case 6:
      return H5Tvlen_create(H5T_NATIVE_INT);
    case 7: {
      const hid_t type = H5Tcreate(H5T_COMPOUND, 16);
      H5Tinsert(type, "a", 0, H5T_NATIVE_INT);
      H5Tinsert(type, "b", 8, H5T_NATIVE_DOUBLE);
      return type;
    }
    case 8:
      return H5Tenum_create(H5T_NATIVE_INT);
    case 9:
      return H5Tcreate(H5T_OPAQUE, recipe.next() + 1);
    case 10:
      return H5Tarray_create2(H5T_NATIVE_INT, 1, &kThree);
    default:
      return H5Tcopy(H5T_STD_REF_OBJ);
  }
}

/// A shape that the reader may not expect, to be closed: no axis, no value, a few values, many.
hid_t other_space(Recipe& recipe, bool large) {
  const unsigned axes = recipe.next() % 6;
  if (axes == 4) {
    return H5Screate(H5S_NULL);
  }
  if (axes == 5) {
    return H5Screate(H5S_SCALAR);
  }
  std::vector<hsize_t> extents;
  for (unsigned axis = 0; axis < axes; ++axis) {
    extents.push_back(large ? recipe.number(5) : recipe.next() % 8);
  }
  return extents.empty() ? H5Screate(H5S_SCALAR)
                         : H5Screate_simple(static_cast<int>(axes), extents.data(), nullptr);
}

/// Chunks that make a space of any size cost nothing until it is written.
hid_t chunks_of(hid_t space) {
  const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
  const int axes = H5Sget_simple_extent_ndims(space);
  if (axes > 0) {
    const std::vector<hsize_t> chunk(static_cast<std::size_t>(axes), 4);
    H5Pset_chunk(list, axes, chunk.data());
    H5Pset_deflate(list, 1);
  }
  return list;
}

/// What a dataset or an attribute is made of, to be closed.
struct Made {
  hid_t type = -1;
  hid_t space = -1;
  bool as_it_must_be = true;

  void close() const {
    H5Tclose(type);
    H5Sclose(space);
  }
};

/// Type and space of something: as they must be, or others.
Made make(Recipe& recipe, hid_t type, const std::vector<hsize_t>& shape, bool large) {
  const unsigned what = recipe.next() % 8;
  const bool other = what == 1 || what == 3;
  const bool elsewhere = what == 2 || what == 3;
  const hid_t own = shape.empty()
                        ? H5Screate(H5S_SCALAR)
                        : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  if (!elsewhere) {
    return {other ? other_type(recipe) : H5Tcopy(type), own, !other};
  }
  H5Sclose(own);
  return {other ? other_type(recipe) : H5Tcopy(type), other_space(recipe, large), false};
}

template <class T>
void put_attribute(Recipe& recipe, hid_t where, const char* name, hid_t type, T value) {
  const unsigned what = recipe.next() % 8;
  if (what == 1) {
    return;
  }
  if constexpr (std::is_integral_v<T>) {
    if (what == 2) {
      value = static_cast<T>(recipe.number(8));
    }
  }
  const auto made = make(recipe, type, {}, false);
  const hid_t attribute = H5Acreate2(where, name, made.type, made.space, H5P_DEFAULT, H5P_DEFAULT);
  if (attribute >= 0 && made.as_it_must_be) {
    H5Awrite(attribute, type, &value);
  }
  if (attribute >= 0) {
    H5Aclose(attribute);
  }
  made.close();
}

/// What stands in the place of an object; false: the object itself.
bool put_instead(Recipe& recipe, hid_t where, const char* name) {
  switch (recipe.next() % 16) {
    case 1:
      return true;  // nothing
    case 2:
      H5Gclose(H5Gcreate2(where, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
      return true;
    case 3:
      H5Lcreate_soft(name, where, name, H5P_DEFAULT, H5P_DEFAULT);
      return true;
    case 4:
      H5Lcreate_soft("/phase/placement/slot_share", where, name, H5P_DEFAULT, H5P_DEFAULT);
      return true;
    case 5:
      H5Lcreate_external("0000.h5", "/", where, name, H5P_DEFAULT, H5P_DEFAULT);
      return true;
    case 6:
      H5Lcreate_external("nowhere.h5", "/", where, name, H5P_DEFAULT, H5P_DEFAULT);
      return true;
    case 7: {
      const hid_t type = H5Tcopy(H5T_NATIVE_INT);
      H5Tcommit2(where, name, type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      H5Tclose(type);
      return true;
    }
    default:
      return false;
  }
}

template <class T>
void put(Recipe& recipe, hid_t where, const char* name, hid_t type,
         const std::vector<hsize_t>& shape, std::vector<T> values) {
  if (put_instead(recipe, where, name)) {
    return;
  }
  const unsigned changed = recipe.next() % 8;
  for (unsigned i = 0; i < changed && !values.empty(); ++i) {
    auto& value = values[recipe.next() % values.size()];
    const std::uint64_t bits = recipe.number(sizeof(T));
    std::copy_n(std::bit_cast<std::array<std::byte, 8>>(bits).begin(), sizeof(T),
                std::bit_cast<std::byte*>(&value));
  }
  const bool large = recipe.next() % 2 == 1;
  const auto made = make(recipe, type, shape, large);
  const hid_t list = large ? chunks_of(made.space) : H5Pcreate(H5P_DATASET_CREATE);
  const hid_t dataset =
      H5Dcreate2(where, name, made.type, made.space, H5P_DEFAULT, list, H5P_DEFAULT);
  if (dataset >= 0 && made.as_it_must_be) {
    H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  }
  if (dataset >= 0) {
    H5Dclose(dataset);
  }
  H5Pclose(list);
  made.close();
}

/// A group, or what stands in its place: then -1.
hid_t put_group(Recipe& recipe, hid_t where, const char* name) {
  return put_instead(recipe, where, name)
             ? -1
             : H5Gcreate2(where, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
}

void put_resume(Recipe& recipe, hid_t file) {
  const hid_t group = put_group(recipe, file, "resume");
  if (group < 0) {
    return;
  }
  const auto cell = recipe.next() % 4 == 1 ? recipe.text(64) : right_cell();
  const hid_t text = text_type(H5T_VARIABLE);
  put_attribute(recipe, group, "cell", text, cell.c_str());
  H5Tclose(text);
  put_attribute(recipe, group, "speeds_from", H5T_NATIVE_INT64, std::int64_t{0});
  put<std::uint8_t>(recipe, group, "state", H5T_NATIVE_UINT8, {3}, {1, 2, 3});
  H5Gclose(group);
}

void put_phase(Recipe& recipe, hid_t file) {
  const hid_t phase = put_group(recipe, file, "phase");
  if (phase < 0) {
    return;
  }
  if (const hid_t speeds = put_group(recipe, phase, "speed_model"); speeds >= 0) {
    put<double>(recipe, speeds, "tokens", H5T_NATIVE_DOUBLE, {kDevices, kPoints},
                {1, 2, 4, 8, 1, 2, 4, 8});
    put<double>(recipe, speeds, "time_us", H5T_NATIVE_DOUBLE, {kDevices, kPoints},
                {5, 6, 8, 9, 5, 6, 7, 8});
    H5Gclose(speeds);
  }
  if (const hid_t placement = put_group(recipe, phase, "placement"); placement >= 0) {
    put_attribute(recipe, placement, "slots_per_device", H5T_NATIVE_INT64,
                  static_cast<std::int64_t>(kSlots / kDevices));
    std::vector<std::int32_t> experts;
    std::vector<double> shares;
    for (hsize_t layer = 0; layer < kLayers; ++layer) {
      experts.insert(experts.end(), {0, 1, 2, 3, 0, 1});
      shares.insert(shares.end(), {0.5, 0.25, 1.0, 1.0, 0.5, 0.75});
    }
    put(recipe, placement, "physical_to_logical_map", H5T_NATIVE_INT32, {kLayers, kSlots}, experts);
    put(recipe, placement, "slot_share", H5T_NATIVE_DOUBLE, {kLayers, kSlots}, shares);
    put<double>(recipe, placement, "predicted_us", H5T_NATIVE_DOUBLE, {kLayers}, {9, 9, 9});
    put<double>(recipe, placement, "lower_bound_us", H5T_NATIVE_DOUBLE, {kLayers}, {8, 8, 8});
    H5Gclose(placement);
  }
  H5Gclose(phase);
}

void put_fleet(Recipe& recipe, hid_t file) {
  const hid_t fleet = put_group(recipe, file, "fleet");
  if (fleet < 0) {
    return;
  }
  for (const char* name : {"device", "node", "slot"}) {
    put<std::int32_t>(recipe, fleet, name, H5T_NATIVE_INT32, {kDevices}, {0, 1});
  }
  const hid_t text = text_type(sizeof(std::uint32_t));
  for (const char* name : {"kind", "uuid", "name", "host"}) {
    put<std::uint32_t>(recipe, fleet, name, text, {kDevices}, {0x616263U, 0x64656667U});
  }
  H5Tclose(text);
  H5Gclose(fleet);
}

template <class Fill>
void write_sealed(const fs::path& path, const Fill& fill) {
  {
    const auto file = hdf5::File::create(path, record::kSealBytes);
    fill(file.raw());
  }
  record::seal(path);
}

/// Reads everything that --resume reads of a folder.
void read_all(const fs::path& folder) {
  std::optional<record::RecordedRun> run;
  if (!fuzz::accepted([&] { run.emplace(folder, std::vector{spec()}); })) {
    return;
  }
  fuzz::accepted([&] { (void)run->fleet(); });
  if (run->phases() == 0) {
    return;
  }
  fuzz::accepted([&] { (void)run->state(0); });
  fuzz::accepted([&] {
    fuzz::require(run->speeds(0).size() == kDevices, "speeds of another number of devices");
  });
  fuzz::accepted([&] {
    const auto placement = run->placement(0);
    fuzz::require(
        placement.layers() * placement.slots() == static_cast<int>(placement.share_of_slot.size()),
        "a placement of another shape");
  });
}

/// A whole file's bytes, cut and changed by the recipe.
void check_damage(const Folder& folder, Recipe& recipe) {
  static const std::string whole = [&] {
    Recipe nothing({});
    write_sealed(folder.file("0000.h5"), [&](hid_t file) {
      put_resume(nothing, file);
      put_phase(nothing, file);
    });
    std::ifstream file(folder.file("0000.h5"), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  auto bytes = whole;
  if (recipe.next() % 4 == 1) {
    bytes.resize(recipe.number(2) % (2 * whole.size()));
  }
  for (unsigned changes = recipe.next() % 16; changes > 0 && !bytes.empty(); --changes) {
    bytes[recipe.number(2) % bytes.size()] = static_cast<char>(recipe.next());
  }
  std::ofstream(folder.file("0000.h5"), std::ios::binary) << bytes;
  const record::RecordedRun run(folder.path(), {spec()});
  const bool same = bytes == whole;
  fuzz::require(run.phases() == (same ? 1 : 0) && run.damaged().has_value() != same,
                "a file that was changed counts as whole, or one that was not does not");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  Recipe recipe({data, size});
  if (recipe.next() % 2 == 1) {
    check_damage(folder, recipe);
    return 0;
  }
  write_sealed(folder.file("0000.h5"), [&](hid_t file) {
    put_resume(recipe, file);
    put_phase(recipe, file);
  });
  write_sealed(folder.file("fleet.h5"), [&](hid_t file) { put_fleet(recipe, file); });
  read_all(folder.path());
  return 0;
}
