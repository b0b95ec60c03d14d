#!/usr/bin/env bash
# Collects what tests/gpu/run.sh starts, stripped, into one folder for a host that cannot build it.
#
#   bash tests/gpu/pack.sh BUILD DIR
set -euo pipefail
build=${1:?usage: tests/gpu/pack.sh BUILD DIR}
to=${2:?usage: tests/gpu/pack.sh BUILD DIR}
mkdir -p "$to"
find "$build" -type f -perm -u+x \( -name moevar -o -name burn_curve -o -name '*_cuda_test' -o -name '*_gpu_test' \
  -o -name '*_gpu_mpi_test' -o -name '*_cuda_bench' -o -name '*_gpu_bench' \) | while read -r program; do
  strip -o "$to/${program##*/}" "$program"
done
echo "$to: $(find "$to" -type f | wc -l) programs, $(du -sh "$to" | cut -f1)"
