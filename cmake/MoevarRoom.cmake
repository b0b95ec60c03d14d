# A room is one library per folder. Its headers are included as "room/header.hpp" and are visible only
# to the rooms that link it: every room has an include path of its own, build/rooms/<room>, that holds
# one link to its folder. A wrong include therefore does not build.

add_library(moevar_flags INTERFACE)
target_compile_options(moevar_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wsign-conversion;-Wold-style-cast;-Wcast-qual>"
  "$<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor;-Woverloaded-virtual;-Wundef;-Werror>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra;-Werror=all-warnings;--expt-relaxed-constexpr;-lineinfo>")
# Without this a processor with fused multiply-add in its base set (aarch64) rounds a * b + c once where
# x86-64 rounds twice, and a placement or a study could differ between machines.
target_compile_options(moevar_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(MOEVAR_SANITIZE)
  target_compile_options(moevar_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${MOEVAR_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  target_link_options(moevar_flags INTERFACE -fsanitize=${MOEVAR_SANITIZE})
endif()
if(MOEVAR_FUZZ)
  target_compile_options(moevar_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# moevar_room(NAME [DIR folder] SOURCES... HEADERS... USES rooms... LIBS libraries... PRIVATE_LIBS ...)
function(moevar_room name)
  cmake_parse_arguments(ROOM "" "DIR" "SOURCES;HEADERS;USES;LIBS;PRIVATE_LIBS" ${ARGN})
  if(NOT ROOM_DIR)
    set(ROOM_DIR ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  set(include_dir ${CMAKE_BINARY_DIR}/rooms/${name})
  file(MAKE_DIRECTORY ${include_dir})
  file(CREATE_LINK ${ROOM_DIR} ${include_dir}/${name} SYMBOLIC)

  if(ROOM_SOURCES)
    add_library(moevar_${name} STATIC ${ROOM_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(moevar_${name} PRIVATE moevar_flags ${ROOM_PRIVATE_LIBS})
  else()
    add_library(moevar_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(moevar_${name} ${scope} ${include_dir})
  foreach(used IN LISTS ROOM_USES)
    target_link_libraries(moevar_${name} ${scope} moevar_${used})
  endforeach()
  target_link_libraries(moevar_${name} ${scope} ${ROOM_LIBS})

  # every header compiles alone
  if(MOEVAR_TESTS AND MOEVAR_HEADER_CHECKS AND ROOM_HEADERS)
    set(checks)
    foreach(header IN LISTS ROOM_HEADERS)
      string(MAKE_C_IDENTIFIER ${header} id)
      set(check ${CMAKE_BINARY_DIR}/header_checks/${name}/${id}.cpp)
      file(CONFIGURE OUTPUT ${check} CONTENT "#include \"${name}/${header}\"\n")
      list(APPEND checks ${check})
    endforeach()
    add_library(moevar_${name}_headers OBJECT ${checks})
    target_link_libraries(moevar_${name}_headers PRIVATE moevar_${name} moevar_flags)
  endif()
endfunction()

# moevar_test(NAME SOURCES... USES rooms... [RANKS 1 2 4] [LABEL unit]): a GoogleTest program. With
# RANKS it is started under mpirun once for every number of ranks; its main() comes from tests/mpi. LABEL gpu: it needs
# a GPU, and its fixtures come from tests/gpu/gpu_test.hpp; CTest calls it skipped, by name, where there is none. Device
# code without a GPU: tests/gpu/emulated_grid.hpp.
function(moevar_test name)
  cmake_parse_arguments(TEST "" "LABEL;TIMEOUT" "SOURCES;USES;LIBS;RANKS" ${ARGN})
  if(NOT MOEVAR_TESTS)
    return()
  endif()
  find_package(GTest REQUIRED)
  if(NOT TEST_LABEL)
    set(TEST_LABEL unit)
  endif()
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 120)
  endif()
  # nothing passed, and its list of the skipped ends what it says: none failed
  set(all_skipped "\\[  PASSED  \\] 0 tests[^[]*(\\[  SKIPPED \\][^[]*)+$")
  set(mpi_labels mpi)
  if(TEST_LABEL STREQUAL "gpu")
    list(APPEND mpi_labels gpu)
  endif()
  add_executable(${name} ${TEST_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/gpu)
  foreach(used IN LISTS TEST_USES)
    target_link_libraries(${name} PRIVATE moevar_${used})
  endforeach()
  target_link_libraries(${name} PRIVATE moevar_flags ${TEST_LIBS} GTest::gtest)
  if(TEST_RANKS)
    target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/mpi/main.cpp)
    target_link_libraries(${name} PRIVATE moevar_system)
    foreach(ranks IN LISTS TEST_RANKS)
      add_test(NAME ${name}.np${ranks}
               COMMAND ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe -np ${ranks}
                       $<TARGET_FILE:${name}>)
      set_tests_properties(${name}.np${ranks} PROPERTIES LABELS "${mpi_labels}" TIMEOUT ${TEST_TIMEOUT}
                           PROCESSORS 2)
      if(TEST_LABEL STREQUAL "gpu")
        # mpirun gives its ranks a terminal, and colours would hide the line that is looked for
        set_tests_properties(${name}.np${ranks} PROPERTIES SKIP_REGULAR_EXPRESSION "${all_skipped}"
                             ENVIRONMENT GTEST_COLOR=no)
      endif()
    endforeach()
  else()
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS ${TEST_LABEL} TIMEOUT ${TEST_TIMEOUT}
                         SKIP_REGULAR_EXPRESSION "${all_skipped}")
  endif()
  target_compile_definitions(${name} PRIVATE
    MOEVAR_SHARED_DATA="${PROJECT_SOURCE_DIR}/../shared/data")
endfunction()

# moevar_benchmark(NAME SOURCES... USES rooms...): a Google Benchmark program, run by hand. One of a GPU takes its timer
# from tests/gpu/gpu_benchmark.hpp.
function(moevar_benchmark name)
  cmake_parse_arguments(BENCH "" "" "SOURCES;USES;LIBS" ${ARGN})
  if(NOT MOEVAR_TESTS)
    return()
  endif()
  find_package(benchmark REQUIRED)
  add_executable(${name} ${BENCH_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/gpu)
  foreach(used IN LISTS BENCH_USES)
    target_link_libraries(${name} PRIVATE moevar_${used})
  endforeach()
  target_link_libraries(${name} PRIVATE moevar_flags ${BENCH_LIBS} benchmark::benchmark
                                        benchmark::benchmark_main)
endfunction()
