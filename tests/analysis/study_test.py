"""Reading a run's folder: whole, of the coming and the older fields, killed, cut off, damaged."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import paths
import h5py
import numpy as np
from moevar.study import StudyError, StudyFile, curves_at
from synthetic_study import TOKENS, Writer

sys.path.insert(0, str(paths.ROOT / "tests/cli"))
from moevar_cli import ENVIRONMENT, MOEVAR, SMALL, Case  # noqa: E402


class Curves(unittest.TestCase):
    def test_linear_from_zero_and_on_with_the_last_slope(self):
        tokens = np.array([[10.0, 20.0, 40.0], [10.0, 20.0, np.nan], [5.0, np.nan, np.nan]])
        times = np.array([[30.0, 40.0, 80.0], [10.0, 30.0, np.nan], [10.0, np.nan, np.nan]])
        for at, expected in ((5, [15, 5, 10]), (10, [30, 10, 20]), (15, [35, 20, 30]), (30, [60, 50, 60]),
                             (80, [160, 150, 160])):
            np.testing.assert_allclose(curves_at(tokens, times, at), expected, rtol=1e-12, err_msg=str(at))


class Whole(Case):
    def test_a_run_of_the_program_field_by_field(self):
        out = self.dir / "run"
        summary = self.run_study(SMALL, out)
        with StudyFile.open(out) as study, h5py.File(out / "study.h5") as file:
            self.assertEqual((study.name, study.device, study.complete, study.problems), ("small", "model", True, []))
            self.assertEqual(study.config["phases"]["steps"], 4)
            self.assertEqual(list(study.fleet["uuid"]), [uuid.decode() for uuid in file["fleet/uuid"]])
            self.assertEqual(len(study.phases), 6)
            for phase, (name, group) in zip(study.phases, sorted(file["phases"].items())):
                self.assertEqual((phase.name, phase.policy, phase.steps, phase.layers),
                                 (name, group.attrs["policy"], 4, 3))
                self.assertEqual(phase.power_cap_w, group.attrs["power_cap_w"])
                np.testing.assert_array_equal(phase.layer_ns, group["layer/layer_ns"])
                self.assertEqual(phase.solve_ms, file["timing"][name].attrs["solve_ms"])
                cell = study.cell(phase)
                self.assertEqual(cell, next(c for c in summary["cells"] if c["phase"] == phase.index))
                for key in ("devices", "policy", "heat", "repeat", "power_cap_w"):
                    self.assertEqual(cell[key], phase.factors[key])
                self.check_sums(phase, group)

    def check_sums(self, phase, group):
        expert, wait = group["expert_ns"][...], group["wait_ns"][...]
        busy = group["dispatch_ns"][...] + expert + group["combine_ns"][...]
        for name, values in {"tokens_sum": group["tokens"][...], "busy_sum_ns": busy, "expert_sum_ns": expert,
                             "wait_sum_ns": wait, "last_calls": wait == 0}.items():
            np.testing.assert_array_equal(phase.device_sum(name), values.sum(axis=(1, 2), dtype=np.int64), name)
        self.assertEqual(int(phase.device_sum("busy_sum_ns").sum()), int(phase.busy_sum_ns.sum()))

    def test_fields_that_older_files_lack_have_defaults(self):
        out = self.dir / "run"
        self.run_study(SMALL, out)
        with h5py.File(out / "study.h5", "r+") as file:
            for group in file["phases"].values():
                for name in ("scaling", "experts", "even_load", "equal_fleet", "stop_reason"):
                    group.attrs.pop(name, None)
                for name in ("devices", "device"):
                    if name in group:
                        del group[name]
        with StudyFile.open(out) as study:
            phase = study.phases[0]
            self.assertEqual((phase.scaling, phase.experts, phase.even_load, phase.equal_fleet, phase.stop_reason),
                             ("strong", 16, False, False, "fixed"))
            np.testing.assert_array_equal(phase.device_rows, np.arange(8))
            self.check_sums(phase, phase.group)


class Fields(unittest.TestCase):
    """Fields of pools, causes and weak scaling, from a written file."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        Writer(cls.dir / "run", sizes=(8, 16), repeats=2, causes=True)

    def copy(self, name):
        return pathlib.Path(shutil.copytree(self.dir / "run", self.dir / name))

    def refused(self, path, *words):
        with self.assertRaises(StudyError) as caught:
            StudyFile.open(path)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        self.assertRegex(message, r"^[^;]*study\.h5: .+; .+")
        for word in words:
            self.assertIn(word, message)

    def test_pool_causes_and_scaling(self):
        with StudyFile.open(self.dir / "run") as study:
            self.assertEqual(study.problems, [])
            self.assertEqual(len(study.phases), 2 * 2 * 2 * 4)
            self.assertEqual({(p.even_load, p.equal_fleet) for p in study.phases},
                             {(False, False), (False, True), (True, False), (True, True)})
            self.assertEqual(sum(p.natural for p in study.phases), 8)
            phase = study.phases[0]
            self.assertEqual((phase.scaling, phase.experts, phase.stop_reason), ("weak", 256, "precision"))
            np.testing.assert_array_equal(phase.device_rows, phase.group["devices"])
            np.testing.assert_array_equal(phase.device_sum("last_calls"), phase.group["device/last_calls"])
            linked = [p for p in study.phases if isinstance(p.group.get("speed_model", getlink=True), h5py.SoftLink)]
            self.assertGreater(len(linked), 8)
            for phase in linked:
                self.assertEqual(phase.speed_time_us.shape, (phase.devices, 12))
                np.testing.assert_allclose(phase.reference_time_us(TOKENS),
                                           phase.speed_time_us[:, 0] / phase.speed_tokens[:, 0] * TOKENS, rtol=1e-9)

    def test_a_missing_phase_is_named(self):
        out = self.copy("missing")
        with h5py.File(out / "study.h5", "r+") as file:
            del file["phases/0007"]
        with StudyFile.open(out) as study:
            self.assertEqual(len(study.phases), 31)
            self.assertEqual(study.problems, ["1 of 32 planned phases is missing: 0007"])

    def test_a_damaged_phase_is_left_out_and_named(self):
        for name, spoil in (("lacks", lambda g: g["layer"].__delitem__("busy_sum_ns")),
                            ("attribute", lambda g: g.attrs.__delitem__("policy")),
                            ("placement", lambda g: g.__delitem__("placement"))):
            out = self.copy(f"damaged-{name}")
            with h5py.File(out / "study.h5", "r+") as file:
                spoil(file["phases/0003"])
            with StudyFile.open(out) as study:
                self.assertEqual([p.index for p in study.phases], [i for i in range(32) if i != 3])
                self.assertEqual(len(study.problems), 1)
                self.assertRegex(study.problems[0], "^phase 0003 is damaged")

    def test_a_damaged_fleet_costs_names_alone(self):
        out = self.copy("fleet")
        with h5py.File(out / "study.h5", "r+") as file:
            del file["fleet/uuid"]
            hosts = file["fleet/host"][:10]
            del file["fleet/host"]
            file["fleet/host"] = hosts
        with StudyFile.open(out) as study:
            self.assertEqual(len(study.problems), 1)
            self.assertRegex(study.problems[0], "^/fleet/uuid cannot be read")
            self.assertEqual(list(study.fleet["uuid"]), ["unknown"] * 16)
            self.assertEqual((study.fleet["host"][9], study.fleet["host"][15]), ("model-node-1", "unknown"))
        with h5py.File(out / "study.h5", "r+") as file:
            for name in list(file["fleet"]):
                values = file["fleet"][name][:10]
                del file["fleet"][name]
                file["fleet"][name] = values
        with StudyFile.open(out) as study:
            self.assertEqual(study.problems[1:], ["/fleet has 10 rows for 16 devices"])
            self.assertEqual((len(study.fleet), study.fleet["name"][12]), (16, "unknown"))

    def test_an_absent_summary_is_named(self):
        out = self.copy("summary")
        (out / "summary.json").unlink()
        with StudyFile.open(out) as study:
            self.assertIsNone(study.summary)
            self.assertEqual(len(study.problems), 1)
            self.assertIn("summary.json", study.problems[0])

    def test_what_is_no_study_is_refused_in_one_line(self):
        foreign = self.copy("foreign")
        with h5py.File(foreign / "study.h5", "r+") as file:
            file.attrs["schema_version"] = np.int64(7)
        self.refused(foreign, "schema_version 7", "reads 1")
        other = self.copy("other")
        with h5py.File(other / "study.h5", "w") as file:
            file["x"] = [1]
        self.refused(other, "schema_version")
        empty = self.dir / "empty"
        empty.mkdir()
        self.refused(empty, "no such file", "moevar run")
        (empty / "study.h5").write_text("no HDF5")
        self.refused(empty, "no HDF5 file")

    def test_wherever_a_file_is_cut_off_it_is_refused_in_one_line(self):
        whole = (self.dir / "run" / "study.h5").read_bytes()
        cut = self.copy("cut")
        for part in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
            (cut / "study.h5").write_bytes(whole[:int(part * len(whole))])
            self.refused(cut, "cut off")

    def test_a_file_with_holes_never_ends_in_another_error(self):
        whole = bytearray((self.dir / "run" / "study.h5").read_bytes())
        out = self.copy("holes")
        dice = np.random.default_rng(5)
        refused = named = 0
        for _ in range(60):
            spoiled = whole.copy()
            at = int(dice.integers(0, len(whole) - 4096))
            spoiled[at:at + 4096] = bytes(4096)
            (out / "study.h5").write_bytes(spoiled)
            try:
                with StudyFile.open(out) as study:
                    named += bool(study.problems)
                    self.assertEqual(len(study.phases) + sum("damaged" in p for p in study.problems)
                                     + sum("cannot be opened" in p for p in study.problems), 32)
            except StudyError as error:
                self.assertNotIn("\n", str(error))
                refused += 1
        print(f"60 files with a hole of 4 KiB: {refused} refused, {named} read with what is damaged named, the others' "
              f"holes "
              "lay in values")
        self.assertGreater(refused + named, 0)


class Killed(Case):
    def killed(self, out):
        """A run that SIGKILL ends once three phases are on disk."""
        study = self.write("study.toml", SMALL)
        run = subprocess.Popen([MOEVAR, "run", study, "--out", out, "--set", "study.repeats=500", "--set",
                                "phases.steps=64"], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 60
        while len(list((out / "phases").glob("[0-9]*.h5"))) < 3 and time.monotonic() < limit:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.wait(timeout=30)
        return sorted(int(path.stem) for path in (out / "phases").glob("[0-9]*.h5"))

    def test_its_finished_phases_are_read_listed_or_not(self):
        out = self.dir / "killed"
        finished = self.killed(out)
        self.assertGreaterEqual(len(finished), 3)
        with StudyFile.open(out) as study:
            self.assertFalse(study.complete)
            self.assertEqual([phase.index for phase in study.phases], finished)
            self.assertEqual(study.phases[-1].layer_ns.shape, (64, 3))
            self.assertIn(f"{3000 - len(finished)} of 3000 planned phases are missing", "\n".join(study.problems))
        # one that the index does not know yet, and what was being written
        with h5py.File(out / "study.h5", "r+") as file:
            if f"{finished[1]:04}" in file["phases"]:
                del file[f"phases/{finished[1]:04}"]
        (out / "phases" / "9999.h5.tmp").write_bytes(b"half a phase")
        with StudyFile.open(out) as study:
            self.assertEqual([phase.index for phase in study.phases], finished)
        # a phase's own file cut off: named, the others are read
        path = out / "phases" / f"{finished[0]:04}.h5"
        path.write_bytes(path.read_bytes()[:2000])
        # by another process: HDF5 goes on reading a file that this one has open from its memory
        program = ("import sys; from moevar.study import StudyFile\n"
                   "with StudyFile.open(sys.argv[1]) as study:\n"
                   "    print([phase.index for phase in study.phases], *study.problems, sep='\\n')\n"
                   "    print([phase.has('speed_model/tokens') for phase in study.phases])")
        run = subprocess.run([sys.executable, "-c", program, out], capture_output=True, text=True,
                             env=dict(os.environ, PYTHONPATH=str(paths.ROOT / "analysis")))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(run.stdout.splitlines()[0], str(finished[1:]))
        self.assertIn(f"phase {finished[0]:04} is listed and cannot be opened", run.stdout)


if __name__ == "__main__":
    unittest.main()
