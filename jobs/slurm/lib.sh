# Sourced by the batch scripts here. It runs one study as a job that may run out of time, be pre-empted or lose nodes:
# nothing that a finished phase recorded is lost, and the job goes on where it stood.
#
# What a job does is said by variables, what it gets by sbatch's own options:
#
#   STUDY         study file (jobs/studies/quickstart.toml); also looked for in $MOEVAR_HOME
#   OUT           the run's folder (results/JOBNAME-JOBID)
#   SETTINGS      "section.key=value ...": overrides of the study, without spaces inside
#   POWER_CAPS    "700,500": short for SETTINGS="conditions.power_cap_w=[700,500]"
#   LAUNCHER      mpirun | srun (srun --mpi=pmix)
#   BIND          none: ranks are not bound to cores by mpirun (core)
#   GRACE         seconds between Slurm's warning and the end of a phase that does not finish (240)
#   MAX_TRIES     how many starts in a row may bring no phase (3)
#   HANG_LIMIT    seconds until ranks that do not arrive end the run; the program's own limit where unset
#   REPORT        no: no report at the end
#   SITE          a file sourced first: module load, network settings, ...
#   MOEVAR_HOME   the folder that jobs/ lies in (the folder of submission); MOEVAR: the program; PYTHON: the analysis'
set -euo pipefail
shopt -s nullglob
trap '' USR1  # until somebody can be told
source "$home/jobs/lib/launch.sh"

say() { echo "$(date -u +%FT%TZ) moevar job $SLURM_JOB_ID: $*"; }

refuse() {
  say "$*" >&2
  exit 2
}

# Slurm's warning (--signal=B:USR1@SECONDS): the running phase is finished, or given up after GRACE seconds.
on_warning() {
  say "SIGUSR1: the time is nearly over; the running phase has ${GRACE} s to finish"
  forward USR1
  signal_after "$GRACE" USR1
}

# scancel, pre-emption, or a lost node: whoever sent it decides whether the job comes back. As a rule Slurm has sent it
# to mpirun and all ranks too, and mpirun takes a second one for an order to leave its ranks behind.
on_end() {
  ended=yes
  interrupted=yes
  say "SIGTERM: the job ends now; finished phases are kept"
  signal_after 5 TERM
}

# prepare : checks the settings; in $command what the launcher starts
prepare() {
  # shellcheck disable=SC1090
  [ -z "${SITE:-}" ] || source "$SITE"
  moevar=$(find_moevar) || refuse "no program: build it into $home/build, or set MOEVAR"
  STUDY=${STUDY:-jobs/studies/quickstart.toml}
  study=$(find_study "$STUDY") || refuse "STUDY=$STUDY: no such file"
  OUT=${OUT:-results/$SLURM_JOB_NAME-$SLURM_JOB_ID}
  LAUNCHER=${LAUNCHER:-mpirun} GRACE=${GRACE:-240} MAX_TRIES=${MAX_TRIES:-3}
  command=("$moevar" run "$study" --out "$OUT" --resume)
  local setting settings
  read -ra settings <<<"${SETTINGS:-}"  # [8] is no pattern of file names
  [ -z "${POWER_CAPS:-}" ] || settings+=("conditions.power_cap_w=[$POWER_CAPS]")
  for setting in "${settings[@]}"; do
    command+=(--set "$setting")
  done
  [ -z "${HANG_LIMIT:-}" ] || command+=(--hang-limit "$HANG_LIMIT")
  export MOEVAR_PROGRESS=${MOEVAR_PROGRESS:-lines}
  if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
}

# choose_launcher : in $launch_line how $command is started. Ranks are Slurm's tasks.
choose_launcher() {
  local nodes=$SLURM_JOB_NUM_NODES ranks=${SLURM_NTASKS:-1} cores
  local per_node=$((ranks / nodes)) threads=${SLURM_CPUS_PER_TASK:-1}
  [ $((per_node * nodes)) -eq "$ranks" ] || refuse "$ranks tasks do not divide over $nodes nodes; use --ntasks-per-node"
  one_thread_pool "$threads"
  case $LAUNCHER in
    mpirun)
      cores=$(physical_cores)
      mapfile -t binding < <(mpirun_binding "$per_node" "$threads" "$cores")
      launch_line=(mpirun -np "$ranks" "${binding[@]}")
      ;;
    srun)
      launch_line=(srun --mpi=pmix "--ntasks=$ranks" "--ntasks-per-node=$per_node" "--cpus-per-task=$threads"
                   --kill-on-bad-exit=1)
      ;;
    *) refuse "LAUNCHER=$LAUNCHER: must be mpirun or srun" ;;
  esac
  say "${launch_line[*]} ${command[*]}"
}

# lost_nodes : those of the job's nodes that Slurm knows to be down
lost_nodes() {
  sinfo -h -N -n "$SLURM_JOB_NODELIST" -t down,no_respond,fail -o %N 2>/dev/null | sort -u | xargs
}

# is_bound_to_nodes : whether the run has phases of real devices, which a later start must find again
is_bound_to_nodes() {
  [ "$(finished_phases "$OUT")" -gt 0 ] && grep -Eqs '"device": *"(cpu|cuda)"' "$OUT/summary.json"
}

# requeue : gives the job back to Slurm; for real devices to be started on the nodes that the run began on. Slurm ends
# this script for it.
requeue() {
  trap '' TERM
  scontrol requeue "$SLURM_JOB_ID" || { say "scontrol requeue failed; submit the same again to go on" >&2; return; }
  if is_bound_to_nodes; then
    if scontrol update "JobId=$SLURM_JOB_ID" "ReqNodeList=$(cat "$OUT/slurm-nodes")"; then
      say "the job waits for $(cat "$OUT/slurm-nodes"): a run goes on with the devices that it began with"
    fi
  fi
}

# check_nodes : at a start of a run that has phases of real devices; other nodes go back
check_nodes() {
  if is_bound_to_nodes && [ -f "$OUT/slurm-nodes" ]; then
    [ "$(cat "$OUT/slurm-nodes")" != "$SLURM_JOB_NODELIST" ] || return 0
    status=3
    go_on "on $SLURM_JOB_NODELIST, but the run began on $(cat "$OUT/slurm-nodes")"
  fi
  echo "$SLURM_JOB_NODELIST" >"$OUT/slurm-nodes"
}

# go_on : requeues the job, unless too many starts in a row brought nothing; ends the script
go_on() {  # go_on WHY
  local now gained tries=0 counter="$OUT/starts-without-a-phase"
  now=$(finished_phases "$OUT")
  gained=$((now - before))
  if [ "$gained" -gt 0 ]; then
    rm -f "$counter"
  else
    tries=$(($(cat "$counter" 2>/dev/null || echo 0) + 1))
    echo "$tries" >"$counter"
  fi
  if [ "$tries" -ge "$MAX_TRIES" ]; then
    rm -f "$counter"
    say "$1; not requeued: $tries starts in a row brought no phase ($now are kept in $OUT)" >&2
    exit "$status"
  fi
  say "$1; requeued: $gained phases more, $now in all$([ "$tries" -eq 0 ] || echo ", try $tries of $MAX_TRIES")"
  requeue
  exit "$status"
}

# conclude : what the launcher's exit status means for the job
conclude() {
  local kept down
  kept=$(finished_phases "$OUT")
  if [ "$status" -eq 0 ]; then
    say "complete: $OUT"
    return
  fi
  if [ "$ended" = yes ]; then
    say "ended by SIGTERM with $kept phases in $OUT; submit the same again to go on"
    exit "$status"
  fi
  down=$(lost_nodes) || down=""   # a Slurm that does not answer
  [ -z "$down" ] || go_on "lost node $down (status $status)"
  case $status in
    2) say "not requeued: the study or the settings cannot be used (status 2, see above)" >&2 ;;
    3)
      [ "$kept" -eq "$before" ] || go_on "a rank was lost or hung (status 3)"
      say "not requeued: this environment cannot do what was asked (status 3, see above)" >&2
      ;;
    4) go_on "stopped by a signal with finished phases kept (status 4)" ;;
    5) say "not requeued: a power limit could not be put back (status 5): moevar caps restore" >&2 ;;
    *) go_on "$LAUNCHER broke off (status $status): a rank, a node or $LAUNCHER itself died" ;;
  esac
  exit "$status"
}

# run_study : the whole job but its report
run_study() {
  ended=no
  prepare
  if is_complete "$OUT"; then
    say "complete already: $OUT"
    return
  fi
  mkdir -p "$OUT"
  before=$(finished_phases "$OUT")
  say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST; $before phases are there"
  check_nodes
  choose_launcher
  start_launcher "${launch_line[@]}" "${command[@]}"
  trap on_warning USR1
  trap on_end TERM
  wait_for_launcher
  conclude
}

# make_report PAGE DIR... : the report of these runs, unless REPORT=no
make_report() {
  local page=$1 python
  shift
  [ "${REPORT:-yes}" != no ] || return 0
  python=$(find_python) ||
    { say "no report: no Python with h5py, matplotlib, numpy, pandas and scipy; set PYTHON" >&2; return 3; }
  "$python" "$home/analysis/report.py" "$@" --out "$page"
  "$python" "$home/analysis/table.py" "$@"
  say "report: $page"
}
