#!/usr/bin/env python3
"""A run that was cut short, in whatever way, goes on where it was: nothing is lost, and a modelled one comes out as if
there had been no break.

MOEVAR_KILLS: number of random kills (15); the long form is 100.
"""

import collections
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import h5py

from moevar_cli import ENVIRONMENT, MOEVAR, ROOT, SMALL, Case, start

KILLS = int(os.environ.get("MOEVAR_KILLS", "15"))
CPU = """
[study]
name = "cpu"
repeats = 8
[model]
hidden = 64
intermediate = 128
experts = 8
top_k = 2
layers = 3
[workload]
tokens_per_device = 64
[fleet]
device = "cpu"
devices = [2]
[placement]
policies = ["contiguous", "eplb", "vibe"]
[phases]
steps = 16
"""


def finished(out):
    """Numbers of the phases that are on disk under their names, or in a study.h5 that is complete."""
    manifest = out / "manifest.json"
    if manifest.exists() and json.loads(manifest.read_text())["complete"]:
        with h5py.File(out / "study.h5") as file:
            return sorted(map(int, file["phases"]))
    return sorted(int(path.stem) for path in (out / "phases").glob("[0-9][0-9][0-9][0-9].h5"))


def ranks_of(out):
    """Process ids of moevar's own processes that write there, by rank."""
    ranks = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if command[0] != MOEVAR.encode() or str(out).encode() not in command:
                continue
            environment = dict(line.split(b"=", 1) for line in (entry / "environ").read_bytes().split(b"\0") if b"=" in line)
            ranks[int(environment.get(b"OMPI_COMM_WORLD_RANK", b"0"))] = int(entry.name)
        except (OSError, IndexError):
            continue
    return ranks


class Session:
    """One start of moevar under mpirun (or alone: ranks = 0), which resumes what is there."""

    def __init__(self, study, out, ranks, *options):
        launcher = ["mpirun", "--oversubscribe", "-np", str(ranks)] if ranks else []
        self.out = out
        self.before = finished(out)
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*launcher, MOEVAR, "run", str(study), "--out", str(out), "--resume", *map(str, options)],
            env=dict(ENVIRONMENT, MOEVAR_PROGRESS="lines"), stdout=subprocess.DEVNULL, stderr=self.log)

    def wait_for_a_phase(self, more=1, timeout=60):
        """Until `more` phases than before are there, or the run has ended."""
        deadline = time.monotonic() + timeout
        while (self.process.poll() is None and len(finished(self.out)) < len(self.before) + more
               and time.monotonic() < deadline):
            time.sleep(0.002)

    def end(self, timeout=60):
        """Its exit status and what it said."""
        status = self.process.wait(timeout=timeout)
        # ranks whose launcher was killed end by themselves or not at all
        for _ in range(200):
            if not (left := ranks_of(self.out)):
                break
            for pid in left.values():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        self.log.seek(0)
        said = [line.strip() for line in self.log if line.startswith("moevar: ")]
        self.log.close()
        return status, said


class ResumeCase(Case):
    def assert_equal_runs(self, a, b):
        for group in ("/phases", "/fleet"):
            diff = subprocess.run(["h5diff", a / "study.h5", b / "study.h5", group, group], capture_output=True, text=True)
            self.assertEqual((diff.returncode, diff.stdout[:2000]), (0, ""))
        def without_times(out):
            cells = json.loads((out / "summary.json").read_text())["cells"]
            return [{key: value for key, value in cell.items() if key not in ("solve_ms", "migrate_ms")}
                    for cell in cells]
        self.assertEqual(without_times(a), without_times(b))

    def assert_schema(self, out):
        schema = subprocess.run([sys.executable, ROOT / "tests/analysis/schema_test.py", out], capture_output=True,
                                text=True)
        self.assertEqual(schema.returncode, 0, schema.stdout[-2000:] + schema.stderr[-2000:])

    def assert_opens(self, out):
        """h5py reads every phase that study.h5 knows."""
        if not (out / "study.h5").exists():
            return
        with h5py.File(out / "study.h5") as file:
            self.assertIn(file.attrs["complete"], (0, 1))
            for name, phase in file["phases"].items():
                self.assertEqual(int(phase.attrs["index"]), int(name))
                phase["layer/layer_ns"][...]
                phase["placement/physical_to_logical_map"][...]


class EveryBreak(ResumeCase):
    """A modelled study that stops after every few of its phases, and goes on each time with another number of ranks."""

    def broken_everywhere(self, text, *options):
        study = self.write("study.toml", text)
        whole, broken = self.dir / "whole", self.dir / "broken"
        run = start(["run", study, "--out", whole, *options])
        self.assertEqual(run.returncode, 0, run.stderr)
        sessions = 0
        # 5 and 4 have no common divisor: after some rounds every number of phases met every number of ranks
        for ranks, phases in zip(itertools.cycle((0, 1, 2, 3)), itertools.cycle((1, 2, 1, 3, 1))):
            sessions += 1
            session = Session(study, broken, ranks, *options)
            session.wait_for_a_phase(phases)
            session.process.send_signal(signal.SIGUSR1)
            status, said = session.end()
            if status == 0:
                break
            if status == -signal.SIGUSR1 and not said:
                continue  # it came before the program could listen, or mpirun
            self.assertEqual(status, 4, said)
            self.assertRegex(said[-1], r"^moevar: stopped by SIGUSR1 with \d+ of \d+ phases recorded; the same command")
            self.assertLess(sessions, 200)
        self.assert_schema(broken)
        self.assert_equal_runs(whole, broken)
        with h5py.File(broken / "study.h5") as file:
            count = len(file["phases"])
        print(f"{count} phases in {sessions} sessions, equal bit for bit")
        self.assertGreater(sessions, count // 4)
        return broken

    def test_a_plain_study(self):
        broken = self.broken_everywhere(SMALL, "--set", "phases.steps=64")
        sessions = json.loads((broken / "manifest.json").read_text())["sessions"]
        self.assertEqual(sessions[0]["first_phase"], 0)
        self.assertGreater(sessions[-1]["first_phase"], 0)
        self.assertLess({0, 1, 2, 3} & {session["ranks"] for session in sessions}, {0, 1, 2, 3})

    def test_placements_kept_and_solved_anew_as_loads_drift(self):
        broken = self.broken_everywhere(
            SMALL, "--set", "placement.recompute=on-drift", "--set", "workload.tokens_per_device=16384", "--set",
            "study.repeats=3", "--set", "workload.drift=0.02", "--set", "workload.skew=1", "--set",
            "phases.profile=once", "--set", "fleet.devices=[8, 4]", "--set", "placement.redundant_experts=8", "--set",
            "phases.steps=60", "--set", "record.timelines=false")
        with h5py.File(broken / "study.h5") as file:
            reasons = {phase["placement"].attrs["solved_because"].split()[0] for phase in file["phases"].values()}
        self.assertLessEqual({"first", "kept"}, reasons)
        self.assertTrue(reasons & {"cosine", "residual:"}, reasons)

    def test_fleets_drawn_from_a_pool(self):
        self.broken_everywhere(SMALL, "--set", "fleet.pool=64", "--set", "fleet.devices=[8, 16]", "--set",
                               "study.repeats=2", "--set", "phases.profile=once", "--set",
                               'fleet.scaling=["strong", "weak"]', "--set", "conditions.power_cap_w=[500]")

    def test_causes_heat_and_steps_planned_anew(self):
        self.broken_everywhere(SMALL, "--set", "study.causes=true", "--set", "conditions.power_cap_w=[500]", "--set",
                               'conditions.heat=["ambient", "soaked"]', "--set", "record.telemetry_hz=1", "--set",
                               'placement.policies=["contiguous", "harmoeny", "vibe_swap"]')


class Kills(ResumeCase):
    """Random kills until a study is through."""

    def kill_one(self, session, dice):
        """Kills it somehow after a random time; the name of how."""
        session.wait_for_a_phase(more=dice.choice((0, 1, 1, 2)), timeout=20)
        time.sleep(dice.uniform(0.0, 0.15))
        ranks = ranks_of(session.out)
        how = dice.choice(("a rank", "all ranks", "mpirun", "SIGTERM", "SIGINT", "SIGUSR1", "SIGTERM to a rank"))
        try:
            if how == "mpirun":
                session.process.kill()
            elif how in ("SIGTERM", "SIGINT", "SIGUSR1"):
                session.process.send_signal(signal.Signals[how])
            elif ranks and how == "all ranks":
                for pid in ranks.values():
                    os.kill(pid, signal.SIGKILL)
            elif ranks:
                number = signal.SIGTERM if how.startswith("SIGTERM") else signal.SIGKILL
                os.kill(dice.choice(sorted(ranks.values())), number)
        except ProcessLookupError:
            pass
        return how

    def kill_until(self, study, kills, ranks, check, *options):
        """Starts runs anew as each comes to its end; numbers of kills by kind and phases that were there after one."""
        dice = random.Random(7)
        done = collections.Counter()
        kept = 0
        run = 0
        while sum(done.values()) < kills:
            run += 1
            out = self.dir / f"run{run}"
            while True:
                session = Session(study, out, dice.choice(ranks), *options)
                killing = sum(done.values()) < kills
                if killing:
                    how = self.kill_one(session, dice)
                before = finished(out)
                status, said = session.end(timeout=120)
                if status == 0:
                    break
                self.assertTrue(killing, f"status {status} without a kill: {said}")
                done[how] += 1
                after = finished(out)
                self.assertLessEqual(set(session.before), set(after), "what an earlier session had is there")
                self.assertLessEqual(set(before), set(after), f"nothing is lost by {how}")
                self.assertEqual(after, list(range(len(after))), "in the plan's order, no gap")
                self.assert_opens(out)
                kept += len(after) - len(session.before)
            self.assert_schema(out)
            check(out)
        return done, kept, run

    def report(self, what, done, kept, runs):
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(done.items()))
        print(f"{what}: {sum(done.values())} kills ({kinds}) in {runs} runs, {kept} phases kept, none lost")

    def test_a_modelled_study(self):
        study = self.write("study.toml", SMALL)
        options = ("--set", "study.repeats=6", "--set", "phases.steps=256", "--set", "fleet.devices=[64]", "--set",
                   "model.experts=64")
        whole = self.dir / "whole"
        self.assertEqual(start(["run", study, "--out", whole, *options]).returncode, 0)
        done, kept, runs = self.kill_until(study, KILLS - KILLS // 3, (1, 2, 3),
                                           lambda out: self.assert_equal_runs(whole, out), *options)
        self.report("model", done, kept, runs)
        self.assertGreater(kept, 0)

    def test_a_study_on_cpu_cores(self):
        study = self.write("study.toml", CPU)
        done, kept, runs = self.kill_until(study, KILLS // 3, (2,), lambda out: None)
        self.report("cpu", done, kept, runs)
        self.assertGreater(kept, 0)


class Requests(ResumeCase):
    def start_long(self, ranks, name="out"):
        study = self.write("study.toml", SMALL)
        return Session(study, self.dir / name, ranks, "--set", "study.repeats=500", "--set", "phases.steps=512")

    def test_ctrl_c_once_ends_after_the_phase(self):
        session = self.start_long(0)
        session.wait_for_a_phase()
        session.process.send_signal(signal.SIGINT)
        status, said = session.end()
        self.assertEqual(status, 4)
        self.assertEqual(said[0], "moevar: SIGINT: stops when this phase is recorded; once more ends at once")
        count = len(finished(session.out))
        self.assertRegex(said[-1], rf"^moevar: stopped by SIGINT with {count} of 3000 phases recorded")
        self.assertEqual(len(said), 2)

    def test_while_steps_run_it_waits_for_their_end_and_the_second_ctrl_c_does_not(self):
        # steps for half a minute; how long they take to prepare depends on what else the machine does
        study = self.write("study.toml", CPU)
        options = ("--set", "phases.steps=8000", "--set", "fleet.devices=[1]", "--set", "model.hidden=256", "--set",
                   'placement.policies=["contiguous"]', "--set", "study.repeats=1")
        for delay_s in (1, 2, 4, 8, 16):
            session = Session(study, self.dir / f"after{delay_s}", 0, *options)
            time.sleep(delay_s)
            session.process.send_signal(signal.SIGINT)
            time.sleep(1.5)
            if session.process.poll() is None:
                break
            self.assertEqual(session.end()[0], 4, "it was still being prepared")
        self.assertIsNone(session.process.poll(), "it finishes its phase")
        session.process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        status, said = session.end()
        self.assertEqual(status, 4)
        self.assertLess(time.monotonic() - asked, 5)
        self.assertIn("stopped by SIGINT; finished phases are kept", said[-1])

    def test_one_rank_that_is_asked_ends_all(self):
        session = self.start_long(3)
        session.wait_for_a_phase()
        os.kill(ranks_of(session.out)[2], signal.SIGUSR1)
        status, said = session.end()
        self.assertEqual(status, 4, said)
        self.assertRegex(said[-1], "^moevar: stopped by SIGUSR1 with ")

    def test_sigterm_ends_at_once(self):
        session = self.start_long(2)
        session.wait_for_a_phase()
        session.process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        session.end()
        self.assertLess(time.monotonic() - asked, 10)
        self.assert_opens(session.out)


class Refused(ResumeCase):
    def setUp(self):
        super().setUp()
        self.study = self.write("study.toml", SMALL)
        self.out = self.dir / "out"
        session = Session(self.study, self.out, 0, "--set", "study.repeats=300", "--set", "phases.steps=256")
        session.wait_for_a_phase(more=2)
        session.process.send_signal(signal.SIGUSR1)
        self.assertEqual(session.end()[0], 4)

    def resume(self, *options, ranks=0):
        run = start(["run", self.study, "--out", self.out, "--resume", "--set", "study.repeats=300", "--set",
                     "phases.steps=256", *options], ranks=ranks)
        lines = [line for line in run.stderr.splitlines() if line.startswith("moevar: ")]
        return run.returncode, lines

    def test_another_study(self):
        for ranks in (0, 2):
            status, lines = self.resume("--set", "study.seed=99", ranks=ranks)
            self.assertEqual((status, len(lines)), (2, 1), lines)
            self.assertIn('holds a run of another study: [study] has "seed = 3" there, "seed = 99" here', lines[0])

    def test_a_run_without_resume(self):
        run = start(["run", self.study, "--out", self.out])
        self.assertEqual(run.returncode, 2)
        self.assertIn("already holds a run", run.stderr)
        self.assertIn("--resume", run.stderr)

    def test_a_run_without_its_manifest(self):
        (self.out / "manifest.json").unlink()
        status, lines = self.resume()
        self.assertEqual((status, len(lines)), (2, 1), lines)
        self.assertIn("without its manifest.json", lines[0])

    def test_a_damaged_phase_is_measured_again(self):
        path = self.out / "phases/0001.h5"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        session = Session(self.study, self.out, 0, "--set", "study.repeats=300", "--set", "phases.steps=256")
        time.sleep(1.0)
        session.process.send_signal(signal.SIGUSR1)
        _, said = session.end()
        self.assertTrue(any("goes on with phase 2 of 1800" in line for line in said), said)
        self.assertTrue(any("0001.h5 is damaged; it and the phases behind it are measured again" in line for line in said), said)

    def test_two_at_a_time(self):
        first = Session(self.study, self.out, 0, "--set", "study.repeats=300", "--set", "phases.steps=256")
        first.wait_for_a_phase()
        status, lines = self.resume()
        self.assertEqual((status, len(lines)), (3, 1), lines)
        self.assertIn("another moevar writes there", lines[0])
        first.process.send_signal(signal.SIGUSR1)
        self.assertEqual(first.end()[0], 4)


class From(ResumeCase):
    def test_a_recorded_run_is_repeated(self):
        study = self.write("study.toml", SMALL)
        options = ("--set", "study.seed=11", "--set", 'study.name="a \\"name\\""')
        run = start(["run", study, "--out", self.dir / "a", *options])
        self.assertEqual(run.returncode, 0, run.stderr)
        study.unlink()
        run = start(["run", "--from", self.dir / "a", "--out", self.dir / "b"], ranks=2)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assert_equal_runs(self.dir / "a", self.dir / "b")
        first, second = (json.loads((self.dir / name / "manifest.json").read_text()) for name in "ab")
        self.assertEqual(first["study_toml"], second["study_toml"])
        self.assertEqual(first["study_text"], second["study_text"])

    def test_also_one_on_cpu_cores_whose_keys_do_not_suit_others(self):
        study = self.write("study.toml", CPU)
        self.assertEqual(start(["run", study, "--out", self.dir / "a", "--set", "study.repeats=1"], ranks=2).returncode, 0)
        run = start(["run", "--from", self.dir / "a", "--out", self.dir / "b"], ranks=2)
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_a_file_that_is_not_what_it_was(self):
        counts = self.write("counts.json", json.dumps({"logical_count": [[5, 6, 7, 8], [8, 7, 6, 5]]}))
        text = """
[model]
hidden = 64
intermediate = 64
experts = 4
top_k = 2
[workload]
kind = "counts"
[fleet]
device = "model"
devices = [4]
[phases]
steps = 4
"""
        study = self.write("study.toml", text)
        options = ("--set", f"workload.path={counts}")
        run = start(["run", study, "--out", self.dir / "a", *options])
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(start(["run", "--from", self.dir / "a", "--out", self.dir / "b"]).returncode, 0)
        counts.write_text(counts.read_text() + " ")
        run = start(["run", "--from", self.dir / "a", "--out", self.dir / "c"])
        self.assertEqual(run.returncode, 2)
        self.assertRegex(run.stderr, r"^moevar: .*counts.json is not the file that the run read \(SHA-256 [0-9a-f]{64}\)")
        self.assertFalse((self.dir / "c").exists())

    def test_neither_or_both(self):
        study = self.write("study.toml", SMALL)
        for arguments in ([], [study, "--from", self.dir], ["--from", self.dir / "nowhere"]):
            run = start(["run", *arguments, "--out", self.dir / "out"])
            self.assertEqual((run.returncode, run.stderr.count("moevar: ")), (2, 1), run.stderr)


class Manifest(ResumeCase):
    def test_says_on_what_it_ran_and_no_secret(self):
        study = self.write("study.toml", SMALL)
        environment = dict(ENVIRONMENT, OMP_NUM_THREADS="3", AWS_SECRET_ACCESS_KEY="hush-1", OMPI_MCA_secret="hush-2",
                           SLURM_JOB_NAME="hush-3", NCCL_DEBUG_FILE="hush-4")
        run = subprocess.run([MOEVAR, "run", study, "--out", self.dir / "out"], env=environment, capture_output=True,
                             text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        manifest = json.loads((self.dir / "out/manifest.json").read_text())
        session, = manifest["sessions"]
        self.assertEqual(manifest["study_text"], SMALL)
        self.assertTrue(manifest["complete"])
        self.assertLessEqual({"moevar", "compiler", "flags", "CUDA", "MPI", "HDF5", "NCCL"}, set(session["program"]))
        self.assertIn("Open MPI", session["program"]["MPI"])
        host, = session["hosts"].values()
        self.assertLessEqual({"kernel", "processor", "topology", "memory", "governor", "driver"}, set(host))
        self.assertEqual(host["kernel"].split()[1], os.uname().release)
        self.assertEqual(session["environment"]["OMP_NUM_THREADS"], "3")
        for path in (self.dir / "out").iterdir():
            self.assertNotIn(b"hush-", path.read_bytes(), path.name)
        with h5py.File(self.dir / "out/study.h5") as file:
            self.assertEqual(json.loads(file["manifest"][0]), manifest)


if __name__ == "__main__":
    unittest.main()
