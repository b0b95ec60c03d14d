"""Tables, and what figures have in common: what they read and what they leave out, from written files."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import paths
import numpy as np
from moevar import figures
from moevar.figures import layer_time, slowest_law, tax_idle
from moevar.study import StudyFile
from synthetic_study import Writer


def rows_of(markdown):
    """The rows of a Markdown table by the names of its columns; of columns named alike the first."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()
             if line.startswith("|")]
    return [dict(zip(reversed(lines[0]), reversed(line))) for line in lines[2:]]


class Written(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def write(self, name, **options):
        """A run's folder and its cells in summary.json."""
        folder = self.dir / name
        Writer(folder, **options)
        return folder, json.loads((folder / "summary.json").read_text())["cells"]

    def start(self, program, *arguments):
        made = subprocess.run([sys.executable, paths.ROOT / "analysis" / program, *arguments], capture_output=True,
                              text=True, timeout=120)
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        return made.stdout


class Table(Written):
    def test_phases_that_split_causes_are_left_out_and_counted(self):
        run, cells = self.write("run", sizes=(8,), repeats=2, causes=True)
        out = self.start("table.py", run)
        (row,) = rows_of(out)
        own = [cell for cell in cells if not cell["even_load"] and not cell["equal_fleet"]]
        self.assertEqual((len(cells), len(own)), (16, 4))
        for policy in ("contiguous", "eplb"):
            taxes = [cell["straggler_tax"] for cell in own if cell["policy"] == policy]
            everything = [cell["straggler_tax"] for cell in cells if cell["policy"] == policy]
            self.assertEqual(row[f"tax %, {policy}"], f"{100 * np.mean(taxes):.1f}")
            self.assertNotEqual(row[f"tax %, {policy}"], f"{100 * np.mean(everything):.1f}")
        self.assertIn("Left out: 12 phases", out)

    def test_a_study_of_its_own_cells_alone_leaves_nothing_out(self):
        run, _ = self.write("run", sizes=(8,))
        self.assertNotIn("Left out", self.start("table.py", run))

    def test_strong_and_weak_scaling_are_rows_of_their_own(self):
        run, cells = self.write("run", sizes=(8, 16), policies=("eplb",), scalings=("strong", "weak"))
        rows = rows_of(self.start("table.py", run))
        self.assertEqual([(row["scaling"], row["devices"]) for row in rows],
                         [("strong", "8"), ("weak", "8"), ("strong", "16"), ("weak", "16")])
        for row, cell in zip(rows, cells):
            self.assertEqual(row["layer µs, eplb"], f"{cell['layer_us']['mean']:.0f}")

    def test_a_policy_that_a_run_lacks_is_a_dash(self):
        one, _ = self.write("one", sizes=(8,), policies=("contiguous",))
        two, _ = self.write("two", sizes=(8,), policies=("eplb",))
        first, second = rows_of(self.start("table.py", one, two))
        self.assertEqual((first["tax %, eplb"], second["tax %, contiguous"], second["× eplb"]), ("–", "–", "–"))
        self.assertNotEqual(first["tax %, contiguous"], "–")


class Spread(Written):
    def test_devices_made_equal_do_not_count(self):
        # a study's order is random: equal fleets may come first
        run, cells = self.write("run", sizes=(64,), caps=(400.0, 700.0), causes=True, backwards=True)
        self.assertTrue(cells[0]["equal_fleet"])
        rows = rows_of(self.start("spread.py", run))
        self.assertEqual([row["cap W"] for row in rows], ["700", "400"])
        for row in rows:
            self.assertGreater(float(row["CV of clock %"]), 1)
            self.assertGreater(float(row["CV of time %"]), 1)


class Figures(Written):
    def drawn(self, folder, *modules):
        study = StudyFile.open(folder)
        self.addCleanup(study.close)
        return study, [drawing for module in modules for drawing in module.draw(study)]

    def test_policies_side_by_side_are_the_same_cells_in_both_figures(self):
        run, cells = self.write("run", sizes=(8, 16), causes=True)
        study, (times, taxes) = self.drawn(run, layer_time, tax_idle)
        panels, note = figures.policy_panels(study)
        self.assertEqual([devices for _, devices in panels], [8, 16])
        self.assertEqual(note, "")
        own = {cell["phase"] for cell in cells if not cell["even_load"] and not cell["equal_fleet"]}
        for drawing in (times, taxes):
            self.assertEqual({phase for row in drawing.numbers for phase in row["phases"]}, own)

    def test_the_law_of_one_fleet_is_fitted_once(self):
        run, _ = self.write("run", sizes=(8, 64), scalings=("strong", "weak"))
        fitted = []
        law_of = slowest_law.law_of
        self.addCleanup(setattr, slowest_law, "law_of", law_of)
        slowest_law.law_of = lambda fleet, *rest: fitted.append(fleet) or law_of(fleet, *rest)
        _, drawings = self.drawn(run, slowest_law)
        self.assertEqual(len(fitted), 1)
        rows = [row for drawing in drawings for row in drawing.numbers if row["what"] == "law"]
        by_scaling = [[{**row, "scaling": "", "fleet_phases": []} for row in rows if row["scaling"] == scaling]
                      for scaling in ("strong", "weak")]
        self.assertTrue(by_scaling[0])
        self.assertEqual(*by_scaling)

    def test_a_report_of_pictures_has_a_row_of_numbers_a_line(self):
        run, _ = self.write("run", sizes=(8, 16))
        self.start("report.py", run, "--png")
        self.assertEqual(list((run / "figures").glob("*.svg")), [])
        names = {path.stem for path in (run / "figures").glob("*.json")}
        self.assertIn("tax-by-size", names)
        for name in names:
            picture = (run / "figures" / f"{name}.png").read_bytes()
            self.assertEqual(picture[:8], b"\x89PNG\r\n\x1a\n")
            text = (run / "figures" / f"{name}.json").read_text()
            rows = text.split('"numbers": [\n')[1].splitlines()[:-2]
            self.assertEqual([json.loads(row.rstrip(",")) for row in rows], json.loads(text)["numbers"])
        page = (run / "report.html").read_text()
        self.assertEqual((page.count("<svg"), page.count("data:image/png") >= len(names)), (0, True))

    def test_the_laws_of_different_fleets_are_not_confused(self):
        run, _ = self.write("run", sizes=(8, 64), caps=(700.0, 400.0))
        _, drawings = self.drawn(run, slowest_law)
        values = {(row["power_cap_w"], row["value"]) for drawing in drawings for row in drawing.numbers
                  if row["what"] == "law" and row["law"] == "exact" and row["devices"] == 64}
        self.assertEqual(len({value for _, value in values}), 2)


if __name__ == "__main__":
    unittest.main()
