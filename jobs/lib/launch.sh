# Sourced by jobs/workstation.sh and by the batch scripts of jobs/slurm/: where the program is, what a run's folder
# holds, what a machine's cores are worth. $home is the folder that jobs/ and analysis/ lie in.

# find_moevar : path of the program, $MOEVAR first; status 1 where there is none
find_moevar() {
  local candidate
  for candidate in "${MOEVAR:-}" "$home/build/moevar" "$home/../../bin/moevar"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
      realpath "$candidate"
      return
    fi
  done
  return 1
}

# find_python : the first Python that has what the analysis needs, $PYTHON first; status 1 where there is none
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 /usr/bin/python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import h5py, matplotlib, numpy, pandas, scipy' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# find_study FILE : FILE, or the study of that name in $home; status 1 where there is none
find_study() {
  local candidate
  for candidate in "$1" "$home/$1" "$home/jobs/studies/$1"; do
    if [ -f "$candidate" ]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# finished_phases DIR : how many phases the run in DIR has recorded since it began; 0 where it is whole or not begun
finished_phases() {
  [ -d "$1/phases" ] || { echo 0; return; }
  find "$1/phases" -maxdepth 1 -name '[0-9]*.h5' | wc -l
}

# is_complete DIR : whether the run in DIR is whole
is_complete() {
  grep -qs '"complete": *true' "$1/manifest.json"
}

# physical_cores : how many cores this process may use; two hardware threads of a core are one
physical_cores() {
  local allowed
  allowed=$(taskset -cp $$ | sed 's/.*: //')
  # --parse: CPU,CORE
  lscpu --parse=CPU,CORE | awk -F, -v allowed="$allowed" '
    BEGIN {
      parts = split(allowed, part, ",")
      for (i = 1; i <= parts; i++) {
        n = split(part[i], ends, "-")
        for (cpu = ends[1]; cpu <= ends[n]; cpu++) usable[cpu + 0] = 1
      }
    }
    !/^#/ && ($1 + 0) in usable && !($2 in seen) { seen[$2] = 1; cores++ }
    END { print cores + 0 }'
}

# mpirun_binding RANKS CORES-PER-RANK CORES : mpirun's options for RANKS ranks on a node of CORES cores, one a line.
# BIND=none leaves ranks where the system puts them.
mpirun_binding() {
  if [ "${BIND:-core}" != none ] && [ $(($1 * $2)) -le "$3" ]; then
    printf '%s\n' --map-by "ppr:$1:node:pe=$2" --bind-to core
  else
    printf '%s\n' --oversubscribe --map-by "ppr:$1:node" --bind-to none
  fi
}

# one_thread_pool THREADS : what numerical libraries may use, in each rank
one_thread_pool() {
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$1} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-$1}
}

launcher='' alarms=() status=0 interrupted=no

# start_launcher COMMAND... : starts mpirun or srun in the background; its process id in $launcher. Until it has its own
# handler for SIGUSR1 that signal is lost on it instead of ending it.
start_launcher() {
  (
    trap '' USR1
    exec "$@"
  ) &
  launcher=$!
}

# wait_for_launcher : waits until it has ended, whatever signals come meanwhile; its exit status in $status
wait_for_launcher() {
  while :; do
    interrupted=no
    status=0
    wait "$launcher" || status=$?
    [ "$interrupted" = yes ] || break
  done
  trap '' USR1 TERM HUP INT  # what follows is short, and no signal for the ranks any more
  [ ${#alarms[@]} -eq 0 ] || kill "${alarms[@]}" 2>/dev/null || true
}

# forward SIGNAL : to the launcher, which forwards it to every rank; for a trap
forward() {
  interrupted=yes
  kill -s "$1" "$launcher" 2>/dev/null || true
}

# signal_after SECONDS SIGNAL : to the launcher, if it still runs then
signal_after() {
  (
    trap - USR1 HUP INT
    sleep "$1" </dev/null >/dev/null &
    trap 'kill $!' TERM
    wait $! && kill -s "$2" "$launcher"
  ) 2>/dev/null &
  alarms+=($!)
  disown $!  # nobody needs to hear of its end
}
