#!/usr/bin/env python3
"""The spread of a modelled fleet against its power cap: jobs/studies/spread-vs-cap.toml and analysis/spread.py."""

import subprocess
import sys
import unittest

from moevar_cli import ROOT, Case, start

STUDY = ROOT / "jobs/studies/spread-vs-cap.toml"


class Spread(Case):
    def table(self, *options):
        """{cap W: {column: cell}}; of columns named alike the later one has a 2 behind its name."""
        out = self.dir / "out"
        run = start(["run", STUDY, "--out", out, *options], timeout=120)
        self.assertEqual(run.returncode, 0, run.stderr)
        made = subprocess.run([sys.executable, ROOT / "analysis/spread.py", out], capture_output=True, text=True)
        self.assertEqual(made.returncode, 0, made.stderr)
        print(made.stdout)
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.stdout.splitlines()]
        names = [f"{name}2" if name in lines[0][:i] else name for i, name in enumerate(lines[0])]
        rows = [dict(zip(names, line)) for line in lines[2:]]
        return {float(row["cap W"]): row for row in rows}

    def test_it_grows_as_the_reference_predicts(self):
        rows = self.table()
        # predictions for infinite fleets; the bad coolers of one fleet of 4,096 move the first by 0.06
        for cap, cv, clock in ((700, 1.88, 1492), (500, 2.80, 1094), (300, 3.64, 580)):
            row = rows[cap]
            self.assertEqual(row["devices"], "4096")
            self.assertAlmostEqual(float(row["CV of clock %"]), cv, delta=0.1)
            self.assertAlmostEqual(float(row["median MHz"]), clock, delta=3)
            # at many tokens time goes with 1 / clock
            self.assertAlmostEqual(float(row["CV of time %"]), cv, delta=0.25)
            self.assertGreater(float(row["max ÷ median"]), 1.1)
        # work bound by memory shows none
        for row in rows.values():
            self.assertEqual((row["CV of time %2"], row["max ÷ median2"]), ("0.00", "1.000"))

    def test_equal_gpus_show_none(self):
        rows = self.table("--set", "fleet.devices=[256]", "--set", "placement.redundant_experts=0", "--set",
                          "fleet.homogeneous=true")
        self.assertEqual(len(rows), 3)
        for row in rows.values():
            self.assertEqual((row["devices"], row["CV of clock %"], row["CV of time %"]), ("256", "0.00", "0.00"))

    def test_a_folder_without_a_run_is_refused_in_one_line(self):
        made = subprocess.run([sys.executable, ROOT / "analysis/spread.py", self.dir], capture_output=True, text=True)
        self.assertNotEqual(made.returncode, 0)
        self.assertRegex(made.stderr, r"^spread\.py: .*study\.h5: [^\n]*\n$")


if __name__ == "__main__":
    unittest.main()
