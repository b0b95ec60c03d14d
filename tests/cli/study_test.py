#!/usr/bin/env python3
"""Studies from the command line to their files: the contract, and what must not depend on how they ran."""

import csv
import json
import math
import pathlib
import subprocess
import tempfile
import unittest

import h5py
import numpy

from moevar_cli import DATA, SMALL, Case, start

CELL = {"devices", "power_cap_w", "heat", "workload", "policy", "repeat", "layer_us", "straggler_tax",
        "load_imbalance", "idle_fraction", "gap_us", "solve_ms", "moved_experts", "migrate_ms",
        "predicted_layer_us", "lower_bound_layer_us", "solved_because"}


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
        self.assertEqual(sorted(p.name for p in out.iterdir()), ["manifest.json", "study.h5", "summary.json"])

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

    def test_why_a_placement_is_the_one(self):
        options = ("--set", "study.repeats=2", "--set", "workload.drift=0.2")
        for recompute, expected in (("between-phases", {"between-phases"}), ("once", {"first", "kept"})):
            summary = self.run_study(SMALL, self.dir / recompute, *options, "--set", f"placement.recompute={recompute}")
            self.assertEqual({cell["solved_because"] for cell in summary["cells"]}, expected)
            first = {}
            for cell in sorted(summary["cells"], key=lambda cell: cell["phase"]):
                self.assertEqual(cell["solved_because"] == "first",
                                 recompute == "once" and cell["policy"] not in first)
                self.assertEqual(cell["solve_ms"] > 0, cell["solved_because"] != "kept")
                first.setdefault(cell["policy"], cell)

    def test_predictions_are_means_over_the_trace(self):
        burst = ("--set", "workload.burst=1", "--set", "phases.steps=8", "--set", "workload.tokens_per_device=16384")
        few = self.run_study(SMALL, self.dir / "few", *burst, "--set", "placement.trace_steps=1")
        many = self.run_study(SMALL, self.dir / "many", *burst, "--set", "placement.trace_steps=8")
        more = self.run_study(SMALL, self.dir / "more", *burst, "--set", "placement.trace_steps=100")
        for a, b, c in zip(few["cells"], many["cells"], more["cells"]):
            self.assertNotEqual(a["predicted_layer_us"], b["predicted_layer_us"])
            self.assertEqual(b["predicted_layer_us"], c["predicted_layer_us"])
            self.assertEqual(a["layer_us"], b["layer_us"])

    def test_predictions_follow_from_steps_before_spread_evenly(self):
        # repeat 1 plans with the steps that repeat 0 ran, where contiguous brought each device its tokens
        out = self.dir / "out"
        self.run_study(SMALL, out, "--set", "study.repeats=2", "--set", 'placement.policies=["contiguous"]', "--set",
                       "conditions.power_cap_w=[500]", "--set", "phases.steps=8", "--set", "placement.trace_steps=3",
                       "--set", "workload.burst=1", "--set", "workload.tokens_per_device=16384")
        with h5py.File(out / "study.h5") as file:
            tokens = file["phases/0000/tokens"][:, [1, 4, 6], :]  # the middles of three thirds of eight steps
            phase = file["phases/0001"]
            curves = zip(phase["speed_model/tokens"], phase["speed_model/time_us"])
            times = numpy.array([numpy.interp(mine, [0, *grid], [0, *time]) for mine, (grid, time) in zip(tokens, curves)])
            self.assertLess(tokens.max(), phase["speed_model/tokens"][...].max())
            numpy.testing.assert_allclose(phase["placement/predicted_us"], times.max(axis=0).mean(axis=0), rtol=1e-12)

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


class Replicas(Case):
    def test_every_fleet_has_experts_plus_redundant_slots(self):
        text = SMALL.replace('["contiguous", "eplb", "vibe"]',
                             '["contiguous", "round_robin", "random", "eplb", "vibe", "minmax"]')
        for ranks in (1, 2, 4):
            out = self.dir / f"np{ranks}"
            summary = self.run_study(text, out, "--set", "placement.redundant_experts=8", "--set",
                                     "fleet.devices=[1,2,4,8]", "--set", "workload.skew=1.2", ranks=ranks)
            for cell in summary["cells"]:
                self.assertLessEqual(cell["lower_bound_layer_us"], cell["predicted_layer_us"] * (1 + 1e-9))
            with h5py.File(out / "study.h5") as file:
                for phase in file["phases"].values():
                    self.assertEqual(phase["placement"].attrs["slots_per_device"] * phase.attrs["devices"], 24)
                    place = phase["placement"]
                    for experts, shares in zip(place["physical_to_logical_map"], place["slot_share"]):
                        sums = [sum(s for e, s in zip(experts, shares) if e == expert) for expert in range(16)]
                        for total in sums:
                            self.assertAlmostEqual(total, 1)
                    self.assertTrue((phase["layer/tokens_sum"][...] == 64 * phase.attrs["devices"] * 2).all())
        for ranks in (2, 4):
            diff = subprocess.run(["h5diff", self.dir / "np1/study.h5", self.dir / f"np{ranks}/study.h5", "/phases",
                                   "/phases"], capture_output=True, text=True)
            self.assertEqual((diff.returncode, diff.stdout), (0, ""), ranks)

    def test_replicas_of_hot_experts_even_out_the_load(self):
        options = ("--set", "workload.skew=1.5", "--set", "workload.tokens_per_device=16384")
        imbalance = {}
        for redundant in (0, 8, 16):
            summary = self.run_study(SMALL, self.dir / str(redundant), *options, "--set",
                                     f"placement.redundant_experts={redundant}")
            imbalance[redundant] = max(cell["load_imbalance"] for cell in summary["cells"] if cell["policy"] == "eplb")
        self.assertGreater(imbalance[0], imbalance[8] + 0.1)
        self.assertLess(imbalance[16], 1.1)


def knows(policy):
    """Whether the program lists the policy."""
    with tempfile.TemporaryDirectory() as folder:
        study = pathlib.Path(folder) / "study.toml"
        study.write_text(SMALL)
        return policy in start(["run", study, "--out", folder, "--set", 'placement.policies=["q"]']).stderr


@unittest.skipUnless(knows("harmoeny"), "no policy harmoeny")
class PerStep(Case):
    POLICIES = ("--set", 'placement.policies=["contiguous", "harmoeny"]', "--set", "workload.skew=1.2", "--set",
                "workload.tokens_per_device=16384", "--set", "conditions.power_cap_w=[500]")

    def test_every_step_has_its_own_placement_and_pays_no_transfer(self):
        for ranks in (1, 2):
            self.run_study(SMALL, self.dir / f"np{ranks}", *self.POLICIES, ranks=ranks)
        diff = subprocess.run(["h5diff", self.dir / "np1/study.h5", self.dir / "np2/study.h5", "/phases", "/phases"],
                              capture_output=True, text=True)
        self.assertEqual((diff.returncode, diff.stdout), (0, ""))
        cells = {cell["policy"]: cell for cell in json.loads((self.dir / "np1/summary.json").read_text())["cells"]}
        self.assertEqual(cells["harmoeny"]["solved_because"], "every step")
        self.assertEqual(cells["harmoeny"]["migrate_ms"], 0)
        self.assertGreater(cells["harmoeny"]["moved_experts"], 0)
        self.assertLess(cells["harmoeny"]["load_imbalance"], 1.01)
        self.assertLess(cells["harmoeny"]["predicted_layer_us"], cells["contiguous"]["predicted_layer_us"])
        with h5py.File(self.dir / "np1/study.h5") as file:
            for cell in cells.values():
                self.assertEqual(file[f"phases/{cell['phase']:04}/placement"].attrs["per_step"],
                                 cell["policy"] == "harmoeny")

    def test_moves_are_counted_from_home(self):
        out = self.dir / "out"
        self.run_study(SMALL, out, *self.POLICIES, "--set", "phases.steps=1")
        with h5py.File(out / "study.h5") as file:
            phase = next(p for p in file["phases"].values() if p.attrs["policy"] == "harmoeny")
            place = phase["placement"]
            slots = int(place.attrs["slots_per_device"])
            away = sum(share > 0 and slot // slots != expert // 2
                       for experts, shares in zip(place["physical_to_logical_map"], place["slot_share"])
                       for slot, (expert, share) in enumerate(zip(experts, shares)))
            self.assertEqual(phase.attrs["moved_experts"], away)
            self.assertEqual(phase.attrs["moved_bytes"], away * 3 * 512 * 256 * 2)

    def test_cpu_devices_do_not(self):
        text = SMALL.replace('"model"', '"cpu"').replace("[8]", "[1]").replace("power_cap_w = [700, 500]", "")
        study = self.write("study.toml", text.replace('"eplb"', '"harmoeny"'))
        run = start(["run", study, "--out", self.dir / "out"])
        self.assertEqual(run.returncode, 2)
        self.assertRegex(run.stderr, r"study.toml:\d+: placement.policies: harmoeny plans every step anew; only")


class OnDrift(Case):
    LARGE = ("--set", "placement.recompute=on-drift", "--set", "phases.steps=20", "--set", "study.order=listed",
             "--set", "workload.tokens_per_device=16384")

    def phases(self, out):
        """Cells with their phases' maps and speed models, in the order in which they ran."""
        cells = json.loads((out / "summary.json").read_text())["cells"]
        with h5py.File(out / "study.h5") as file:
            for cell in cells:
                phase = file["phases"][f"{cell['phase']:04}"]
                cell["map"] = phase["placement/physical_to_logical_map"][...].tolist()
                cell["speeds"] = phase["speed_model/time_us"][...]
                cell["expert_ns"] = phase["expert_ns"][...].astype(float)
        return sorted(cells, key=lambda cell: cell["phase"])

    def test_drifting_loads_are_placed_anew_and_only_then(self):
        out = self.dir / "out"
        self.run_study(SMALL, out, *self.LARGE, "--set", "study.repeats=8", "--set", "workload.drift=0.02", "--set",
                       "workload.skew=1", "--set", "conditions.power_cap_w=[700]")
        before = {}
        reasons = []
        for cell in self.phases(out):
            policy, because = cell["policy"], cell["solved_because"]
            self.assertEqual(because == "first", policy not in before)
            if because == "kept":
                self.assertEqual(cell["map"], before[policy])
                self.assertEqual(cell["solve_ms"], 0)
            elif because != "first":
                self.assertRegex(because, r"^cosine 0\.\d+ in layer [012] after \d+ steps$")
                self.assertGreater(float(because.split()[1]), 0.05)
                self.assertEqual(int(because.split()[6]) % 10, 0)
                self.assertEqual(cell["map"] == before[policy], policy == "contiguous")
            before[policy] = cell["map"]
            reasons.append(because.split()[0])
        self.assertGreaterEqual(reasons.count("cosine"), 3)
        self.assertGreaterEqual(reasons.count("kept"), 3)

    def test_steady_loads_are_never_placed_anew(self):
        summary = self.run_study(SMALL, self.dir / "out", *self.LARGE, "--set", "study.repeats=4", "--set",
                                 "conditions.power_cap_w=[700]")
        self.assertEqual({cell["solved_because"] for cell in summary["cells"]}, {"first", "kept"})

    def test_devices_that_leave_their_models_are_profiled_alone(self):
        # profiled once, soaked; colder GPUs then run faster, the worst cooled ones most of all
        out = self.dir / "out"
        self.run_study(SMALL, out, *self.LARGE, "--set", "phases.profile=once", "--set", "fleet.spread=4", "--set",
                       "fleet.transient=false", "--set", 'conditions.heat=["soaked", "neighbours", "ambient"]', "--set", "conditions.power_cap_w=[500]",
                       "--set", 'placement.policies=["vibe"]')
        first, second, third = self.phases(out)
        self.assertEqual((first["solved_because"], second["solved_because"]), ("first", "kept"))
        self.assertRegex(third["solved_because"], r"^residual: (\d+ devices, )?device \d at [01]\.\d\d x its model$")
        self.assertTrue((second["speeds"] == first["speeds"]).all())
        change = abs(second["expert_ns"].mean(axis=(1, 2)) / first["expert_ns"].mean(axis=(1, 2)) - 1)
        profiled = (third["speeds"] != first["speeds"]).any(axis=1)
        self.assertTrue(profiled[change > 0.055].all())
        self.assertFalse(profiled[change < 0.045].any())
        self.assertTrue(0 < profiled.sum() < 8, profiled)

    def test_a_cap_that_changes_under_models_measured_once(self):
        out = self.dir / "out"
        self.run_study(SMALL, out, *self.LARGE, "--set", "phases.profile=once", "--set",
                       "conditions.power_cap_w=[700, 500, 400]")
        cells = self.phases(out)
        self.assertEqual([cell["solved_because"] for cell in cells[:6]], ["first"] * 3 + ["kept"] * 3)
        for cell in cells[6:]:
            self.assertRegex(cell["solved_because"], "^residual: 8 devices")
            self.assertTrue((cell["speeds"] > cells[0]["speeds"]).any(axis=1).all())

    def test_decisions_are_equal_at_any_number_of_ranks(self):
        for ranks in (1, 2, 4):
            self.run_study(SMALL, self.dir / f"np{ranks}", *self.LARGE, "--set", "study.repeats=3", "--set",
                           "workload.drift=0.02", "--set", "workload.skew=1", "--set", "phases.profile=once", "--set",
                           "fleet.devices=[8, 4]", "--set", "placement.redundant_experts=8", ranks=ranks)
        reasons = {cell["solved_because"].split()[0] for cell in self.phases(self.dir / "np1")}
        self.assertLessEqual({"first", "kept"}, reasons)
        self.assertTrue(reasons & {"cosine", "residual:"}, reasons)
        for ranks in (2, 4):
            diff = subprocess.run(["h5diff", self.dir / "np1/study.h5", self.dir / f"np{ranks}/study.h5", "/phases",
                                   "/phases"], capture_output=True, text=True)
            self.assertEqual((diff.returncode, diff.stdout), (0, ""), ranks)
            self.assertEqual([cell["solved_because"] for cell in self.phases(self.dir / f"np{ranks}")],
                             [cell["solved_because"] for cell in self.phases(self.dir / "np1")])


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
        planned = [(line.split()[6], float(line.split()[4])) for line in table]
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
