#!/usr/bin/env python3
"""jobs/workstation.sh: what it chooses, what Ctrl-C does, and what it passes on."""

import fcntl
import os
import pathlib
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

from moevar_cli import ENVIRONMENT, MOEVAR, ROOT, SMALL, Case  # noqa: E402

SCRIPT = ROOT / "jobs/workstation.sh"
CPU = """
[study]
name = "cores"
repeats = 8
[model]
hidden = 64
intermediate = 64
experts = 4
top_k = 2
layers = 2
[workload]
kind = "synthetic"
tokens_per_device = 16
[fleet]
device = "cpu"
devices = [1]
[placement]
policies = ["contiguous"]
[phases]
steps = 8
warmup_steps = 1
profile = "once"
precision = 1e-9
max_steps = 1000000
time_limit_s = 1
"""
CORES = len(os.sched_getaffinity(0))


class Workstation(Case):
    def setUp(self):
        super().setUp()
        self.out = self.dir / "out"
        self.environment = dict(ENVIRONMENT, MOEVAR=MOEVAR)

    def run_script(self, *words, **changes):
        return subprocess.run(["bash", SCRIPT, *map(str, words)], env={**self.environment, **changes}, cwd=self.dir,
                              capture_output=True, text=True, timeout=120)

    def test_modelled_gpus_share_the_physical_cores(self):
        run = self.run_script(self.write("small.toml", SMALL), "--out", self.out)
        self.assertEqual(run.returncode, 0, run.stderr)
        cores = self.physical_cores()
        self.assertIn(f"8 model device(s), {cores} physical core(s): {min(8, cores)} rank(s) of 1 core(s), bound",
                      run.stdout)
        self.assertTrue((self.out / "summary.json").exists())

    def physical_cores(self):
        listed = subprocess.run(["lscpu", "--parse=CPU,CORE"], capture_output=True, text=True, check=True).stdout
        pairs = [line.split(",") for line in listed.splitlines() if not line.startswith("#")]
        return len({core for cpu, core in pairs if int(cpu) in os.sched_getaffinity(0)})

    def test_never_more_ranks_than_devices_or_allowed_cores(self):
        study = self.write("small.toml", SMALL)
        run = self.run_script(study, "--out", self.out, "--set", "fleet.devices=[1]")
        self.assertIn("1 model device(s)", run.stdout)
        self.assertIn(": 1 rank(s)", run.stdout)
        one = min(os.sched_getaffinity(0))
        run = subprocess.run(["taskset", "-c", str(one), "bash", SCRIPT, study, "--out", self.dir / "pinned"],
                             env=self.environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("1 physical core(s): 1 rank(s)", run.stdout)

    def test_more_ranks_than_cores_are_not_bound(self):
        run = self.run_script(self.write("small.toml", SMALL), "--out", self.out, RANKS=str(CORES + 1))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(f"{CORES + 1} rank(s) of 1 core(s), bound to none", run.stdout)

    def test_results_have_names_and_are_never_overwritten(self):
        study = self.write("small.toml", SMALL)
        for name in ("small", "small-2"):
            run = self.run_script(study)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertTrue((self.dir / "results" / name / "summary.json").exists(), run.stdout)

    def test_statuses_are_passed_on(self):
        study = self.write("small.toml", SMALL)
        for words, status, says in ((["absent.toml"], 2, "absent.toml: no such file"), ([], 2, "usage"),
                                    ([study, "--set", "study.sed=1"], 2, "sed"),
                                    ([study, "--out", "/proc/none"], 3, "/proc/none"),
                                    ([study, "--set", "fleet.device=cuda"], 3, "")):
            with self.subTest(words):
                run = self.run_script(*words)
                self.assertEqual(run.returncode, status, run.stdout + run.stderr)
                self.assertIn(says, run.stderr)

    def interrupt(self, times, phase_s):
        """Presses Ctrl-C on a terminal in front of the script, while the third phase runs; exit status and text."""
        study = self.write("cores.toml", CPU.replace("time_limit_s = 1", f"time_limit_s = {phase_s}"))
        terminal, inside = pty.openpty()
        run = subprocess.Popen(["bash", SCRIPT, study, "--out", self.out],
                               env=dict(self.environment, MOEVAR_PROGRESS="lines"), stdin=inside, stdout=inside,
                               stderr=inside, preexec_fn=self.own_terminal)
        os.close(inside)
        self.addCleanup(run.kill)
        told = []
        reader = threading.Thread(target=self.read_all, args=(terminal, told), daemon=True)
        reader.start()
        self.wait_to_hear(b" 2/8 phases", told)
        time.sleep(0.3)  # the next phase is on its way
        for _ in range(times):
            os.write(terminal, b"\x03")
            self.wait_to_hear(b"stops when this phase is recorded", told)
            time.sleep(0.7)  # what comes within 0.3 s is the same Ctrl-C told twice
        status = run.wait(timeout=60)
        reader.join(timeout=10)
        return status, b"".join(told).decode(errors="replace")

    @staticmethod
    def wait_to_hear(words, told):
        until = time.monotonic() + 60
        while words not in b"".join(told) and time.monotonic() < until:
            time.sleep(0.05)

    @staticmethod
    def own_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    @staticmethod
    def read_all(terminal, told):
        try:
            while text := os.read(terminal, 4096):
                told.append(text)
        except OSError:
            pass

    def kept(self):
        return sorted(path.name for path in (self.out / "phases").glob("[0-9]*.h5"))

    def test_ctrl_c_asks_for_the_end_and_resume_goes_on(self):
        status, text = self.interrupt(1, phase_s=1)
        self.assertEqual(status, 4, text)
        self.assertIn("finishing the running phase", text)
        self.assertIn("--resume goes on", text)
        kept = self.kept()
        self.assertGreaterEqual(len(kept), 2)
        self.assertIn(f"stopped by SIGUSR1 with {len(kept)} of 8 phases recorded", text)
        run = self.run_script(self.dir / "cores.toml", "--out", self.out, "--resume", MOEVAR_PROGRESS="lines")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(f"{len(kept) + 1}/8 phases", run.stderr)
        self.assertNotIn(f" {len(kept)}/8 phases", run.stderr)

    def test_ctrl_c_twice_stops_at_once(self):
        status, text = self.interrupt(2, phase_s=5)
        self.assertEqual(status, 4, text)
        self.assertEqual(len(self.kept()), 2, "the phase that was running is given up")
        self.assertFalse(self.living(), "a rank is left")

    def living(self):
        found = subprocess.run(["pgrep", "-f", str(self.out)], capture_output=True, text=True).stdout.split()
        return [one for one in found if int(one) != os.getpid()]

    def test_sigterm_reaches_the_ranks(self):
        study = self.write("cores.toml", CPU)
        run = subprocess.Popen(["bash", SCRIPT, study, "--out", self.out], env=self.environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not self.kept() and time.monotonic() < until:
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        self.assertEqual(run.wait(timeout=30), 4)
        self.assertFalse(self.living(), "a rank is left")
        self.assertTrue(self.kept())


if __name__ == "__main__":
    unittest.main()
