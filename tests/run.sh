#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that this machine can run. Safe to repeat.
#
#   bash tests/run.sh           everything
#   bash tests/run.sh REGEX     tests of the release build whose name matches
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source jobs/lib/install.sh
install_missing "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"

# a clone elsewhere finds what another one compiled
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

build() {  # build PRESET [CMAKE-OPTION...]
  local preset=$1
  shift
  echo "== build $preset ($SECONDS s)"
  cmake --preset "$preset" -DMOEVAR_TESTS=ON "$@" >"configure-$preset.log" 2>&1 ||
    { cat "configure-$preset.log" >&2; exit 1; }
  rm -f "configure-$preset.log"
  cmake --build --preset "$preset" -- --quiet
}

test_build() {  # test_build FOLDER CTEST-OPTIONS...
  local folder=$1
  shift
  echo "== test $folder ($SECONDS s)"
  # tests of several ranks, and those that time something, run alone all the same
  # one more than there are cores: a job on a Slurm mostly waits
  ctest --test-dir "$folder" --parallel "$(($(nproc) + 1))" --output-on-failure --no-tests=error "$@"
}

fetch_cutlass build
build release
if [ $# -gt 0 ]; then
  test_build build -R "$1"
  exit
fi

build debug
test_build build-debug -L unit
# Open MPI unloads its plug-ins before the leak check, which then cannot tell their leaks from ours
ASAN_OPTIONS=detect_leaks=0 test_build build-debug -L mpi

build parallel-hdf5 -DMOEVAR_CUDA=OFF   # as on a machine without CUDA
test_build build-parallel-hdf5 -R 'record|cli.(study|cpu|kill)'

# readers of files, from the committed inputs and a new seed each time
build fuzz -DMOEVAR_TESTS=OFF
test_build build-fuzz -L fuzz

test_build build
