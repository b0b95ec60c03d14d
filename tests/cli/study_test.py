#!/usr/bin/env python3
"""Studies from the command line to their files: the contract, and what must not depend on how they ran."""

import csv
import json
import math
import subprocess
import unittest

import h5py

from moevar_cli import DATA, SMALL, Case, start

CELL = {"devices", "power_cap_w", "heat", "workload", "policy", "repeat", "layer_us", "straggler_tax",
        "load_imbalance", "idle_fraction", "gap_us", "solve_ms", "moved_experts", "migrate_ms",
        "predicted_layer_us", "lower_bound_layer_us"}


class ModelStudy(Case):
    def test_contract_of_summary_and_study(self):
        out = self.dir / "out"
        summary = self.run_study(SMALL, out, ranks=2)
        self.assertEqual(set(summary) & {"schema", "study", "complete", "device", "cells"},
                         {"schema", "study", "complete", "device", "cells"})
        self.assertIs(summary["complete"], True)
        self.assertEqual(summary["device"], "model")
        self.assertEqual(len(summary["cells"]), 6)
        for cell in summary["cells"]:
            self.assertLessEqual(CELL, set(cell))
            self.assertEqual(cell["layer_us"]["n"], 12)
            self.assertGreaterEqual(cell["straggler_tax"], 0)
            self.assertGreaterEqual(cell["load_imbalance"], 1)
            self.assertLessEqual(cell["lower_bound_layer_us"], cell["predicted_layer_us"] * (1 + 1e-9))
        with h5py.File(out / "study.h5") as file:
            self.assertEqual(file.attrs["complete"], 1)
            self.assertEqual(len(file["phases"]), 6)
            for phase in file["phases"].values():
                self.assertEqual(phase["expert_ns"].shape, (8, 4, 3))
        self.assertEqual(sorted(p.name for p in out.iterdir()), ["study.h5", "summary.json"])

    def test_phases_are_equal_at_any_number_of_ranks_and_again(self):
        # 12 devices: no multiple of 7 ranks; 4: fewer than them
        text = SMALL.replace("experts = 16", "experts = 12").replace("[8]", "[12, 4]")
        runs = {}
        for name, ranks in (("np1", 1), ("again", 1), ("np2", 2), ("np4", 4), ("np7", 7)):
            runs[name] = self.dir / name
            self.run_study(text, runs[name], ranks=ranks)
        for name in ("again", "np2", "np4", "np7"):
            diff = subprocess.run(["h5diff", runs["np1"] / "study.h5", runs[name] / "study.h5", "/phases",
                                   "/phases"], capture_output=True, text=True)
            self.assertEqual((diff.returncode, diff.stdout), (0, ""), name)

    def test_another_seed_is_another_study(self):
        a, b = self.dir / "a", self.dir / "b"
        self.run_study(SMALL, a)
        self.run_study(SMALL, b, "--set", "study.seed=4")
        diff = subprocess.run(["h5diff", a / "study.h5", b / "study.h5", "/phases", "/phases"],
                              capture_output=True, text=True)
        self.assertNotEqual(diff.returncode, 0)

    def test_all_policies_see_the_same_steps(self):
        out = self.dir / "out"
        self.run_study(SMALL, out)
        with h5py.File(out / "study.h5") as file:
            totals = [phase["layer/tokens_sum"][...] for phase in file["phases"].values()]
            firsts = {int(phase.attrs["first_step"]) for phase in file["phases"].values()}
        self.assertEqual(len(firsts), 1)
        for total in totals:
            self.assertTrue((total == 64 * 8 * 2).all())

    def test_a_placement_planned_once_stays(self):
        out = self.dir / "out"
        self.run_study(SMALL, out, "--set", "placement.recompute=once", "--set", "study.repeats=2",
                       "--set", "workload.drift=0.2")
        maps = {}
        with h5py.File(out / "study.h5") as file:
            for phase in file["phases"].values():
                maps.setdefault(phase.attrs["policy"], []).append(
                    phase["placement/physical_to_logical_map"][...].tolist())
        for policy, seen in maps.items():
            self.assertEqual(len(seen), 4)
            self.assertTrue(all(one == seen[0] for one in seen), policy)

    def test_without_timelines_the_totals_stay(self):
        out = self.dir / "out"
        full = self.run_study(SMALL, self.dir / "full")
        summary = self.run_study(SMALL, out, "--set", "record.timelines=false")
        for a, b in zip(full["cells"], summary["cells"]):
            self.assertEqual(a["layer_us"], b["layer_us"])
        with h5py.File(out / "study.h5") as file:
            phase = file["phases/0000"]
            self.assertNotIn("expert_ns", phase)
            self.assertEqual(phase["layer/layer_ns"].shape, (4, 3))

    def test_homogeneous_fleet_pays_for_skew_alone(self):
        out = self.dir / "out"
        summary = self.run_study(SMALL, out, "--set", "fleet.homogeneous=true", "--set", "workload.skew=0",
                                 "--set", "workload.tokens_per_device=16384")
        for cell in summary["cells"]:
            self.assertLess(cell["straggler_tax"], 0.03)

    def test_one_device_waits_for_nobody(self):
        summary = self.run_study(SMALL, self.dir / "out", "--set", "fleet.devices=[1]", ranks=2)
        for cell in summary["cells"]:
            self.assertEqual(cell["straggler_tax"], 0)
            self.assertEqual(cell["idle_fraction"], 0)
            self.assertEqual(cell["load_imbalance"], 1)

    def test_the_table_holds_every_policy(self):
        study = self.write("study.toml", SMALL)
        run = start(["run", study, "--out", self.dir / "out"], ranks=2)
        self.assertEqual(run.returncode, 0, run.stderr)
        for word in ("contiguous", "eplb", "vibe", "p50", "p90", "p99", "700", "500"):
            self.assertIn(word, run.stdout)


class Trace(Case):
    @unittest.skipUnless((DATA / "deepseek-v3-expert-counts").is_dir(), "shared/data is not here")
    def test_contiguous_imbalance_is_what_the_counts_say(self):
        trace = DATA / "deepseek-v3-expert-counts" / "prefill_in1024.json"
        study = "jobs/studies/deepseek-v3-trace.toml"
        from moevar_cli import ROOT
        run = start(["run", ROOT / study, "--set", f"workload.path={trace}", "--set",
                     "fleet.homogeneous=true", "--set", "fleet.devices=[8,32]", "--set",
                     'placement.policies=["contiguous"]', "--set", "phases.steps=4", "--out",
                     self.dir / "out"], ranks=2)
        self.assertEqual(run.returncode, 0, run.stderr)
        cells = json.loads((self.dir / "out" / "summary.json").read_text())["cells"]
        imbalance = {cell["devices"]: cell["load_imbalance"] for cell in cells}
        self.assertAlmostEqual(imbalance[8], 1.67, delta=0.02)
        self.assertAlmostEqual(imbalance[32], 2.29, delta=0.03)
        with h5py.File(self.dir / "out" / "study.h5") as file:
            self.assertEqual(file["phases/0000/expert_ns"].shape[2], 58)


class Plan(Case):
    def test_cpu_devices_need_a_rank_each(self):
        text = SMALL.replace('"model"', '"cpu"').replace("power_cap_w = [700, 500]", "").replace("[8]", "[2]")
        study = self.write("study.toml", text)
        self.assertIn("start it with mpirun -np 2", start(["plan", study, "--ranks", "1"]).stdout)
        self.assertIn("rank 0: 0, rank 1: 1, rank 2: none", start(["plan", study, "--ranks", "3"]).stdout)

    def test_plan_runs_nothing_and_lists_everything(self):
        study = self.write("study.toml", SMALL)
        plan = start(["plan", study, "--ranks", "3"])
        self.assertEqual(plan.returncode, 0, plan.stderr)
        self.assertIn("rank 0: 0-2, rank 1: 3-5, rank 2: 6-7", plan.stdout)
        self.assertIn("6 phases", plan.stdout)
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()), ["study.toml"])
        # the order that the run then takes
        out = self.dir / "out"
        self.run_study(SMALL, out)
        with h5py.File(out / "study.h5") as file:
            ran = [(p.attrs["policy"], float(p.attrs["power_cap_w"])) for p in file["phases"].values()]
        table = plan.stdout.split("phase  repeat")[1].splitlines()[1:7]
        planned = [(line.split()[5], float(line.split()[3])) for line in table]
        self.assertEqual(planned, ran)

    def test_under_mpirun_one_rank_speaks(self):
        plan = start(["plan", self.write("study.toml", SMALL)], ranks=2)
        self.assertEqual(plan.returncode, 0, plan.stderr)
        self.assertEqual(plan.stdout.count("6 phases"), 1)
        self.assertIn("rank 1: 4-7", plan.stdout)


class Fleet(Case):
    def fleet(self, name, devices, *options):
        out = self.dir / name
        run = start(["fleet", "--preset", "h100-sxm5", "--devices", devices, "--out", out, *options])
        self.assertEqual(run.returncode, 0, run.stderr)
        with open(out) as file:
            return list(csv.DictReader(file))

    def test_columns_and_values(self):
        rows = self.fleet("a.csv", 64)
        self.assertEqual(list(rows[0]), ["device", "node", "slot", "sm_clock_mhz", "power_w", "temperature_c",
                                         "relative_time"])
        self.assertEqual(len(rows), 64)
        self.assertEqual((rows[13]["node"], rows[13]["slot"]), ("1", "5"))
        times = [float(row["relative_time"]) for row in rows]
        self.assertTrue(all(0.9 < t < 2.0 for t in times))
        self.assertTrue(all(math.isfinite(float(row["power_w"])) for row in rows))

    def test_fleets_nest(self):
        self.assertEqual(self.fleet("a.csv", 8), self.fleet("b.csv", 100)[:8])

    def test_a_lower_cap_lowers_clocks_and_memory_bound_work_shows_no_spread(self):
        high, low = self.fleet("a.csv", 8), self.fleet("b.csv", 8, "--power-cap-w", "400")
        for a, b in zip(high, low):
            self.assertLess(float(b["sm_clock_mhz"]), float(a["sm_clock_mhz"]))
        for row in self.fleet("c.csv", 8, "--work", "memory"):
            self.assertEqual(float(row["relative_time"]), 1.0)


class Help(Case):
    def test_version_and_help(self):
        self.assertRegex(start(["--version"]).stdout, r"^\d+\.\d+\.\d+")
        text = start(["run", "--help"]).stdout
        for key in ("workload.skew", "fleet.devices", "placement.policies", "--set", "--out"):
            self.assertIn(key, text)


if __name__ == "__main__":
    unittest.main()
