#!/usr/bin/env python3
"""Studies that grow: draws from a pool, weak scaling, causes taken away, steps until they are precise."""

import json
import subprocess
import unittest

import h5py
import numpy

from moevar_cli import ROOT, SMALL, Case, start

# Large enough to be bound by arithmetic, where modelled GPUs differ.
HEAVY = SMALL.replace("hidden = 512", "hidden = 4096").replace("intermediate = 256", "intermediate = 1536").replace(
    "tokens_per_device = 64", "tokens_per_device = 2048")


def phases_of(out):
    with h5py.File(out / "study.h5") as file:
        return {name: {"attrs": dict(phase.attrs), "devices": phase["devices"][...],
                       "tokens": phase["layer/tokens_sum"][...], "layer_ns": phase["layer/layer_ns"][...],
                       "slots": int(phase["placement"].attrs["slots_per_device"]),
                       "clock": phase["telemetry/sm_clock_mhz"][...]}
                for name, phase in file["phases"].items()}


class Pool(Case):
    POOL = ["--set", "fleet.pool=128", "--set", "study.repeats=4", "--set", "fleet.devices=[2,8,32]", "--set",
            "placement.fill_slots=true", "--set", "conditions.power_cap_w=[500]", "--set", "fleet.transient=false"]

    def test_fleets_are_nested_random_and_of_the_pool(self):
        out = self.dir / "out"
        self.run_study(SMALL, out, *self.POOL, ranks=2)
        draws = {}
        for phase in phases_of(out).values():
            draws.setdefault(phase["attrs"]["repeat"], {})[int(phase["attrs"]["devices"])] = phase["devices"]
        self.assertEqual({repeat: sorted(sizes) for repeat, sizes in draws.items()},
                         {0: [2, 8, 32], 1: [2, 8], 2: [2, 8], 3: [2, 8]})
        for sizes in draws.values():
            self.assertTrue((sizes[8][:2] == sizes[2]).all())
            self.assertEqual(len(set(sizes[8] // 8)), 1, "a whole node")
        self.assertTrue((draws[0][32][:8] == draws[0][8]).all())
        self.assertEqual(len({tuple(sizes[8]) for sizes in draws.values()}), 4)
        with h5py.File(out / "study.h5") as file:
            uuids = file["fleet/uuid"].asstr()[...]
        self.assertEqual(len(uuids), 128)
        self.assertEqual(uuids[77], "model-h100-sxm5-3-77")

    def test_a_gpu_is_the_same_in_every_draw(self):
        out = self.dir / "out"
        self.run_study(SMALL, out, *self.POOL)
        clocks = {}
        for phase in phases_of(out).values():
            for device, clock in zip(phase["devices"], phase["clock"]):
                clocks.setdefault(device, set()).add(clock)
        self.assertGreater(len(clocks), 32)
        self.assertEqual({len(values) for values in clocks.values()}, {1})

    def test_equal_at_any_number_of_ranks(self):
        text = SMALL.replace("layers = 3", "layers = 2")
        runs = []
        for ranks in (1, 3):
            runs.append(self.dir / f"np{ranks}")
            self.run_study(text, runs[-1], *self.POOL, "--set", "study.causes=true", "--set",
                           "fleet.scaling=['strong','weak']", "--set", "fleet.experts_per_device=3", ranks=ranks)
        diff = subprocess.run(["h5diff", runs[0] / "study.h5", runs[1] / "study.h5", "/phases", "/phases"],
                              capture_output=True, text=True)
        self.assertEqual((diff.returncode, diff.stdout), (0, ""))


class Weak(Case):
    def test_experts_grow_with_the_fleet_and_skew_does_not(self):
        out = self.dir / "out"
        cells = self.run_study(SMALL.replace("layers = 3", "layers = 12"), out, "--set", "fleet.devices=[8,64,512]", "--set",
                               "fleet.scaling=['strong','weak']", "--set", "fleet.experts_per_device=8", "--set",
                               "placement.fill_slots=true", "--set", "placement.policies=['contiguous']", "--set",
                               "conditions.power_cap_w=[]", "--set", "fleet.transient=false", "--set",
                               "workload.skew=0.8", "--set", "workload.tokens_per_device=4096")["cells"]
        experts = {(c["scaling"], c["devices"]): c["experts"] for c in cells}
        self.assertEqual(experts, {("strong", 8): 16, ("strong", 64): 16, ("strong", 512): 16, ("weak", 8): 64,
                                   ("weak", 64): 512, ("weak", 512): 4096})
        for phase in phases_of(out).values():
            attrs = phase["attrs"]
            self.assertEqual(phase["slots"], 8 if attrs["scaling"] == "weak" else max(1, 16 // attrs["devices"]))
        # of 12 layers' hottest expert the share of tokens beside the mean's, whatever the number of experts
        shares = {}
        with h5py.File(out / "study.h5") as file:
            for phase in file["phases"].values():
                if phase.attrs["scaling"] == "weak":
                    busiest = phase["layer/tokens_max"][...] * phase.attrs["devices"] / phase["layer/tokens_sum"][...]
                    shares[int(phase.attrs["devices"])] = busiest.mean()
        # more devices: a maximum over more, but of the same distribution (its own Zipf would give 6 and 29 times)
        self.assertLess(shares[512], 4 * shares[8])


class Causes(Case):
    def test_each_cause_goes_away(self):
        out = self.dir / "out"
        cells = self.run_study(HEAVY, out, "--set", "study.causes=true", "--set", "fleet.spread=2", "--set",
                               "placement.policies=['contiguous']", "--set", "conditions.power_cap_w=[500]", "--set",
                               "workload.skew=0.6", "--set", "fleet.transient=false", ranks=2)["cells"]
        tax = {(c["even_load"], c["equal_fleet"]): c["straggler_tax"] for c in cells}
        self.assertEqual(len(tax), 4)
        self.assertLess(tax[True, True], 0.03)
        self.assertGreater(tax[True, False], tax[True, True] + 0.01)
        self.assertGreater(tax[False, True], tax[True, True] + 0.1)
        steps = {phase["attrs"]["first_step"] for phase in phases_of(out).values()}
        self.assertEqual(len(steps), 1)
        for phase in phases_of(out).values():
            equal = bool(phase["attrs"]["equal_fleet"])
            self.assertEqual(len(set(phase["clock"])) == 1, equal)

    def test_models_measured_once_stay_the_cells_own(self):
        once = ["--set", "phases.profile='once'", "--set", "study.order='listed'", "--set", "conditions.power_cap_w=[700,400]",
                "--set", "fleet.transient=false"]
        plain = self.run_study(HEAVY, self.dir / "plain", *once)["cells"]
        split = self.run_study(HEAVY, self.dir / "split", *once, "--set", "study.causes=true")["cells"]
        own = [c for c in split if not c["even_load"] and not c["equal_fleet"]]
        self.assertEqual([(c["policy"], c["power_cap_w"], c["predicted_layer_us"]) for c in own],
                         [(c["policy"], c["power_cap_w"], c["predicted_layer_us"]) for c in plain])

    def test_recorded_counts_lose_their_skew_too(self):
        counts = self.write("counts.json", json.dumps({"logical_count": [[100 * (e % 4) + 1 for e in range(16)]] * 3}))
        text = SMALL.replace('kind = "synthetic"', f'kind = "counts"\npath = "{counts}"')
        cells = self.run_study(text, self.dir / "out", "--set", "study.causes=true")["cells"]
        imbalance = {c["even_load"]: c["load_imbalance"] for c in cells if c["policy"] == "contiguous" and not c["equal_fleet"]}
        self.assertLess(imbalance[True], imbalance[False] - 0.1)

    def test_cpu_devices_lose_their_skew_alone(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        cells = self.run_study(text, self.dir / "out", "--set", "study.causes=true", "--set", "model.layers=2",
                               "--set", "workload.tokens_per_device=32", "--set", "phases.steps=3", "--set",
                               "placement.policies=['contiguous']", ranks=2)["cells"]
        self.assertEqual([(c["even_load"], c["equal_fleet"]) for c in cells], [(False, False), (True, False)])


class Precision(Case):
    def test_noisy_phases_take_more_steps(self):
        out = self.dir / "out"
        cells = self.run_study(HEAVY, out, "--set", "phases.precision=0.002", "--set", "phases.steps=8", "--set",
                               "phases.max_steps=4000", "--set", "conditions.power_cap_w=[]", "--set",
                               "placement.policies=['contiguous']", "--set", "fleet.transient=false", ranks=2)["cells"]
        self.assertEqual(cells[0]["stop_reason"], "precision")
        self.assertGreaterEqual(cells[0]["steps"], 32)
        self.assertEqual(cells[0]["steps"] % 8, 0)
        self.assertEqual(cells[0]["layer_us"]["n"], cells[0]["steps"] * 3)

    def test_the_most_steps_end_it_on_real_cores(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        cells = self.run_study(text, self.dir / "out", "--set", "phases.precision=1e-9", "--set", "phases.steps=4",
                               "--set", "phases.max_steps=10", "--set", "model.layers=2", "--set",
                               "workload.tokens_per_device=32", "--set", "placement.policies=['eplb']", ranks=2)["cells"]
        self.assertEqual([(c["stop_reason"], c["steps"]) for c in cells], [("max_n", 10)])
        with h5py.File(self.dir / "out/study.h5") as file:
            phase = file["phases/0000"]
            arrivals = phase["arrival_ns"][...].reshape(2, -1)
            # a device arrives in every layer after the one before, over blocks too
            self.assertTrue((numpy.diff(arrivals) > 0).all())

    def test_time_ends_it(self):
        cells = self.run_study(HEAVY, self.dir / "out", "--set", "phases.precision=1e-9", "--set", "phases.max_steps=4000",
                               "--set", "phases.time_limit_s=1e-6", "--set", "placement.policies=['eplb']")["cells"]
        self.assertEqual({(c["stop_reason"], c["steps"]) for c in cells}, {("time_limit", 4)})


class Many(Case):
    def test_every_phase_of_a_study_of_many_is_told_of_at_the_end(self):
        text = SMALL.replace("layers = 3", "layers = 1").replace("steps = 4", "steps = 1")
        out = self.dir / "out"
        cells = self.run_study(text, out, "--set", "study.repeats=50", "--set", "fleet.transient=false")["cells"]
        self.assertEqual(len(cells), 300)
        self.assertFalse((out / "phases").exists())


class Shipped(Case):
    def test_the_scale_study_plans_what_it_says(self):
        run = start(["plan", ROOT / "jobs/studies/scale.toml", "--ranks", 2])
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("131072", run.stdout)
        self.assertIn("drawn from 131072 devices", run.stdout)

    def test_its_ladder_up_to_1024_devices(self):
        text = (ROOT / "jobs/studies/scale.toml").read_text()
        cells = self.run_study(text, self.dir / "out", "--set", "fleet.devices=[1,8,128,1024]", "--set", "fleet.pool=8192",
                               "--set", "study.repeats=2", ranks=2)["cells"]
        self.assertEqual(len(cells), 4 * 2 * 2 * 4 * 2)
        alone = [c["straggler_tax"] for c in cells if c["devices"] == 1]
        self.assertLess(max(alone), 1e-9)


if __name__ == "__main__":
    unittest.main()
