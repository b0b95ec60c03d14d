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

# CUDA's own compiler and its run-time library, which is linked statically: a program built with CUDA starts where there is
# no driver. cuBLASLt, NCCL and NVML are loaded when they are first asked for.
set(MOEVAR_HAVE_CUDA OFF)
if(MOEVAR_CUDA)
  if(NOT CUDAToolkit_ROOT AND NOT DEFINED ENV{CUDAToolkit_ROOT} AND DEFINED ENV{CUDA_HOME})
    set(CUDAToolkit_ROOT $ENV{CUDA_HOME})  # what modules set; CMake itself does not look at it
  endif()
  find_package(CUDAToolkit 12.4 QUIET)
  if(CUDAToolkit_FOUND)
    if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
      set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
    endif()
    if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real CACHE STRING "GPUs that device code is compiled for")
    endif()
    enable_language(CUDA)
    if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc takes it
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    set(MOEVAR_HAVE_CUDA ON)
  endif()
endif()

# CUTLASS is headers alone: CUTLASS_ROOT (its repository or an installation), or the Python package nvidia-cutlass, installed
# or unpacked into the build folder's cutlass/.
set(MOEVAR_HAVE_CUTLASS OFF)
# minutes to compile, so not for builds that look for faults of the host's code
if(MOEVAR_HAVE_CUDA AND NOT MOEVAR_SANITIZE AND CMAKE_CUDA_ARCHITECTURES MATCHES "90|^(native|all|all-major)$")
  find_package(Python3 QUIET COMPONENTS Interpreter)
  set(python_cutlass)
  if(Python3_Interpreter_FOUND)
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -c
              "import importlib.util as i; print(i.find_spec('cutlass_library').submodule_search_locations[0])"
      OUTPUT_VARIABLE python_cutlass OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_path(CUTLASS_INCLUDE_DIR cutlass/gemm/group_array_problem_shape.hpp
            HINTS ${CUTLASS_ROOT}/include $ENV{CUTLASS_ROOT}/include ${python_cutlass}/source/include
                  ${CMAKE_BINARY_DIR}/cutlass/cutlass_library/source/include)
  if(CUTLASS_INCLUDE_DIR)
    set(MOEVAR_HAVE_CUTLASS ON)
    add_library(moevar_cutlass INTERFACE)
    target_include_directories(moevar_cutlass SYSTEM INTERFACE ${CUTLASS_INCLUDE_DIR})
  endif()
endif()
if(MOEVAR_HAVE_CUTLASS)
  set(cutlass_found ${CUTLASS_INCLUDE_DIR})
else()
  set(cutlass_found "OFF, experts' products by cuBLASLt alone")
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

message(STATUS "moevar ${PROJECT_VERSION}: HDF5 ${HDF5_VERSION} (parallel: ${HDF5_IS_PARALLEL}), "
               "CUDA: ${MOEVAR_HAVE_CUDA}, CUTLASS: ${cutlass_found}")
