#!/usr/bin/env bash
# Slurm epilogue: puts back power limits that a run of moevar left behind on this node. Slurm runs
# epilogues as root on every node of a job when the job is over, whatever ended it.
#
#   install -m 755 jobs/slurm/epilog-caps-restore.sh /etc/slurm/epilog.d/60-moevar   on every node
#   slurm.conf:  Epilog=/etc/slurm/epilog.d/*
#   MOEVAR below, or in /etc/default/moevar: where the program lies on the nodes
#
# A non-zero end drains the node, so only a limit that could not be put back gives one: the next
# job would run under it. GPUs that another job's run still holds are left alone.
set -uo pipefail

[ ! -r /etc/default/moevar ] || . /etc/default/moevar
MOEVAR="${MOEVAR:-/usr/local/bin/moevar}"

if [ ! -x "$MOEVAR" ]; then
    logger -t moevar "epilogue: $MOEVAR is not there; power limits were not looked at"
    exit 0
fi
said="$(timeout 120 "$MOEVAR" caps restore 2>&1)"
status=$?
logger -t moevar "job ${SLURM_JOB_ID:-unknown}: ${said//$'\n'/; } (status $status)"
# 3: a living run's, or an administrator's limit, by its message. 5: a dead run's limit is still there,
# and its guardian may hang. 124: the driver hangs.
case "$status" in
    0 | 3) exit 0 ;;
    *) exit 1 ;;
esac
