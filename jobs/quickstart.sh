#!/usr/bin/env bash
# Installs what is missing, builds moevar into build/, runs jobs/studies/quickstart.toml under several MPI
# ranks and shows its table.
#
#   bash jobs/quickstart.sh [OUT]     OUT: folder for study.h5 and summary.json (results/quickstart)
#
# Without OUT a second run takes the next free name: no result is ever overwritten.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source jobs/lib/install.sh

build_moevar

out=${1:-}
if [ -z "$out" ]; then
  out=results/quickstart
  n=1
  while [ -e "$out" ]; do n=$((n + 1)); out=results/quickstart-$n; done
fi
ranks=$(nproc)
ranks=$((ranks < 2 ? 2 : ranks > 8 ? 8 : ranks))
[ -t 2 ] && export MOEVAR_PROGRESS=bar   # a rank cannot see the terminal through mpirun
echo "ready after $SECONDS s"
echo "mpirun -np $ranks build/moevar run jobs/studies/quickstart.toml --out $out"
exec mpirun --oversubscribe -np "$ranks" build/moevar run jobs/studies/quickstart.toml --out "$out"
