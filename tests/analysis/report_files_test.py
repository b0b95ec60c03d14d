"""The report of written files: the split of causes, pools, 131,072 devices, damaged input."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import paths
import h5py
import numpy as np
from moevar import causes
from synthetic_study import Writer

sys.path.insert(0, str(paths.ROOT / "tests/cli"))
from moevar_cli import start  # noqa: E402

REPORT = paths.ROOT / "analysis/report.py"
CPU = paths.ROOT / "jobs/studies/cpu.toml"


def report(*arguments):
    return subprocess.run([sys.executable, REPORT, *map(str, arguments)], capture_output=True, text=True, timeout=300)


class Causes(unittest.TestCase):
    """The split of causes, and random subsets of a pool, from written files."""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def figures(self, folder):
        made = report(folder)
        self.assertEqual(made.returncode, 0, made.stderr)
        return {path.stem: json.loads(path.read_text()) for path in (folder / "figures").glob("*.json")}

    def check(self, rows, tax):
        """tax(even_load, equal_fleet, which row): the parts must be its contrasts and sum to the total."""
        for row in rows:
            noise, skew, hardware, own = (tax(even, equal, row) for even, equal in ((1, 1), (0, 1), (1, 0), (0, 0)))
            wanted = {"noise": noise, "skew": skew - noise, "hardware": hardware - noise,
                      "interaction": own - skew - hardware + noise, "total": own}[row["what"]]
            self.assertAlmostEqual(row["value"], wanted, places=12, msg=str(row))

    def test_one_repeat_follows_from_summary_json(self):
        out = self.dir / "one"
        Writer(out, sizes=(8, 32), caps=(700.0, 400.0), causes=True)
        cells = json.loads((out / "summary.json").read_text())["cells"]
        rows = self.figures(out)["causes"]["numbers"]

        def tax(even, equal, row):
            (cell,) = (cell for cell in cells if (cell["even_load"], cell["equal_fleet"]) == (even, equal)
                       and all(cell[key] == row[key] for key in ("devices", "power_cap_w", "policy")))
            self.assertIn(cell["phase"], row["cells"][f"even_load={even} equal_fleet={equal}"])
            return cell["straggler_tax"]
        self.assertEqual(len(rows), 2 * 2 * 2 * 5)
        self.check(rows, tax)
        self.assertFalse(any(row["equal_fleet_predicted"] for row in rows))

    def test_repeats_on_other_devices_are_the_unit(self):
        out = self.dir / "pool"
        Writer(out, sizes=(8, 64), repeats=6, causes=True)
        cells = json.loads((out / "summary.json").read_text())["cells"]
        figures = self.figures(out)
        with h5py.File(out / "study.h5") as file:
            def tax(even, equal, row):      # a ratio of sums over the repeats
                found = [file[f"phases/{cell['phase']:04}/layer"] for cell in cells
                         if (cell["even_load"], cell["equal_fleet"]) == (even, equal)
                         and all(cell[key] == row[key] for key in ("devices", "power_cap_w", "policy"))]
                self.assertEqual(len(found), 6)
                layer, busy = (sum(int(group[name][...].sum()) for group in found)
                               for name in ("layer_ns", "busy_sum_ns"))
                return layer * row["devices"] / busy - 1
            self.check(figures["causes"]["numbers"], tax)
        for row in figures["causes"]["numbers"]:
            self.assertEqual(row["interval"], "6 repeats")
        pooled = [row for row in figures["tax-by-size"]["numbers"] if "interval" in row]
        self.assertEqual(len(pooled), 4)
        for row in pooled:
            taxes = [cells[index]["straggler_tax"] for index in row["phases"]]
            self.assertEqual((row["interval"], row["n"]), ("6 repeats on other devices", 6))
            # nearly equal denominators: the ratio's error is nearly that of the mean of the repeats' taxes
            half = 2.5706 * np.std(taxes, ddof=1) / np.sqrt(6)
            self.assertAlmostEqual((row["high"] - row["low"]) / 2 / half, 1, delta=0.1)
            # cells that split causes are no repeats of the study's own cell
            for index in row["phases"]:
                self.assertFalse(cells[index]["even_load"] or cells[index]["equal_fleet"])
        self.check_jackknife(out, figures)
        # every device of the pool that any subset showed is known, once
        for row in figures["fleet-speed"]["numbers"]:
            self.assertEqual(row["devices_known"], 64)
        observed = [row for row in figures["slowest-law"]["numbers"] if row["what"] == "observed"]
        self.assertTrue(observed and all(row["even_load"] for row in observed))

    def check_jackknife(self, out, figures):
        """Medians and ratios of them over repeats on other devices: Student's t, leaving out each repeat once."""
        def jackknifed(statistic):
            value = statistic(range(6))
            left = np.array([statistic([i for i in range(6) if i != out]) for out in range(6)])
            return value, 2.570582 * np.sqrt(5 / 6 * ((left - left.mean()) ** 2).sum())

        def median(indices, kept):
            values = np.sort(np.concatenate([series[indices[i]].ravel() for i in kept]))
            return values[-(-values.size // 2) - 1]
        with h5py.File(out / "study.h5") as file:
            series = {int(name): group["layer/layer_ns"][...] / 1e3 for name, group in file["phases"].items()}
        checked = 0
        for row in figures["layer-time"]["numbers"]:
            self.assertEqual(row["interval"], "6 repeats on other devices")
            if row["what"] == "layer_us.median":
                value, half = jackknifed(lambda kept: median(row["phases"], kept))
                np.testing.assert_allclose([row["value"], row["low"], row["high"]], [value, value - half, value + half],
                                           rtol=1e-6)
                checked += 1
        for row in figures["vibe-projection"]["numbers"]:
            if "base_phases" in row:
                value, half = jackknifed(lambda kept: median(row["phases"], kept) / median(row["base_phases"], kept))
                np.testing.assert_allclose([row["value"], row["low"], row["high"]], [value, value - half, value + half],
                                           rtol=1e-6)
                checked += 1
        self.assertEqual(checked, 4 + 2)

    def test_equal_fleets_are_predicted_where_none_can_be_run(self):
        out = self.dir / "cpu"
        run = start(["run", CPU, "--out", out, "--set", "phases.steps=12", "--set", "model.layers=2",
                     "--set", 'placement.policies=["contiguous"]'], ranks=2, timeout=120)
        self.assertEqual(run.returncode, 0, run.stderr)
        with h5py.File(out / "study.h5", "r+") as file:     # stands for the cell with even loads
            for part in ("phases", "timing"):
                file.copy(f"{part}/0000", f"{part}/0001")
            file["phases/0000"].attrs["even_load"] = np.int64(0)
            file["phases/0001"].attrs["even_load"] = np.int64(1)
            file.attrs["planned_phases"] = np.int64(2)
            group = file["phases/0000"]
            own = group["layer/layer_ns"][...].sum() * 2 / group["layer/busy_sum_ns"][...].sum() - 1
            arrays = [group[name][...] for name in ("tokens", "speed_model/tokens", "speed_model/time_us", "expert_ns",
                                                    "dispatch_ns", "combine_ns")]
        equal = causes.predicted_equal_fleet(*arrays)
        predicted = equal.layer_ns.sum() * 2 / equal.busy_sum_ns.sum() - 1
        figure = self.figures(out)["causes"]
        values = {row["what"]: row["value"] for row in figure["numbers"]}
        for what, wanted in {"total": own, "noise": predicted, "skew": 0, "hardware": own - predicted,
                             "interaction": 0}.items():
            self.assertAlmostEqual(values[what], wanted, places=12)
        self.assertTrue(all(row["equal_fleet_predicted"] for row in figure["numbers"]))
        self.assertIn("predicted here, not measured", figure["caption"])


class Scale(unittest.TestCase):
    def test_131072_devices_within_4_gb(self):
        with tempfile.TemporaryDirectory(prefix="moevar-test-") as folder:
            out = pathlib.Path(folder) / "large"
            Writer(out, sizes=(1024, 16384, 131072), caps=(700.0, 500.0), steps=8)
            run = subprocess.Popen([sys.executable, REPORT, out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True)
            errors = run.stderr.read()
            _, status, usage = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(status)
            run.stderr.close()
            self.assertEqual(run.returncode, 0, errors)
            print(f"131,072 devices, 12 phases: {usage.ru_utime + usage.ru_stime:.1f} s of processor time, "
                  f"{usage.ru_maxrss / 2**20:.2f} GiB")
            self.assertLess(usage.ru_maxrss * 1024, 4e9)
            numbers = json.loads((out / "figures/fleet-speed.json").read_text())["numbers"]
            self.assertEqual([row["devices_known"] for row in numbers], [131072, 131072])
            with h5py.File(out / "study.h5") as file:
                for row in numbers:
                    phase = file[f"phases/{row['phases'][0]:04}"]
                    times = phase["speed_model/time_us"][:, 0]
                    self.assertAlmostEqual(row["cv"], times.std(ddof=1) / times.mean(), places=9)
                    self.assertAlmostEqual(row["max_over_median"], times.max() / np.median(times), places=9)
            self.assertTrue((out / "figures/fleet-speed.png").exists())
            self.assertLess((out / "report.html").stat().st_size, 4e6)


class Bad(unittest.TestCase):
    """Input that is damaged, and what comes of it."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        Writer(cls.dir / "run", sizes=(8,), repeats=2)

    def copy(self, name):
        return pathlib.Path(shutil.copytree(self.dir / "run", self.dir / name))

    def refused(self, folder, words):
        made = report(folder)
        self.assertEqual(made.returncode, 2, made.stderr)
        self.assertRegex(made.stderr, r"^report\.py: [^\n;]+study\.h5: [^\n]+; [^\n]+\n$")
        self.assertIn(words, made.stderr)
        self.assertFalse((folder / "report.html").exists())

    def test_one_line_and_status_2(self):
        foreign = self.copy("foreign")
        with h5py.File(foreign / "study.h5", "r+") as file:
            file.attrs["schema_version"] = np.int64(2)
        self.refused(foreign, "schema_version 2")
        cut = self.copy("cut")
        whole = (cut / "study.h5").read_bytes()
        (cut / "study.h5").write_bytes(whole[:len(whole) // 2])
        self.refused(cut, "cut off")
        (cut / "study.h5").unlink()
        self.refused(cut, "no such file")

    def test_a_missing_phase_is_named_on_the_page(self):
        out = self.copy("missing")
        with h5py.File(out / "study.h5", "r+") as file:
            del file["phases/0002"]
            del file["phases/0001/layer/layer_ns"]
        made = report(out)
        self.assertEqual(made.returncode, 0, made.stderr)
        text = (out / "report.html").read_text()
        self.assertTrue("1 of 4 planned phases is missing: 0002" in text)
        self.assertTrue("phase 0001 is damaged and left out" in text)
        rows = json.loads((out / "figures/tax-by-size.json").read_text())["numbers"]
        self.assertEqual({row["phase"] for row in rows if "straggler_tax" in row}, {0, 3})

    def test_what_is_damaged_within_a_phase_costs_its_figures_alone(self):
        out = self.copy("partly")
        with h5py.File(out / "study.h5", "r+") as file:
            for group in file["phases"].values():
                del group["placement/predicted_us"]
        made = report(out)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertTrue("placement/predicted_us cannot be read" in (out / "report.html").read_text())
        self.assertTrue((out / "figures/tax-by-size.svg").exists())

    def test_the_folder_of_a_killed_run(self):
        """study.h5 as an index of phases/NNNN.h5, one of them not yet listed, one half written, no summary.json."""
        out = self.copy("killed")
        (out / "summary.json").unlink()
        (out / "phases").mkdir()
        with h5py.File(out / "study.h5", "r+") as file:
            file.attrs["complete"], file.attrs["planned_phases"] = np.int64(0), np.int64(6)
            for name in list(file["phases"]):
                with h5py.File(out / "phases" / f"{name}.h5", "w") as part:
                    file.copy(f"phases/{name}", part, "phase")      # links to other phases' speed models stay links
                    file.copy(f"timing/{name}", part, "timing")
                del file["phases"][name], file["timing"][name]
                if name != "0003":
                    file["phases"][name] = h5py.ExternalLink(f"phases/{name}.h5", "/phase")
                    file["timing"][name] = h5py.ExternalLink(f"phases/{name}.h5", "/timing")
        (out / "phases" / "0004.h5.tmp").write_bytes(b"half a phase")
        made = report(out)
        self.assertEqual(made.returncode, 0, made.stderr)
        text = (out / "report.html").read_text()
        for words in ("2 of 6 planned phases are missing: 0004 to 0005", "complete = 0", "summary.json is missing"):
            self.assertTrue(words in text, words)
        rows = json.loads((out / "figures/tax-by-size.json").read_text())["numbers"]
        self.assertEqual({row["phase"] for row in rows if "straggler_tax" in row}, {0, 1, 2, 3})
        cells = json.loads((self.dir / "run" / "summary.json").read_text())["cells"]
        for row in rows:
            if "straggler_tax" in row:
                self.assertAlmostEqual(row["straggler_tax"], cells[row["phase"]]["straggler_tax"], places=12)
        self.assertTrue((out / "figures/fleet-speed.svg").exists())

    def test_a_run_without_phases(self):
        out = self.copy("none")
        with h5py.File(out / "study.h5", "r+") as file:
            for name in list(file["phases"]):
                del file["phases"][name], file["timing"][name]
            for name in list(file["fleet"]):
                kind = file["fleet"][name].dtype
                del file["fleet"][name]
                file["fleet"][name] = np.zeros(0, kind)
            file.attrs["complete"] = np.int64(0)
        made = report(out)
        self.assertEqual(made.returncode, 0, made.stderr)
        text = (out / "report.html").read_text()
        self.assertTrue("4 of 4 planned phases are missing: 0000 to 0003" in text)
        self.assertFalse("<figure" in text)


if __name__ == "__main__":
    unittest.main()
