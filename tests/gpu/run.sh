#!/usr/bin/env bash
# Everything that needs a GPU, from programs built elsewhere: tests, kernels' figures, small studies. For a host that has
# a driver and CUDA's libraries, but neither Open MPI nor HDF5.
#
#   bash tests/gpu/run.sh OUT [PART...]     PART: tests sanitizer kernels studies burn; all but sanitizer
#
# MOEVAR_PROGRAMS=DIR   programs packed by tests/gpu/pack.sh; else those of build/
# MOEVAR_BUNDLE=DIR     a folder with Open MPI and HDF5 whose env.sh makes them usable; else the host's own are used
#
# Leaves OUT/table.txt, which it prints last, and OUT/results.tar.gz with every log, figure and study. Changes no setting of
# the GPU. Exit status 1 where a test failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$(mkdir -p "${1:?usage: tests/gpu/run.sh OUT [PART...]}" && cd "$1" && pwd)
shift
parts=" ${*:-tests kernels studies burn} "
# shellcheck disable=SC1091
[ -z "${MOEVAR_BUNDLE:-}" ] || source "$MOEVAR_BUNDLE/env.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export MOEVAR_GPU_TESTS=required MOEVAR_PROGRESS=none NCCL_MULTI_RANK_GPU_ENABLE=1
programs=${MOEVAR_PROGRAMS:-build}
raw=$out/raw
rm -rf "$raw"
mkdir -p "$raw"/{tests,kernels,studies}
failed=0

program() { find "$programs" -type f -name "$1" -perm -u+x -print -quit; }
row() { printf '%-44s %-8s %s\n' "$@" | tee -a "$out/table.txt"; }

# What a log says of its failure: moevar's own word, a benchmark's, or the last line.
said() { { grep -e '^moevar: ' -e 'ERROR OCCURRED' -e 'FAILED TEST' "$1" | sed 's/ *ERROR OCCURRED//' || tail -n 1 "$1"; } | tail -n 1; }

# What a log that ends well leaves out; Google Benchmark's programs end with 0 also where a benchmark could not run.
skips() { awk '/SKIPPED \] [0-9]+ tests?,/ {printf ", %d skipped", $4; exit}' "$1"; }

# try NAME LIMIT_S LOG COMMAND... : a row of the table
try() {
  local name=$1 limit=$2 log=$3 begin=$SECONDS
  shift 3
  if timeout "$limit" "$@" >"$log" 2>&1 && ! grep -q 'ERROR OCCURRED' "$log"; then
    row "$name" ok "$((SECONDS - begin)) s$(skips "$log")"
  else
    row "$name" "FAILED" "$((SECONDS - begin)) s, ${log#"$out"/}: $(said "$log" | cut -c1-120)"
    failed=1
  fi
}

run_tests() {  # run_tests [WRAPPER...]
  local test
  while read -r test; do
    try "${test##*/}" 120 "$raw/tests/${test##*/}${1:+.sanitizer}.log" "$@" "$test"
  done < <(find "$programs" -type f -perm -u+x -name '*_cuda_test' -o -type f -perm -u+x -name '*_gpu_test' | sort)
}

run_mpi_tests() {
  local test ranks
  while read -r test; do
    for ranks in 1 2 4; do
      try "${test##*/} np$ranks" 120 "$raw/tests/${test##*/}.np$ranks.log" mpirun -np "$ranks" "$test"
    done
  done < <(find "$programs" -type f -perm -u+x -name '*_gpu_mpi_test' | sort)
}

run_kernels() {
  local bench
  while read -r bench; do
    try "${bench##*/}" 150 "$raw/kernels/${bench##*/}.log" "$bench" --benchmark_min_time=0.05 \
      --benchmark_out="$raw/kernels/${bench##*/}.json" --benchmark_out_format=json
  done < <(find "$programs" -type f -perm -u+x -name '*_cuda_bench' | sort)
  if python3 -c 'import torch' 2>/dev/null; then
    try "expert_ffn beside torch" 150 "$raw/kernels/peers.log" python3 kernels/expert_ffn/peers_bench.py \
      --json "$raw/kernels/expert_ffn_cuda_bench.json"
  fi
}

run_studies() {
  local moevar
  moevar=$(program moevar)
  try "doctor" 30 "$raw/doctor.json" "$moevar" doctor --json
  try "study, 1 rank" 60 "$raw/studies/one.log" "$moevar" run jobs/studies/gpu.toml --out "$raw/studies/one"
  try "study, 1 rank, two-batch overlap" 60 "$raw/studies/overlap.log" "$moevar" run jobs/studies/gpu.toml \
    --set 'fleet.overlap="two-batch"' --set 'placement.policies=["contiguous", "vibe"]' --out "$raw/studies/overlap"
  for ranks in 2 4; do
    try "study, $ranks ranks on one GPU" 60 "$raw/studies/share$ranks.log" mpirun -np "$ranks" "$moevar" run \
      jobs/studies/gpu.toml --share-gpu --set "fleet.devices=[$ranks]" --out "$raw/studies/share$ranks"
  done
  try "study, 4 emulated devices" 90 "$raw/studies/emulated.log" "$moevar" run jobs/studies/gpu-emulated.toml \
    --out "$raw/studies/emulated"
}

: >"$out/table.txt"
row "GPU" "" "$(nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv,noheader 2>/dev/null | head -1)"
case $parts in *" tests "*) run_tests; run_mpi_tests ;; esac
case $parts in *" sanitizer "*) run_tests compute-sanitizer --error-exitcode 1 --leak-check no ;; esac
case $parts in *" kernels "*) run_kernels ;; esac
case $parts in *" studies "*) run_studies ;; esac
case $parts in *" burn "*) try "burn, 2 minutes" 150 "$raw/burn.csv" "$(program burn_curve)" 125 ;; esac

tar -C "$out" -czf "$out/results.tar.gz" raw && rm -rf "$raw"
echo
cat "$out/table.txt"
echo "$((SECONDS)) s; logs, figures and studies: $out/results.tar.gz"
exit "$failed"
