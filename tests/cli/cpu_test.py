#!/usr/bin/env python3
"""A study on real CPU cores, from the command line."""

import unittest

import h5py
import numpy

from moevar_cli import ROOT, Case


class CpuStudy(Case):
    def test_layers_are_run_for_real_and_add_up(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        out = self.dir / "out"
        summary = self.run_study(text, out, "--set", "phases.steps=4", ranks=2)
        self.assertEqual(summary["device"], "cpu")
        self.assertEqual(len(summary["cells"]), 4)
        self.assertGreater(sum(cell["moved_experts"] for cell in summary["cells"]), 0)
        with h5py.File(out / "study.h5") as file:
            for phase in file["phases"].values():
                self.assertLess(phase.attrs["reference_error"], 1e-4)
                self.assertGreater(phase.attrs["reference_error"], 0)
                self.assertLess(0, int(phase.attrs["clock_step_ns"]))
                self.assertLess(0, phase.attrs["stamping_share"])
                self.assertLess(phase.attrs["stamping_share"], 0.01)
                residual = int(phase.attrs["clock_residual_ns"])
                parts = {name: phase[name][...].astype(numpy.int64)
                         for name in ("dispatch_ns", "expert_ns", "wait_ns", "combine_ns")}
                total = sum(parts.values())
                layer = phase["layer/layer_ns"][...]
                self.assertLessEqual(numpy.abs(total - layer[None]).max(), 2 * residual + 2)
                for name, part in parts.items():
                    self.assertGreaterEqual(part.min(), -residual, name)
                self.assertTrue((parts["expert_ns"][phase["tokens"][...] > 0] > 0).all())

    def test_speed_models_are_measured_with_intervals(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        for which in ("together", "alone"):
            out = self.dir / which
            self.run_study(text, out, "--set", "phases.steps=2", "--set", f"phases.profile_devices={which}", ranks=2)
            with h5py.File(out / "study.h5") as file:
                self.assertIn(f'profile_devices = "{which}"', file.attrs["study_toml"])
                model = file["phases/0000/speed_model"]
                lower, upper = model["lower_us"][...], model["upper_us"][...]
                self.assertTrue((0 < lower).all())
                self.assertTrue((lower <= upper).all())
                time_us = model["time_us"][...]
                self.assertTrue((numpy.diff(time_us, axis=1) >= 0).all())
                # between the least lower and the greatest upper end, for the fit may leave single intervals
                self.assertTrue((time_us >= lower.min(axis=1, keepdims=True)).all())
                self.assertTrue((time_us <= upper.max(axis=1, keepdims=True)).all())

    def test_replicas_and_drift_on_real_cores(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        out = self.dir / "out"
        summary = self.run_study(text, out, "--set", "phases.steps=4", "--set", "study.repeats=2", "--set",
                                 "placement.redundant_experts=4", "--set", "placement.recompute=on-drift", ranks=2)
        self.assertLessEqual({"first"}, {cell["solved_because"] for cell in summary["cells"]})
        with h5py.File(out / "study.h5") as file:
            for phase in file["phases"].values():
                self.assertLess(phase.attrs["reference_error"], 1e-4)
                experts = phase["placement/physical_to_logical_map"].shape[1] - 4
                self.assertEqual(int(phase["placement/physical_to_logical_map"][...].max()), experts - 1)


if __name__ == "__main__":
    unittest.main()
