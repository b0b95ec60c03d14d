#!/usr/bin/env bash
# Runs jobs/studies/deepseek-v3-trace.toml on every expert-count file of a folder and prints one table.
#
#   bash jobs/deepseek-v3.sh TRACES [OUT]     TRACES: folder of SGLang's *.json records; OUT: results/deepseek-v3
set -euo pipefail
traces=$(cd "${1:?usage: bash jobs/deepseek-v3.sh TRACES [OUT]}" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source jobs/lib/install.sh
out=${2:-results/deepseek-v3}
runs=()
for trace in "$traces"/*.json; do
  name=$(basename "$trace" .json)
  mpirun --oversubscribe -np 2 build/moevar run jobs/studies/deepseek-v3-trace.toml \
    --set "workload.path=$trace" --out "$out/$name" >&2
  runs+=("$out/$name")
done
python3 analysis/table.py "${runs[@]}"
