#!/usr/bin/env python3
"""A finished phase survives whatever happens to the next one."""

import os
import random
import signal
import subprocess
import time
import unittest

import h5py

from moevar_cli import ENVIRONMENT, MOEVAR, SMALL, Case

KILLS = 12


class Kill(Case):
    def test_phases_that_were_done_are_there_after_a_kill(self):
        study = self.write("study.toml", SMALL)
        dice = random.Random(20)
        survived = 0
        for attempt in range(KILLS):
            out = self.dir / f"run{attempt}"
            run = subprocess.Popen(
                ["mpirun", "--oversubscribe", "-np", "2", MOEVAR, "run", str(study), "--out", str(out),
                 "--set", "study.repeats=200", "--set", "phases.steps=64"],
                env=dict(ENVIRONMENT, MOEVAR_PROGRESS="lines"), stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True)
            deadline = time.monotonic() + 30
            while not (out / "study.h5").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(dice.uniform(0.0, 1.0))
            os.killpg(run.pid, signal.SIGKILL)
            run.wait(timeout=30)
            # mpirun's ranks are in its process group; none may still write when we look
            subprocess.run(["pkill", "-KILL", "-f", str(out)], check=False)
            time.sleep(0.1)
            finished = sorted(p.stem for p in (out / "phases").glob("[0-9][0-9][0-9][0-9].h5"))
            with h5py.File(out / "study.h5") as file:
                self.assertEqual(file.attrs["complete"], 0)
                names = sorted(file["phases"])
                # a phase on disk may be one that the index does not know yet, never the other way round
                self.assertLessEqual(set(names), set(finished))
                for name in names:
                    self.assertEqual(file["phases"][name]["expert_ns"][...].shape, (8, 64, 3))
            self.assertEqual(finished, [f"{n:04}" for n in range(len(finished))], "in the plan's order, no gap")
            for name in set(finished) - set(names):
                with h5py.File(out / "phases" / f"{name}.h5") as file:
                    self.assertEqual(file["phase/expert_ns"][...].shape, (8, 64, 3))
                    self.assertIn("solve_ms", file["timing"].attrs)
            survived += len(finished)
        print(f"{KILLS} kills, {survived} finished phases, all readable")
        self.assertGreater(survived, 0)

    def test_a_rank_that_fails_alone_ends_all(self):
        # rank 1 gets too little memory for its timelines, rank 0 has enough and would wait for it
        study = self.write("study.toml", SMALL)
        command = f"{MOEVAR} run {study} --out {self.dir / 'out'} --set phases.steps=1000000"
        run = subprocess.run(
            ["mpirun", "--oversubscribe", "-np", "1", *command.split(), ":", "-np", "1", "bash", "-c",
             f"ulimit -v 700000; exec {command}"], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        lines = [line for line in run.stderr.splitlines() if line.startswith("moevar: ")]
        self.assertEqual(run.returncode, 3, run.stderr)
        self.assertIn("out of memory (rank 1 on ", lines[0])
        for line in lines[1:]:  # the other rank, as mpirun ends it
            self.assertIn("SIGTERM", line)


if __name__ == "__main__":
    unittest.main()
