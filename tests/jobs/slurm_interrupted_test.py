#!/usr/bin/env python3
"""Jobs on a real Slurm that run out of time, lose a node or are told to end keep what was finished, and go on."""

import os
import pathlib
import time
import unittest

import h5py

from slurm_case import MANY, MOEVAR, ONE, PACED, PACED_PHASES, SMALL, SlurmCase


class Interrupted(SlurmCase):
    def setUp(self):
        super().setUp()
        self.study = self.write("paced.toml", PACED)
        self.out = self.dir / "out"
        self.settings["REPORT"] = "no"

    def until_phases(self, job, count, limit_s=60):
        """Waits until the run has recorded `count` phases."""
        self.cluster.wait(job, limit_s, until=lambda: len(self.finished(self.out)) >= count)

    def assert_kept(self, count):
        """study.h5 opens, and holds at least this many phases."""
        with h5py.File(self.out / "study.h5") as file:
            self.assertEqual(file.attrs["complete"], 0)
            self.assertGreaterEqual(len(file["phases"]), count)

    def test_a_time_limit_requeues_the_job_until_it_is_whole(self):
        # Slurm looks every 30 s for limits that come near: it warns 5 to 35 s after a start. 16 phases of 3 s take longer: with so many
        # tokens no machine does in 3 s the 1,024 steps after which a phase may end because more would gain nothing
        job = self.submit(ONE, self.study, self.out, "--time=1", "--signal=B:USR1@25", "--ntasks-per-node=2",
                          SETTINGS="study.repeats=8 phases.time_limit_s=3 workload.tokens_per_device=2048")
        self.cluster.wait(job, 90, until=lambda: int(self.cluster.job(job)["Restarts"]) >= 1)
        self.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=30")  # once is enough
        known = self.assert_over(job, "COMPLETED", limit_s=180)
        said = self.said(job)
        self.assertGreaterEqual(int(known["Restarts"]), 1, said)
        self.assertIn("SIGUSR1: the time is nearly over; the running phase has 240 s to finish", said)
        self.assertRegex(said, r"stopped by a signal .*\(status 4\); requeued: [1-9]\d* phases more")
        self.assertRegex(said, r"start 2 on node1; [1-9]\d* phases are there")
        self.assert_whole(self.out, 16)
        self.assert_each_phase_once(job, 16)

    def lose_and_return(self, launcher):
        """A run of real devices over two nodes; one dies, and comes back when the job waits for it."""
        job = self.submit(MANY, self.study, self.out, "-N2", "--ntasks-per-node=1", LAUNCHER=launcher)
        self.until_phases(job, 2)
        self.cluster.kill_node("node2")
        self.cluster.wait(job, 90, until=lambda: int(self.cluster.job(job)["Restarts"]) >= 1)
        self.cluster.start_node("node2")
        known = self.assert_over(job, "COMPLETED", limit_s=150)
        said = self.said(job)
        self.assertEqual(known["NodeList"], "node[1-2]", said)
        self.assertRegex(said, r"start [23] on node\[1-2\]; [2-5] phases are there")
        self.assert_whole(self.out, PACED_PHASES)
        self.assert_each_phase_once(job, PACED_PHASES)
        # whoever sees it first: the launcher, or Slurm, which ends the batch script
        self.assertRegex(said, rf"({launcher} broke off|lost node node2) .*; requeued: [2-5] phases more"
                               r"|ended by SIGTERM with [2-5] phases")

    def test_a_node_that_dies_under_mpirun(self):
        self.lose_and_return("mpirun")

    def test_a_node_that_dies_under_srun(self):
        self.lose_and_return("srun")

    def test_the_node_of_the_batch_script_dies(self):
        # nobody is left to say anything: Slurm requeues, and modelled GPUs go on wherever there is room
        study = self.write("small.toml", SMALL)
        job = self.submit(MANY, study, self.out, "-N2", SETTINGS="study.repeats=20 phases.steps=64")
        self.until_phases(job, 2)
        self.cluster.kill_node("node1")
        known = self.assert_over(job, "COMPLETED")
        self.assertEqual(known["Restarts"], "1", self.said(job))
        self.assertNotIn("node1", known["NodeList"])
        self.assertRegex(self.said(job), r"start 2 on node\S+; [1-9]\d* phases are there")
        self.assert_whole(self.out, 120)

    def test_scancel_keeps_finished_phases_and_the_next_job_goes_on(self):
        job = self.submit(ONE, self.study, self.out)
        self.until_phases(job, 2)
        self.cluster.run("scancel", job)
        known = self.assert_over(job, "CANCELLED")
        self.assertEqual(known["Restarts"], "0")
        self.assertRegex(self.said(job), r"SIGTERM: the job ends now; finished phases are kept")
        self.cluster.wait(job, 20, until=lambda: self.cluster.states()["node1"] == "idle")
        self.assert_kept(2)
        kept = len(self.finished(self.out))
        again = self.submit(ONE, self.study, self.out)
        self.assert_over(again, "COMPLETED")
        self.assertIn(f"start 1 on node1; {kept} phases are there", self.said(again))
        self.assert_whole(self.out, PACED_PHASES)

    def test_starts_that_bring_no_phase_are_not_repeated_for_ever(self):
        # a phase takes a minute, and is given up a second after each warning
        job = self.submit(ONE, self.study, self.out, GRACE="1", MAX_TRIES="2", SETTINGS="phases.time_limit_s=60")
        for start in (1, 2):
            self.cluster.wait(job, 60, until=lambda: self.ranks_run(start, job))
            self.cluster.run("scancel", "--batch", "--signal=USR1", job)
        known = self.assert_over(job, "FAILED")
        said = self.said(job)
        self.assertEqual((known["ExitCode"], known["Restarts"]), ("4:0", "1"), said)
        self.assertIn("requeued: 0 phases more, 0 in all, try 1 of 2", said)
        self.assertIn("not requeued: 2 starts in a row brought no phase (0 are kept", said)

    def ranks_run(self, start, job):
        """Whether this start of the job has its ranks at work."""
        if f"start {start} on" not in self.said(job):
            return False
        now, program = time.time(), os.path.realpath(MOEVAR)
        ages = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].decode(errors="replace") == program and str(self.out).encode() in words:
                ages.append(now - entry.stat().st_mtime)
        return len(ages) == 2 and min(ages) > 1.0


if __name__ == "__main__":
    unittest.main()
