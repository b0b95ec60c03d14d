#!/usr/bin/env bash
# Runs jobs/studies/deepseek-v3-trace.toml on every expert-count file of a folder and prints one table.
#
#   bash jobs/deepseek-v3.sh TRACES [OUT]     TRACES: folder of SGLang's *.json records; OUT: results/deepseek-v3
#
# Installs and builds what is missing. A trace whose run is already whole under OUT is not run again.
set -euo pipefail
shopt -s nullglob
traces=$(cd "${1:?usage: bash jobs/deepseek-v3.sh TRACES [OUT]}" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source jobs/lib/install.sh
build_moevar >&2
out=${2:-results/deepseek-v3}
files=("$traces"/*.json)
[ ${#files[@]} -gt 0 ] || { echo "no *.json in $traces" >&2; exit 2; }
runs=()
for trace in "${files[@]}"; do
  name=$(basename "$trace" .json)
  runs+=("$out/$name")
  grep -qs '"complete": *true' "$out/$name/summary.json" && continue
  mpirun --oversubscribe -np 2 build/moevar run jobs/studies/deepseek-v3-trace.toml \
    --set "workload.path=$trace" --out "$out/$name" >&2
done
python3 analysis/table.py "${runs[@]}"
