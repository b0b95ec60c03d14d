# Sourced by the scripts of jobs/ and by tests/run.sh: what moevar needs from Debian 12, and how to get it.

BUILD_PACKAGES=(
  g++ cmake ninja-build ccache pkg-config git ca-certificates
  libopenmpi-dev openmpi-bin libhdf5-dev libhwloc-dev libopenblas-dev
  libtomlplusplus-dev libcli11-dev libfmt-dev nlohmann-json3-dev libssl-dev
)
TEST_PACKAGES=(
  libgtest-dev libbenchmark-dev libhdf5-openmpi-dev hdf5-tools
  clang clang-format clang-tidy libclang-rt-dev python3 python3-h5py python3-numpy python3-scipy
  python3-matplotlib python3-pandas chromium slurm-wlm munge
)

# install_missing PACKAGE... : asks the network only when something is missing
install_missing() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "missing: ${missing[*]}; install them, or run as root" >&2; return 3; }
    sudo=(sudo)
  fi
  echo "installing: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
}

# fetch_cutlass FOLDER : CUTLASS's headers into a build folder's cutlass/, where CUDA's compiler is and no CUTLASS yet. They
# are an option: without them, or without a network, cuBLASLt makes all matrix products.
fetch_cutlass() {
  local to=$1/cutlass
  if [ -n "${CUTLASS_ROOT:-}" ] || [ -d "$to" ] ||
    ! { command -v nvcc || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; } >/dev/null ||
    python3 -c "import importlib.util as i, sys; sys.exit(i.find_spec('cutlass_library') is None)" 2>/dev/null; then
    return 0
  fi
  local wheel
  wheel=$(mktemp -d)
  if timeout 60 python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheel" nvidia-cutlass==4.2.0.0 \
    >/dev/null 2>&1; then
    mkdir -p "$to"
    python3 -m zipfile -e "$wheel"/*.whl "$to"
  else
    echo "CUTLASS could not be fetched: experts' products by cuBLASLt alone"
  fi
  rm -rf "$wheel"
}

# build_moevar : build/moevar, with what it needs installed
build_moevar() {
  install_missing "${BUILD_PACKAGES[@]}" || return
  if [ ! -f build/build.ninja ]; then
    fetch_cutlass build
    cmake --preset release -DMOEVAR_TESTS=OFF >build.log 2>&1 || { cat build.log >&2; return 3; }
    rm -f build.log
  fi
  cmake --build build --target moevar
}

# Open MPI refuses to start as root unless told twice
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
