#!/usr/bin/env bash
# Fuzzes one target from its committed corpus. What it finds is kept below FOUND, and new inputs in FOUND/NAME/inputs.
#
#   run.sh TARGET-BINARY FOUND SECONDS
#   MERGE=1 run.sh TARGET-BINARY FOUND 0     instead: the corpus grows by those of these inputs that reach new code
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$1 seconds=$3
name=$(basename "$target" _fuzz)
found=$2/$name
corpus=$here/corpus/$name
if [ "${MERGE:-0}" = 1 ]; then
  "$target" -merge=1 "$corpus" "$found/inputs"
  exit
fi
rm -rf "$found"
mkdir -p "$found/inputs"
# a file of up to 64 kB may cost 1 GB and 5 s, sanitizers included but for what they keep back of freed memory
export ASAN_OPTIONS=quarantine_size_mb=32
options=(-max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1
  -artifact_prefix="$found/")
dictionary=$here/dictionaries/$(basename "$name" | sed 's/.*_//').dict
[ ! -f "$dictionary" ] || options+=(-dict="$dictionary")
# targets that need files
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
seed=$RANDOM
echo "$name: seed $seed, $(find "$corpus" -type f | wc -l) inputs to start from"
"$target" -seed="$seed" "${options[@]}" "$found/inputs" "$corpus" 2>&1 |
  grep -av '^#[0-9]*.NEW\|^#[0-9]*.REDUCE\|^#[0-9]*.pulse\|NEW_FUNC'
