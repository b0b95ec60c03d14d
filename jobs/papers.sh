#!/usr/bin/env bash
# Runs every study of jobs/studies/papers, one rank each and as many side by side as there are cores, and makes the
# page that puts ViBE's and GEM's claims beside what came out.
#
#   bash jobs/papers.sh [OUT]     OUT: folder for the runs, a folder each (results/papers); the page: OUT/page
#
#   TRACES=FOLDER   with SGLang's expert-count records of DeepSeek-V3: adds what runs on recorded loads
#   PAGE=FOLDER     where papers.html and papers.json go instead
#   JOBS=N          so many side by side
#   STUDIES=FOLDER  another list of runs (runs.txt) and its study files
#   MOEVAR, PYTHON  the program and what runs the analysis; without MOEVAR what is missing is installed and built
#
# A run that is whole is not run again, one that is not goes on where it stood. A run that fails is named, the others go
# on, and the page says that it is missing; the exit status is then 1.
set -uo pipefail

absolute() { (cd "$1" && pwd); }

[ -z "${TRACES:-}" ] || TRACES=$(absolute "$TRACES") || exit 2
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
studies=${STUDIES:-jobs/studies/papers}
[ -r "$studies/runs.txt" ] || { echo "papers.sh: $studies: no runs.txt that can be read" >&2; exit 2; }
out=${1:-results/papers}
mkdir -p "$out" || exit 2
source jobs/lib/install.sh
moevar=${MOEVAR:-}
if [ -z "$moevar" ]; then
  build_moevar >&2 || exit
  moevar=build/moevar
fi
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
failed=$scratch/failed

run_one() {   # NAME FILE [section.key=value]...
  local name=$1 file=$2 started=$SECONDS
  shift 2
  grep -qs '"complete": *true' "$out/$name/summary.json" && return
  local settings=()
  for setting in "$@"; do settings+=(--set "${setting//\{traces\}/${TRACES:-}}"); done
  if nice "$moevar" run "$studies/$file" "${settings[@]}" --out "$out/$name" --resume >"$out/$name.log" 2>&1; then
    echo "$name: $((SECONDS - started)) s"
  else
    echo "$name: failed: $(grep '^moevar' "$out/$name.log" || tail -n 1 "$out/$name.log")" | tee -a "$failed" >&2
  fi
}

while read -r line; do
  case $line in '#'* | '') continue ;; esac
  if [[ $line == *'{traces}'* && -z ${TRACES:-} ]]; then continue; fi
  read -ra words <<<"$line"
  while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-$(nproc)}" ]; do wait -n; done
  run_one "${words[@]}" &
done <"$studies/runs.txt"
wait
times >"$scratch/times"   # here, for a subshell has children of its own
echo "runs done after $SECONDS s; their processor time, user and system: $(sed -n 2p "$scratch/times")"
"${PYTHON:-python3}" analysis/papers.py "$out" --studies "$studies" --out "${PAGE:-$out/page}" || exit
[ ! -s "$failed" ]
