# Every library that moevar does not write itself. CUDA is found or left out by itself.
find_package(MPI 3.1 REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(fmt REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)

set(HDF5_PREFER_PARALLEL ${MOEVAR_PARALLEL_HDF5})
if(NOT MOEVAR_PARALLEL_HDF5)
  set(HDF5_NO_FIND_PACKAGE_CONFIG_FILE ON)
endif()
find_package(HDF5 1.10 REQUIRED COMPONENTS C)
if(MOEVAR_PARALLEL_HDF5 AND NOT HDF5_IS_PARALLEL)
  message(FATAL_ERROR "MOEVAR_PARALLEL_HDF5 is on, but HDF5 ${HDF5_VERSION} was built without MPI "
                      "(Debian: libhdf5-openmpi-dev)")
endif()

set(MOEVAR_HAVE_CUDA OFF)
if(MOEVAR_CUDA)
  if(NOT CUDAToolkit_ROOT AND NOT DEFINED ENV{CUDAToolkit_ROOT} AND DEFINED ENV{CUDA_HOME})
    set(CUDAToolkit_ROOT $ENV{CUDA_HOME})  # what modules set; CMake itself does not look at it
  endif()
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND)
    set(MOEVAR_HAVE_CUDA ON)
  endif()
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

message(STATUS "moevar ${PROJECT_VERSION}: HDF5 ${HDF5_VERSION} (parallel: ${HDF5_IS_PARALLEL}), "
               "CUDA: ${MOEVAR_HAVE_CUDA}")
