#!/usr/bin/env bash
# A study on this machine under mpirun, with as many ranks as it has use for, each bound to cores of its own.
#
#   bash jobs/workstation.sh STUDY.toml [--out DIR] [--resume] [OPTION of moevar run...]
#
# Ranks: on GPUs one for each that CUDA_VISIBLE_DEVICES leaves; on CPU cores (device "cpu") one a physical core;
# modelled GPUs are shared out over the physical cores. Never more than the study has devices; RANKS=N sets it, and
# BIND=none leaves ranks unbound.
# Without --out a run goes to results/NAME-OF-THE-FILE, or the next free name; with --resume to the first of these.
#
# Ctrl-C once finishes the running phase and stops; twice stops at once. Finished phases are kept: --resume goes on.
set -euo pipefail
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$home/jobs/lib/launch.sh"

refuse() {  # refuse STATUS TEXT
  echo "workstation.sh: $2" >&2
  exit "$1"
}

[ $# -gt 0 ] || refuse 2 "usage: bash jobs/workstation.sh STUDY.toml [--out DIR] [--resume] [OPTION of moevar run...]"
study=$(find_study "$1") || refuse 2 "$1: no such file"
shift
out='' resume=no
options=() plan_options=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift ;;
    --out=*) out=${1#*=} ;;
    --set) plan_options+=(--set "${2:?--set needs section.key=value}"); options+=(--set "$2"); shift ;;
    --set=*) plan_options+=("$1"); options+=("$1") ;;
    *) [ "$1" != --resume ] || resume=yes; options+=("$1") ;;
  esac
  shift
done

moevar=$(find_moevar) || {
  source "$home/jobs/lib/install.sh"
  (cd "$home" && build_moevar) >&2
  moevar=$home/build/moevar
}
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# what the study runs on, and the largest number of devices it asks for
plan=$("$moevar" plan "$study" "${plan_options[@]}") || exit
read -r kind most < <(awk '$1 == "devices" { kind = $2; sub(",", "", kind); next }
                           kind && !NF { exit }
                           kind && $1 + 0 > most { most = $1 + 0 }
                           END { print kind, most + 0 }' <<<"$plan")

# GPUs that this process may use
visible_gpus() {
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c '[^[:space:]]' || true
  else
    nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ' || true
  fi
}

cores=$(physical_cores)
if [ "$kind" = cuda ]; then
  can=$(visible_gpus)
  [ "$can" -gt 0 ] || refuse 3 "the study asks for GPUs, and none is visible (CUDA_VISIBLE_DEVICES, nvidia-smi)"
  what="$can GPU(s)"
else
  can=$cores
  what="$cores physical core(s)"
fi
ranks=${RANKS:-$((most < can ? most : can))}
[[ $ranks =~ ^[1-9][0-9]*$ ]] || refuse 2 "RANKS=$ranks: must be a number from 1 on"
threads=1
if [ "$kind" = cuda ] && [ "$cores" -gt "$ranks" ]; then
  threads=$((cores / ranks))  # the rest of a GPU's cores serve its rank's library threads
fi
one_thread_pool "$threads"
mapfile -t binding < <(mpirun_binding "$ranks" "$threads" "$cores")

if [ -z "$out" ]; then
  name=results/$(basename "$study" .toml)
  out=$name n=1
  while [ "$resume" = no ] && [ -e "$out" ]; do n=$((n + 1)); out=$name-$n; done
fi
[ -t 2 ] && export MOEVAR_PROGRESS=${MOEVAR_PROGRESS:-bar}  # a rank cannot see the terminal through mpirun

command=(mpirun -np "$ranks" "${binding[@]}" "$moevar" run "$study" --out "$out" "${options[@]}")
echo "$most $kind device(s), $what: $ranks rank(s) of $threads core(s), bound to ${binding[-1]}"
echo "${command[*]}"

stops=0
# once: the running phase is finished; twice: at once; then mpirun itself is ended, and its status tells nothing more
on_interrupt() {
  stops=$((stops + 1))
  case $stops in
    1) echo "workstation.sh: finishing the running phase; Ctrl-C again stops at once" >&2; forward USR1 ;;
    2) forward USR1 ;;
    *) forward TERM ;;
  esac
}

# what SIGUSR1 twice does; mpirun tells them apart when they come apart
stop_at_once() {
  while [ "$stops" -lt 2 ]; do
    stops=$((stops + 1))
    forward USR1
    sleep 0.5
  done
  signal_after 10 TERM
}
start_launcher setsid "${command[@]}"
trap on_interrupt INT USR1
trap stop_at_once TERM HUP
wait_for_launcher
[ "$status" -ne 4 ] || echo "workstation.sh: stopped; what is finished lies in $out, and --resume goes on" >&2
exit "$status"
