#!/usr/bin/env python3
"""A study's caps and heat on GPUs of a fake NVML, with CPU cores for the arithmetic."""

import subprocess
import sys
import threading
import unittest

import h5py
import numpy as np

from fake_nvml import FakeGpus
from moevar_cli import ENVIRONMENT, MOEVAR, ROOT, Case

STUDY = """
[study]
name = "conditions"
order = "listed"
[model]
hidden = 64
intermediate = 32
experts = 8
top_k = 2
layers = 2
[workload]
kind = "synthetic"
tokens_per_device = 32
[fleet]
device = "cpu"
devices = [2]
[conditions]
power_cap_w = [500, 300]
heat = ["ambient"]
caps = "set"
steady_window_s = 0.5
heat_limit_s = 6.0
[placement]
policies = ["contiguous"]
[phases]
steps = 60
warmup_steps = 1
"""


class Conditions(Case):
    def setUp(self):
        super().setUp()
        self.gpus = FakeGpus(self.dir / "gpus", 3, tau_ms=1_500)
        self.gpus.set(0, requested_mw=650_000)
        self.found = self.gpus.limits_w()
        self.environment = dict(ENVIRONMENT, **self.gpus.environment(self.dir / "state"))

    def start(self, *options, ranks=2, out="out"):
        """Runs the study and checks that it leaves the limits as they were."""
        study = self.write("study.toml", STUDY)
        run = subprocess.run(["mpirun", "--oversubscribe", "-np", str(ranks), MOEVAR, "run", str(study), "--out",
                              str(self.dir / out), *options], env=self.environment, capture_output=True, text=True,
                             timeout=120)
        self.assertEqual([requested for requested, _ in self.gpus.limits_w()],
                         [requested for requested, _ in self.found], run.stderr)
        return run

    def done(self, *options, ranks=2, out="out"):
        run = self.start(*options, ranks=ranks, out=out)
        self.assertEqual(run.returncode, 0, run.stderr)
        schema = subprocess.run([sys.executable, ROOT / "tests/analysis/schema_test.py", self.dir / out],
                                capture_output=True, text=True)
        self.assertEqual(schema.returncode, 0, schema.stdout + schema.stderr)
        self.table = run.stdout
        return h5py.File(self.dir / out / "study.h5")["phases"]

    def refused(self, status, pattern, *options, ranks=2):
        run = self.start(*options, ranks=ranks)
        lines = [line for line in run.stderr.splitlines() if line.startswith("moevar: ")]
        self.assertEqual(run.returncode, status, run.stderr)
        self.assertEqual(len(lines), 1, run.stderr)
        self.assertRegex(lines[0], pattern)
        self.assertFalse((self.dir / "out").exists(), "refused before anything ran")

    def column(self, phase, name):
        return list(phase["telemetry"][name][...])

    def test_set(self):
        phases = self.done("--set", "record.telemetry_hz=50", "--set", 'conditions.heat=["soaked"]')
        for phase, cap in zip(phases.values(), (500, 300)):
            telemetry = phase["telemetry"]
            self.assertEqual((telemetry.attrs["caps"], telemetry.attrs["sensors"]), ("set", "stand-in"))
            self.assertEqual(self.column(phase, "requested_cap_w"), [cap, cap])
            self.assertEqual(self.column(phase, "enforced_cap_w"), [cap, cap])
            self.assertEqual(self.column(phase, "default_cap_w"), [700, 700])
            self.assertEqual((self.column(phase, "min_cap_w"), self.column(phase, "max_cap_w")), ([200] * 2, [700] * 2))
            # the fake's die goes from 30 to 66 degrees, whole degrees are steady early, and it cools while it is read
            self.assertGreater(min(self.column(phase, "temperature_c")), 38)
            self.assertGreater(telemetry["series/readings"][...].min(), 0)
            self.assertEqual(telemetry["step_sm_clock_mhz"].shape, (2, 60))
            self.assertTrue((telemetry["energy_mj"][...] > 0).all())

    def test_ambient_stays_cool(self):
        phases = self.done("--set", 'conditions.heat=["ambient", "soaked"]', "--set", "conditions.power_cap_w=[500]")
        cool, hot = (np.array(self.column(phase, "temperature_c")) for phase in phases.values())
        self.assertLess(cool.max(), 36)
        self.assertGreater(hot.min(), 38)

    def test_neighbours_burn_while_the_fleet_is_measured(self):
        seen = []  # whether GPU 2 burns, as long as the run holds the limits
        watching = threading.Event()

        def watch():
            while not watching.wait(0.002):
                if self.gpus.limits_w()[0][0] == 500:
                    seen.append(self.gpus.get(2, "burning"))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            phases = self.done("--set", 'conditions.heat=["neighbours"]', "--set", "conditions.power_cap_w=[500]",
                               "--set", "phases.steps=3000", ranks=3)
        finally:
            watching.set()
            thread.join()
        self.assertLess(max(self.column(phases["0000"], "temperature_c")), 36, "the fleet idles until then")
        self.assertGreater(phases["0000/layer/layer_ns"][...].sum(), 0.2e9, "steps that last")
        self.assertGreater(np.mean(seen[-len(seen) // 4:]), 0.5, "it burns to the end")
        self.assertEqual(self.gpus.get(2, "burning"), 0, "and no longer")

    def test_neighbours_without_any(self):
        self.assertEqual(self.start("--set", 'conditions.heat=["neighbours"]').returncode, 3)

    def test_observe_writes_nothing_and_says_so(self):
        phases = self.done("--set", 'conditions.caps="observe"')
        self.assertEqual([self.gpus.get(gpu, "writes") for gpu in range(3)], [0, 0, 0])
        for phase in phases.values():
            self.assertEqual(phase["telemetry"].attrs["caps"], "observe")
            self.assertEqual(self.column(phase, "enforced_cap_w"), [650, 700])
        self.assertIn("cap not set, only observed", self.table)

    def test_observe_without_a_request(self):
        phases = self.done("--set", 'conditions.caps="observe"', "--set", "conditions.power_cap_w=[]")
        self.assertTrue(np.isnan(self.column(phases["0000"], "requested_cap_w")).all())
        self.assertNotIn("observed", self.table)

    def test_verify_accepts_what_the_site_has_set(self):
        self.gpus.set_all(requested_mw=400_000)
        self.found = self.gpus.limits_w()
        phases = self.done("--set", 'conditions.caps="verify"', "--set", "conditions.power_cap_w=[400]")
        self.assertEqual(self.column(phases["0000"], "enforced_cap_w"), [400, 400])
        self.assertEqual([self.gpus.get(gpu, "writes") for gpu in range(3)], [0, 0, 0])

    def test_verify_refuses_what_differs(self):
        self.gpus.set(1, requested_mw=400_000)
        self.found = self.gpus.limits_w()
        self.refused(3, "GPU-.*wants 500 W, .* W is enforced", "--set", 'conditions.caps="verify"', "--set",
                     "conditions.power_cap_w=[500]")

    def test_a_cap_out_of_range(self):
        self.refused(2, "800 W.*200 to 700 W", "--set", "conditions.power_cap_w=[500, 800]")
        self.assertEqual([self.gpus.get(gpu, "writes") for gpu in range(3)], [0, 0, 0])

    def test_no_permission(self):
        self.gpus.set_all(refuse=1)
        self.refused(3, "ermission")

    def test_fewer_gpus_than_ranks(self):
        run = self.start(ranks=4)
        self.assertEqual(run.returncode, 3, run.stderr)
        self.assertIn("3 GPUs", run.stderr)

    def test_a_clamped_cap_is_labelled(self):
        self.gpus.set_all(clamp_mw=450_000)
        phases = self.done("--set", "conditions.power_cap_w=[300]")
        self.assertEqual(self.column(phases["0000"], "requested_cap_w"), [300, 300])
        self.assertEqual(self.column(phases["0000"], "enforced_cap_w"), [450, 450])
        self.assertIn("CAP NOT ENFORCED", self.table)

    def test_a_cap_that_reverts_is_labelled(self):
        self.gpus.set(1, revert_ms=1)
        phases = self.done("--set", "conditions.power_cap_w=[300]")
        self.assertEqual(self.column(phases["0000"], "enforced_cap_w"), [300, 700])
        self.assertIn("CAP NOT ENFORCED", self.table)

    def test_a_limit_on_time_is_labelled(self):
        self.gpus.set_all(tau_ms=5_000)
        phases = self.done("--set", "conditions.heat_limit_s=1", "--set", "conditions.power_cap_w=[500]", "--set",
                           'conditions.heat=["soaked"]')
        self.assertEqual(self.column(phases["0000"], "steady"), [0, 0])
        self.assertGreater(min(self.column(phases["0000"], "slope_c_min")), 1.0)
        self.assertIn("not steady", self.table)

    def test_throttled_steps_stay_and_are_labelled(self):
        self.gpus.set(1, reasons=0x20 | 0x4)
        phases = self.done("--set", "record.telemetry_hz=50", "--set", "conditions.power_cap_w=[500]")
        reasons = phases["0000/telemetry/step_throttle_reasons"][...]
        self.assertEqual(reasons.shape, (2, 60))
        self.assertTrue((reasons[1] & 0x20 != 0).all())
        self.assertTrue((reasons[0] & 0x20 == 0).all())

    def test_without_a_stand_in_cpu_cores_have_neither(self):
        self.environment = {key: value for key, value in self.environment.items() if key != "MOEVAR_NVML"}
        self.refused(2, "CPU cores take no power cap")
        self.refused(2, "CPU cores take no power cap and no heat", "--set", "conditions.power_cap_w=[]")
        self.refused(2, "no sensors to sample", "--set", "conditions.power_cap_w=[]", "--set",
                     'conditions.heat=["soaked"]', "--set", "record.telemetry_hz=10")


if __name__ == "__main__":
    unittest.main()
