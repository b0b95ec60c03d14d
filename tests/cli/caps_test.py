#!/usr/bin/env python3
"""moevar caps: what it shows, what it puts back, and what it leaves alone."""

import fcntl
import json
import os
import subprocess
import unittest

from fake_nvml import FakeGpus
from moevar_cli import ENVIRONMENT, MOEVAR, ROOT, Case


class Caps(Case):
    def setUp(self):
        super().setUp()
        self.gpus = FakeGpus(self.dir / "gpus", 2)
        self.state = self.dir / "state"
        self.environment = dict(ENVIRONMENT, **self.gpus.environment(self.state))

    def caps(self, *words, **changes):
        return subprocess.run([MOEVAR, "caps", *words], env=dict(self.environment, **changes), capture_output=True,
                              text=True, timeout=60)

    def left_behind(self, gpu, **how):
        return self.gpus.left_behind(self.state, gpu, **how)

    def test_show_tells_limits_and_holders(self):
        self.gpus.set(0, requested_mw=500_000, clamp_mw=550_000)
        self.left_behind(0)
        shown = self.caps("show")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        lines = shown.stdout.splitlines()
        self.assertEqual(len(lines), 3, shown.stdout)
        self.assertEqual(lines[1].split()[1:11], ["200", "W", "700", "W", "700", "W", "500", "W", "550", "W"])
        self.assertIn("nobody; process 4711 left it, 700 W before", lines[1])
        self.assertTrue(lines[2].endswith("nobody"), lines[2])

    def test_without_nvml(self):
        for words in (["show"],):
            run = self.caps(*words, MOEVAR_NVML="/nonexistent.so")
            self.assertEqual(run.returncode, 3)
            self.assertIn("NVML cannot be loaded", run.stderr)

    def test_nothing_to_restore(self):
        run = self.caps("restore")
        self.assertEqual((run.returncode, run.stdout), (0, "no power limits to restore\n"))
        self.assertFalse(self.state.exists(), "looking leaves nothing behind")

    def test_restores_and_says_so(self):
        left = self.left_behind(0)
        self.gpus.set(0, requested_mw=400_000)
        run = self.caps("restore")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(run.stdout, f"{self.gpus.uuids[0]}: 700 W restored\n")
        self.assertEqual(self.gpus.limits_w()[0], (700, 700))
        self.assertFalse(left.exists())

    def test_what_somebody_else_set_stays(self):
        left = self.left_behind(0)
        self.gpus.set(0, requested_mw=555_000)
        run = self.caps("restore")
        self.assertEqual(run.returncode, 3)
        self.assertIn("neither", run.stdout)
        self.assertTrue(left.exists())
        run = self.caps("restore", "--forget")
        self.assertEqual(run.returncode, 0)
        self.assertFalse(left.exists())
        self.assertEqual(self.gpus.limits_w()[0], (555, 555))
        self.assertEqual(self.gpus.get(0, "writes"), 0)

    def test_a_reboot_cleared_it(self):
        left = self.left_behind(0, previous_w=650, boot_id="another")
        run = self.caps("restore")
        self.assertEqual(run.returncode, 0)
        self.assertIn("reboot", run.stdout)
        self.assertFalse(left.exists())
        self.assertEqual(self.gpus.limits_w()[0], (700, 700))

    def test_a_failure_has_its_own_status_and_spoils_nothing_else(self):
        left = [self.left_behind(0), self.left_behind(1)]
        self.gpus.set_all(requested_mw=400_000)
        self.gpus.set(0, refuse=1)
        run = self.caps("restore")
        self.assertEqual(run.returncode, 5)
        self.assertIn("root's rights", run.stdout)
        self.assertEqual(self.gpus.limits_w(), [(400, 400), (700, 700)])
        self.assertEqual([path.exists() for path in left], [True, False])

    def test_what_a_living_run_holds_is_left_alone(self):
        self.left_behind(0)
        self.gpus.set(0, requested_mw=400_000)
        with open(self.state / f"{self.gpus.uuids[0]}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            run = self.caps("restore")
            self.assertIn(f"process {os.getpid()}", self.caps("show").stdout)
        self.assertEqual(run.returncode, 3)
        self.assertIn(f"held by process {os.getpid()}", run.stdout)
        self.assertEqual(self.gpus.get(0, "writes"), 0)

    def test_a_folder_that_others_may_write_to_is_refused(self):
        self.left_behind(0)
        self.state.chmod(0o777)
        run = self.caps("restore")
        self.assertEqual(run.returncode, 3)
        self.assertIn("no other can write", run.stderr)
        self.assertEqual(self.gpus.get(0, "writes"), 0)

    def test_a_dead_runs_guardian_that_does_not_end(self):
        self.left_behind(0)
        self.gpus.set(0, requested_mw=400_000)
        dead = subprocess.Popen(["true"])
        dead.wait()
        script = ROOT / "jobs/slurm/epilog-caps-restore.sh"
        with open(self.state / f"{self.gpus.uuids[0]}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(f"{dead.pid}\n")
            lock.flush()
            run = self.caps("restore")
            self.assertEqual(subprocess.run(["bash", script], env=dict(self.environment, MOEVAR=MOEVAR),
                                            capture_output=True, timeout=60).returncode, 1, "the node is drained")
        self.assertEqual(run.returncode, 5, run.stdout)
        self.assertIn(f"process {dead.pid}, which is dead, and its guardian does not end", run.stdout)
        self.assertEqual(self.gpus.get(0, "writes"), 0)

    def test_a_relative_state_folder(self):
        self.left_behind(0)
        self.gpus.set(0, requested_mw=400_000)
        run = subprocess.run([MOEVAR, "caps", "restore"], env=dict(self.environment, MOEVAR_STATE_DIR="state"),
                             cwd=self.dir, capture_output=True, text=True, timeout=60)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(self.gpus.limits_w()[0], (700, 700))
        run = self.caps("guard", "state", self.gpus.uuids[0])
        self.assertEqual(run.returncode, 2)
        self.assertIn("must be absolute", run.stderr)

    def test_a_gpu_that_is_gone(self):
        left = self.left_behind(0)
        gone = left.with_name("GPU-gone.json")
        capture = dict(json.loads(left.read_text()), uuid="GPU-gone")
        left.unlink()
        gone.write_text(json.dumps(capture))
        self.assertEqual(self.caps("restore").returncode, 5)
        self.assertTrue(gone.exists())
        gone.write_text(json.dumps(dict(capture, boot_id="another")))
        run = self.caps("restore")
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertFalse(gone.exists())

    def test_forget_drops_whatever_cannot_be_put_back(self):
        left = [self.left_behind(0), self.left_behind(1)]
        left[1].write_text("{")
        self.gpus.set(0, requested_mw=400_000, lost=1)
        self.assertEqual(self.caps("restore").returncode, 5)
        self.assertEqual([path.exists() for path in left], [True, True])
        run = self.caps("restore", "--forget")
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertEqual([path.exists() for path in left], [False, False])

    @unittest.skipIf(os.geteuid() != 0, "needs another user")
    def test_what_this_user_cannot_look_into(self):
        self.left_behind(0)
        self.dir.chmod(0o755)
        self.gpus.path.chmod(0o666)

        def caps(word):
            return subprocess.run([MOEVAR, "caps", word], env=self.environment, capture_output=True, text=True,
                                  timeout=60, user=65534, group=65534, extra_groups=[])

        restore, show = caps("restore"), caps("show")
        self.assertEqual(restore.returncode, 3, restore.stdout)
        self.assertIn(str(self.state), restore.stderr)
        self.assertEqual(show.returncode, 0, show.stderr)
        self.assertEqual([line.split()[-1] for line in show.stdout.splitlines()[1:]], ["?", "?"])

    def test_every_rank_speaks_for_its_node(self):
        self.left_behind(0)
        run = self.caps("show", OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="2")
        self.assertEqual(len(run.stdout.splitlines()), 3)
        run = self.caps("show", OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="2", MOEVAR_NVML="/nonexistent.so")
        self.assertEqual(run.returncode, 3)
        self.assertIn("NVML cannot be loaded", run.stderr)

    def test_show_goes_on_after_a_broken_capture(self):
        self.left_behind(0).write_text("{")
        shown = self.caps("show")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertIn("cannot be read", shown.stdout)
        self.assertTrue(shown.stdout.rstrip().endswith("nobody"), shown.stdout)

    def test_a_broken_capture_is_named(self):
        self.left_behind(0).write_text("{")
        run = self.caps("restore")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn(self.gpus.uuids[0], run.stdout)

    def test_the_epilogue(self):
        script = ROOT / "jobs/slurm/epilog-caps-restore.sh"

        def epilogue():
            return subprocess.run(["bash", script], env=dict(self.environment, MOEVAR=MOEVAR), capture_output=True,
                                  timeout=60).returncode

        self.assertEqual(epilogue(), 0)
        self.left_behind(0)
        self.gpus.set(0, requested_mw=400_000, refuse=1)
        self.assertEqual(epilogue(), 1)
        self.gpus.set(0, refuse=0)
        self.assertEqual(epilogue(), 0)
        self.assertEqual(self.gpus.limits_w()[0], (700, 700))


if __name__ == "__main__":
    unittest.main()
