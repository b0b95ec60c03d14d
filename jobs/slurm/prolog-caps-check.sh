#!/usr/bin/env bash
# Slurm prologue: before a job starts, puts back power limits that a dead run of moevar left on this node. Slurm runs
# prologues as root on every node of a job.
#
#   install -m 755 jobs/slurm/prolog-caps-check.sh /etc/slurm/prolog.d/60-moevar     on every node
#   slurm.conf:  Prolog=/etc/slurm/prolog.d/*
#                PrologFlags=Alloc      (as the job is allocated, not at its first step)
#   MOEVAR below, or in /etc/default/moevar: where the program lies on the nodes
#
# It is the epilogue's second chance: a node that was down when its job ended ran no epilogue. A non-zero end drains the
# node and requeues the job, so only a limit that could not be put back gives one. Limits of a living run (a
# node shared by jobs) and those that an administrator set are left alone, and written to the system's log.
set -uo pipefail

[ ! -r /etc/default/moevar ] || . /etc/default/moevar
MOEVAR="${MOEVAR:-/usr/local/bin/moevar}"

if [ ! -x "$MOEVAR" ]; then
    logger -t moevar "prologue: $MOEVAR is not there; power limits were not looked at"
    exit 0
fi
said="$(timeout 60 "$MOEVAR" caps restore 2>&1)"
status=$?
logger -t moevar "prologue of job ${SLURM_JOB_ID:-unknown}: ${said//$'\n'/; } (status $status)"
# 3: a living run's, or an administrator's limit, by its message. 5: a dead run's limit is still there,
# and its guardian may hang. 124: the driver hangs.
case "$status" in
    0 | 3) exit 0 ;;
    *) exit 1 ;;
esac
