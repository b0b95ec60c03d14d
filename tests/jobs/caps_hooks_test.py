#!/usr/bin/env python3
"""The prologue and the epilogue of jobs/slurm: by hand, and called by a real Slurm as jobs start and end."""

import os
import subprocess
import unittest

from slurm_case import MOEVAR, ONE, ROOT, SMALL, SlurmCase
from fake_nvml import FakeGpus

HOOKS = {"prologue": ROOT / "jobs/slurm/prolog-caps-check.sh", "epilogue": ROOT / "jobs/slurm/epilog-caps-restore.sh"}


class Hooks(SlurmCase):
    NODES = 2

    def more_configuration(self):
        """Hooks as an administrator installs them; Slurm gives them no environment, so wrappers name the fake GPUs."""
        self.gpus = FakeGpus(self.dir / "gpus", 1)
        self.state = self.dir / "state"
        self.hook_environment = {"MOEVAR": MOEVAR, **self.gpus.environment(self.state)}
        lines = "".join(f"export {key}={value}\n" for key, value in self.hook_environment.items())
        for name, script in HOOKS.items():
            wrapper = self.write(name, f"#!/bin/bash\n{lines}echo {name} of $SLURM_JOB_ID >>{self.dir}/called\n"
                                       f"exec bash {script}\n")
            wrapper.chmod(0o755)
        return f"Prolog={self.dir}/prologue\nEpilog={self.dir}/epilogue\nPrologFlags=Alloc"

    def dead_run(self, refuse=0):
        left = self.gpus.left_behind(self.state, 0)
        self.gpus.set(0, requested_mw=400_000, refuse=refuse)
        return left

    def hook(self, name):
        return subprocess.run(["bash", HOOKS[name]], env={**os.environ, **self.hook_environment}, capture_output=True,
                              timeout=60).returncode

    def test_by_hand(self):
        for name in HOOKS:
            with self.subTest(name):
                self.assertEqual(self.hook(name), 0, "nothing to do")
                left = self.dead_run(refuse=1)
                self.assertEqual(self.hook(name), 1, "the limit cannot be put back: drain the node")
                self.assertTrue(left.exists())
                self.gpus.set(0, refuse=0)
                self.assertEqual(self.hook(name), 0)
                self.assertEqual(self.gpus.limits_w()[0], (700, 700))
                self.dead_run()
                self.gpus.set(0, requested_mw=555_000)
                self.assertEqual(self.hook(name), 0, "somebody else's limit is no reason to drain")
                self.assertEqual(self.gpus.limits_w()[0], (555, 555))
                subprocess.run([MOEVAR, "caps", "restore", "--forget"], env={**os.environ, **self.hook_environment},
                               check=True, stdout=subprocess.DEVNULL)
                self.hook_environment["MOEVAR"] = str(self.dir / "absent")
                self.assertEqual(self.hook(name), 0, "a node without the program")
                self.hook_environment["MOEVAR"] = MOEVAR

    def test_a_limit_left_behind_is_healed_before_the_job(self):
        left = self.dead_run()
        job = self.submit(ONE, self.write("small.toml", SMALL), self.dir / "out", REPORT="no")
        self.assert_over(job, "COMPLETED")
        self.assertFalse(left.exists())
        self.assertEqual(self.gpus.limits_w()[0], (700, 700))
        self.assertIn(f"prologue of {job}\n", (self.dir / "called").read_text())
        self.cluster.wait(job, 20, until=lambda: f"epilogue of {job}\n" in (self.dir / "called").read_text())

    def test_a_limit_that_cannot_be_put_back_drains_the_node(self):
        self.dead_run(refuse=1)
        job = self.submit(ONE, self.write("small.toml", SMALL), self.dir / "out", "--nodelist=node1", REPORT="no")
        self.cluster.wait(job, 30, until=lambda: self.cluster.states()["node1"].startswith("drain"))
        self.assertFalse((self.dir / "out").exists(), "the job did not start")


if __name__ == "__main__":
    unittest.main()
