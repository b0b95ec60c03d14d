#!/usr/bin/env bash
# Submits a scale ladder: every size of SIZES as a task of a job array, and the report when all of them are over.
#
#   bash jobs/slurm/submit-scale.sh [SBATCH-OPTION...]     all options go to every job: -A ACCOUNT -p PARTITION -t TIME
#
#   SIZES           numbers of devices ("8 16 32 64 128 256 512 1024")
#   STUDY           study file (jobs/studies/scale.toml)
#   OUT             the ladder's folder (results/scale)
#   DEVICE          cuda | cpu | model; the study's own where unset
#   RANKS_PER_NODE  ranks, and with DEVICE=cuda GPUs, on a node (8)
#   AT_ONCE         how many sizes may run at the same time (4)
#
# Modelled GPUs need one node for any size. Real ones need a rank each, so there is an array for every number of nodes.
# Every other variable: jobs/slurm/lib.sh. The same again goes on where the ladder stood.
set -euo pipefail
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$home/jobs/lib/launch.sh"
export MOEVAR_HOME=$home SIZES OUT=${OUT:-results/scale} STUDY=${STUDY:-jobs/studies/scale.toml}
SIZES=${SIZES:-8 16 32 64 128 256 512 1024}
per_node=${RANKS_PER_NODE:-8}

refuse() {
  echo "submit-scale.sh: $*" >&2
  exit 2
}

for size in $SIZES; do
  [[ $size =~ ^[1-9][0-9]*$ ]] || refuse "SIZES=$SIZES: $size is no number of devices"
done
study=$(find_study "$STUDY") || refuse "STUDY=$STUDY: no such file"
if [ -n "${DEVICE:-}" ]; then
  export SETTINGS="${SETTINGS:-} fleet.device=$DEVICE"
  kind=$DEVICE
else
  moevar=$(find_moevar) || refuse "no program: build it into $home/build, or set MOEVAR"
  kind=$("$moevar" plan "$study" | awk '$1 == "devices" { sub(",", "", $2); print $2; exit }')
fi

# nodes and ranks on each that SIZE devices need
shape() {
  if [ "$kind" = model ]; then
    echo "1 $per_node"
  elif [ "$1" -le "$per_node" ]; then
    echo "1 $1"
  else
    [ $(($1 % per_node)) -eq 0 ] || refuse "$1 devices do not divide over nodes of $per_node"
    echo "$(($1 / per_node)) $per_node"
  fi
}

declare -A sizes_of
order=()
for size in $SIZES; do
  key=$(shape "$size")
  [ -n "${sizes_of[$key]:-}" ] || order+=("$key")
  sizes_of[$key]+="$size "
done

dependency=afterany
for key in "${order[@]}"; do
  read -r nodes ranks <<<"$key"
  read -ra sizes <<<"${sizes_of[$key]}"
  gpus=()
  [ "$kind" != cuda ] || gpus=("--gpus-per-node=$ranks")
  job=$(SIZES="${sizes[*]}" sbatch --parsable "--array=0-$((${#sizes[@]} - 1))%${AT_ONCE:-4}" "--nodes=$nodes" \
    "--ntasks-per-node=$ranks" "${gpus[@]}" "$@" "$home/jobs/slurm/scale-array.sbatch")
  job=${job%%;*}
  dependency+=":$job"
  echo "job $job: ${sizes[*]} devices on $nodes node(s) of $ranks rank(s)"
done
report=$(sbatch --parsable "--dependency=$dependency" "$@" "$home/jobs/slurm/report.sbatch")
echo "job ${report%%;*}: report into $OUT/report.html when all are over"
