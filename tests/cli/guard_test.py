#!/usr/bin/env python3
"""Whatever ends a run that holds power limits, the limits come back.

Each run sets one limit after another on fake GPUs, and is ended at a random moment by a random means.
MOEVAR_GUARD_RUNS: how many (20).
"""

import collections
import os
import pathlib
import random
import resource
import signal
import subprocess
import time
import unittest

from fake_nvml import FakeGpus
from moevar_cli import ENVIRONMENT, MOEVAR, Case

RUNS = int(os.environ.get("MOEVAR_GUARD_RUNS", "20"))
LIMIT_S = 5.0
FOUND_W = [650, 700, 600, 700]  # not all the default: what was found comes back


STUDY = """
[study]
name = "guarded"
repeats = 500
[model]
hidden = 64
intermediate = 32
experts = 24
top_k = 2
layers = 2
[workload]
kind = "synthetic"
tokens_per_device = 32
[fleet]
device = "cpu"
devices = [RANKS]
[conditions]
power_cap_w = [300, 400, 500]
heat = ["soaked"]
caps = "set"
steady_window_s = 1
heat_limit_s = 0
[placement]
policies = ["contiguous"]
[phases]
steps = 2
warmup_steps = 0
"""


def processes_of(gpus):
    """Every process that has these GPUs: pid → command line."""
    found = {}
    mark = f"MOEVAR_FAKE_NVML_STATE={gpus.path}\0".encode()
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if words != [""]:
                    found[int(folder.name)] = words
        except OSError:
            pass
    return found


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Run:
    """A study under mpirun that holds limits of fake GPUs."""

    def __init__(self, gpus, folder, study, ranks):
        self.gpus = gpus
        self.ranks = ranks
        self.log = open(folder / "log", "w+")
        environment = dict(ENVIRONMENT, **gpus.environment(folder / "state"))
        command = ["mpirun", "--oversubscribe", "-np", str(ranks), MOEVAR, "run", str(study), "--out",
                   str(folder / "out")]
        self.mpirun = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log,
                                       start_new_session=True)

    def text(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def pids(self):
        """Ranks and guardians."""
        ranks, guardians = [], []
        for pid, words in processes_of(self.gpus).items():
            if words[0] == "mpirun" or pid == self.mpirun.pid:
                continue
            (guardians if words[1:3] == ["caps", "guard"] else ranks).append(pid)
        return sorted(ranks), guardians

    def end(self):
        """Leaves nothing behind, whatever the test found."""
        ranks, guardians = self.pids()
        send([self.mpirun.pid, *ranks, *guardians], signal.SIGKILL)
        self.mpirun.wait(timeout=30)
        self.log.close()


def no_folder(run, dice):
    # the rank that records throws when it writes its next phase
    (run.gpus.path.parent / "out").rename(run.gpus.path.parent / "gone")


def no_memory(run, dice):
    """An exception where our own code finds no memory. Libraries may wait for it for ever (OpenBLAS does), or the rank
    needs none: then a scheduler ends the run, and that rank has to restore without memory."""
    resource.prlimit(dice.choice(run.pids()[0]), resource.RLIMIT_AS, (1 << 20, 1 << 20))
    try:
        run.mpirun.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        send([run.mpirun.pid], signal.SIGTERM)


def full_disk(run, dice):
    # for every rank, since pids don't tell which one writes
    for rank in run.pids()[0]:
        resource.prlimit(rank, resource.RLIMIT_FSIZE, (1, 1))


def guardian_too(run, dice):
    ranks, guardians = run.pids()
    send(guardians, signal.SIGKILL)
    send([*ranks, run.mpirun.pid], signal.SIGKILL)


def to_mpirun(number):
    return lambda run, dice: send([run.mpirun.pid], number)


def to_a_rank(number):
    return lambda run, dice: send([dice.choice(run.pids()[0])], number)


def to_all_ranks(number):
    return lambda run, dice: send(run.pids()[0], number)


MEANS = {
    "SIGKILL of one rank": to_a_rank(signal.SIGKILL),
    "SIGKILL of all ranks": to_all_ranks(signal.SIGKILL),
    "SIGKILL of mpirun": to_mpirun(signal.SIGKILL),
    "SIGTERM to mpirun": to_mpirun(signal.SIGTERM),
    "SIGTERM to one rank": to_a_rank(signal.SIGTERM),
    "SIGTERM to all ranks": to_all_ranks(signal.SIGTERM),
    "SIGINT to mpirun": to_mpirun(signal.SIGINT),
    "SIGHUP to one rank": to_a_rank(signal.SIGHUP),
    "SIGUSR1 to all ranks": to_all_ranks(signal.SIGUSR1),
    "an exception in one rank": no_folder,
    "no memory in one rank": no_memory,
    "a full disk": full_disk,
    "SIGKILL of all, guardian too": guardian_too,
}


# What mpirun's status must be. The rank that a signal goes to ends all with its own.
STATUSES = {
    "SIGTERM to one rank": [4],
    "SIGTERM to all ranks": [4],
    "SIGHUP to one rank": [4],
    "SIGUSR1 to all ranks": [4],
    "an exception in one rank": [3],
    "a full disk": [3],
}


class Guard(Case):
    def wait_for(self, condition, limit_s, what):
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                return self.fail(what()) if callable(what) else self.fail(what)
            time.sleep(0.005)
        return None

    def one(self, folder, means, dice):
        folder.mkdir()
        ranks = dice.choice([2, 3, 4])
        gpus = FakeGpus(folder / "gpus", ranks, slow_ms=dice.choice([0, 0, 60]))
        for gpu in range(ranks):
            gpus.set(gpu, requested_mw=FOUND_W[gpu] * 1000)
        found = gpus.limits_w()
        study = folder / "study.toml"
        study.write_text(STUDY.replace("RANKS", str(ranks)))
        run = Run(gpus, folder, study, ranks)
        try:
            self.wait_for(lambda: gpus.limits_w() != found or run.mpirun.poll() is not None, 60, "no limit was set")
            self.assertIsNone(run.mpirun.poll(), run.text())
            time.sleep(dice.uniform(0.0, 0.5))
            self.assertIsNone(run.mpirun.poll(), run.text())
            MEANS[means](run, dice)
            said = f"{means}, {ranks} ranks"
            if means == "SIGKILL of all, guardian too":
                run.mpirun.wait(timeout=30)
                self.restore(gpus, folder, found, said)
            begin = time.monotonic()
            self.wait_for(lambda: gpus.limits_w() == found and not list((folder / "state").glob("*.json")), LIMIT_S,
                          lambda: f"{said}: {found} became {gpus.limits_w()}\n{run.text()}\n{run.pids()}")
            taken = time.monotonic() - begin
            status = run.mpirun.wait(timeout=30)
            self.assertIn(status, STATUSES.get(means, range(-64, 256)), f"{said}\n{run.text()}")
            self.assertNotEqual(status, 0, said)
            if means == "a full disk":
                self.assertRegex(run.text(), "(?i)file too large|no space|cannot write", said)
            # nothing goes on writing, and the next run finds the GPUs free
            self.wait_for(lambda: run.pids() == ([], []), 15, lambda: f"{said}: still there: {run.pids()}")
            self.assertEqual(gpus.limits_w(), found, said)
            return taken, run.mpirun.returncode
        finally:
            run.end()

    def restore(self, gpus, folder, found, said):
        """Ends a run that took its guardian along: caps restore says what it does."""
        time.sleep(0.1)
        held = gpus.limits_w() != found
        heal = subprocess.run([MOEVAR, "caps", "restore"], env=dict(ENVIRONMENT, **gpus.environment(folder / "state")),
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(heal.returncode, 0, heal.stdout + heal.stderr)
        if held:
            self.assertIn("W restored", heal.stdout, said)
        self.assertEqual(gpus.limits_w(), found, said)

    def test_limits_come_back(self):
        dice = random.Random(5)
        order = list(MEANS)
        healed, slowest, statuses = 0, 0.0, collections.defaultdict(collections.Counter)
        for run in range(RUNS):
            if run % len(order) == 0:
                dice.shuffle(order)
            means = order[run % len(order)]
            with self.subTest(run=run, means=means):
                taken, status = self.one(self.dir / f"run{run}", means, dice)
                healed += 1
                slowest = max(slowest, taken)
                statuses[means][status] += 1
        for means, counted in sorted(statuses.items()):
            print(f"  {means:<30} {sum(counted.values()):>4}, mpirun's status " +
                  ", ".join(f"{status}: {times}" for status, times in sorted(counted.items())))
        print(f"{healed} of {RUNS} healed, the slowest within {slowest:.2f} s")
        self.assertEqual(healed, RUNS)

    def test_a_failed_restore_has_status_5(self):
        for word in ("refuse", "lost"):
            with self.subTest(word):
                folder = self.dir / word
                folder.mkdir()
                gpus = FakeGpus(folder / "gpus", 2)
                found = gpus.limits_w()
                study = folder / "study.toml"
                study.write_text(STUDY.replace("RANKS", "2"))
                run = Run(gpus, folder, study, 2)
                try:
                    self.wait_for(lambda: gpus.limits_w()[1] != found[1], 60, "no limit was set")
                    gpus.set(1, **{word: 1})
                    self.assertEqual(run.mpirun.wait(timeout=60), 5, run.text())
                    self.assertIn("A POWER LIMIT WAS NOT RESTORED", run.text())
                    self.assertTrue((folder / "state" / f"{gpus.uuids[1]}.json").exists())
                    self.assertEqual(gpus.limits_w()[0], found[0])
                    gpus.set(1, **{word: 0})
                    self.wait_for(lambda: gpus.limits_w() == found and not list((folder / "state").glob("*.json")),
                                  LIMIT_S, "the guardian did not go on trying")
                finally:
                    run.end()

    def test_a_signal_to_a_rank_without_limits_has_the_holders_status(self):
        gpus = FakeGpus(self.dir / "gpus", 3)
        found = gpus.limits_w()
        study = self.write("study.toml", STUDY.replace("RANKS", "3"))
        run = Run(gpus, self.dir, study, 3)
        try:
            self.wait_for(lambda: gpus.limits_w()[1] != found[1], 60, "no limit was set")
            holder = int((self.dir / "state" / f"{gpus.uuids[0]}.lock").read_text())
            gpus.set(1, refuse=1)
            send([pid for pid in run.pids()[0] if pid != holder][:1], signal.SIGUSR1)
            self.assertEqual(run.mpirun.wait(timeout=60), 5, run.text())
            said = [line for line in run.text().splitlines() if "stopped by" in line]
            self.assertLessEqual(len(said), 1, run.text())
        finally:
            run.end()

    def test_two_runs_at_once(self):
        gpus = FakeGpus(self.dir / "gpus", 2, requested_mw=650_000)
        found = gpus.limits_w()
        study = self.write("study.toml", STUDY.replace("RANKS", "2"))
        environment = dict(ENVIRONMENT, **gpus.environment(self.dir / "state"))

        def second(out, *options):
            return subprocess.run(["mpirun", "--oversubscribe", "-np", "2", MOEVAR, "run", str(study), "--out",
                                   str(self.dir / out), "--set", "study.repeats=1", *options], env=environment,
                                  capture_output=True, text=True, timeout=60)

        first = Run(gpus, self.dir, study, 2)
        try:
            self.wait_for(lambda: gpus.limits_w() != found, 60, "no limit was set")
            ranks = first.pids()[0]
            for caps in ("set", "observe"):
                refused = second(f"refused-{caps}", "--set", f"conditions.caps={caps}")
                lines = [line for line in refused.stderr.splitlines() if line.startswith("moevar: ")]
                self.assertEqual((refused.returncode, len(lines)), (3, 1), refused.stderr)
                self.assertRegex(lines[0], f"is held by process ({'|'.join(map(str, ranks))})")
            self.assertIsNone(first.mpirun.poll(), "the first run is none the worse")
            guardian_too(first, None)
            first.mpirun.wait(timeout=30)
            time.sleep(0.1)
            self.assertNotEqual(gpus.limits_w(), found, "nobody was left to restore")
            self.assertTrue(list((self.dir / "state").glob("*.lock")), "the dead run's")
            healed = second("healed")
            self.assertEqual(healed.returncode, 0, healed.stderr)
            self.assertEqual(gpus.limits_w(), found)
        finally:
            first.end()


if __name__ == "__main__":
    unittest.main()
