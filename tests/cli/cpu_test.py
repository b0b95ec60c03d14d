#!/usr/bin/env python3
"""A study on real CPU cores, from the command line."""

import json
import shutil
import unittest

import h5py
import numpy

from moevar_cli import ROOT, Case, start


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

    def speeds(self, out, phase="0000"):
        with h5py.File(out / "study.h5") as file:
            model = file[f"phases/{phase}/speed_model"]
            return {name: model[name][...].tolist() for name in model}

    def again(self, text, before, *options):
        """A run that is to take the speed models of `before`: its folder, and what it said."""
        out = self.dir / f"again{len(list(self.dir.iterdir()))}"
        done = start(["run", self.write("again.toml", text), "--out", out, "--set", "phases.steps=2", "--set",
                      f"phases.speed_models={before}", *options], ranks=2)
        return out, done

    def test_speed_models_of_an_earlier_run_are_taken(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        first = self.dir / "first"
        self.run_study(text, first, "--set", "phases.steps=2", ranks=2)
        measured = self.speeds(first)
        self.assertEqual(measured.pop("taken_from"), [b"", b""])
        out, done = self.again(text, first, "--set", "study.seed=1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("phases.speed_models", done.stderr)
        taken = self.speeds(out)
        self.assertEqual(taken.pop("taken_from"), [str(first).encode()] * 2)
        self.assertEqual(taken, measured)
        for option, said in (("phases.profile_devices=alone", "phases.profile_devices is together there, alone here"),
                             ("model.intermediate=96", "model.intermediate is"),
                             ("placement.redundant_experts=4", "slots on a device"),
                             ("workload.tokens_per_device=4096", "are needed")):
            out, done = self.again(text, first, "--set", option)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertEqual(done.stderr.count("they are measured anew"), 1, done.stderr)
            self.assertEqual(self.speeds(out)["taken_from"], [b"", b""])

    def test_speed_models_of_a_run_that_differs_are_not_taken(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        first = self.dir / "first"
        self.run_study(text, first, "--set", "phases.steps=2", ranks=2)

        def copy(name, of_file=None, of_manifest=None):
            folder = shutil.copytree(first, self.dir / name)
            if of_file:
                with h5py.File(folder / "study.h5", "r+") as file:
                    of_file(file)
            if of_manifest:
                path = folder / "manifest.json"
                manifest = json.loads(path.read_text())
                of_manifest(manifest)
                path.write_text(json.dumps(manifest))
            return folder

        def without_intervals(file):
            for name in ("lower_us", "upper_us", "taken_from"):
                del file["phases/0000/speed_model"][name]    # one group under several names

        def other_devices(file):
            file["fleet/uuid"][...] = file["fleet/uuid"][...][::-1]

        def other_caps(file):
            for phase in file["phases"].values():
                phase["telemetry/enforced_cap_w"][...] = 300.0

        def several_heats(manifest):
            manifest["study_toml"] = manifest["study_toml"].replace(
                'heat = ["soaked"]', 'heat = ["ambient", "soaked"]').replace('"condition"', '"once"')

        def driver(manifest):
            for facts in manifest["sessions"][0]["hosts"].values():
                facts["driver"] = "1.2.3"

        def version(manifest):
            manifest["sessions"][0]["program"]["moevar"] = "0.0.1"

        for folder, said in ((copy("a", without_intervals), "without intervals"),
                             (copy("b", other_devices), "just these 2 devices"),
                             (copy("c", other_caps), "other power limits"),
                             (copy("d", None, several_heats), "several caps or heats"),
                             (copy("e", None, driver), "is 1.2.3 there, none here"),
                             (copy("f", None, version), "moevar is 0.0.1 there")):
            out, done = self.again(text, folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertEqual(self.speeds(out)["taken_from"], [b"", b""])

        def unfinished(manifest):
            manifest["complete"] = False

        damaged = copy("g")
        data = (damaged / "study.h5").read_bytes()
        (damaged / "study.h5").write_bytes(data[:len(data) // 2])
        for folder, said in ((copy("h", None, unfinished), "not finished"), (damaged, "study.h5")):
            _, done = self.again(text, folder)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(said, done.stderr)

    def test_a_run_is_repeated_with_its_own_speed_models(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        first, second = self.dir / "first", self.dir / "second"
        self.run_study(text, first, "--set", "phases.steps=2", ranks=2)
        done = start(["run", "--from", first, "--out", second, "--set", f"phases.speed_models={first}"], ranks=2)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.speeds(second)["time_us"], self.speeds(first)["time_us"])

    def test_speed_models_of_no_run_are_refused(self):
        text = (ROOT / "jobs/studies/cpu.toml").read_text()
        model = self.dir / "model"
        self.run_study((ROOT / "jobs/studies/quickstart.toml").read_text(), model, "--set", "phases.steps=2")
        empty = self.dir / "empty"
        empty.mkdir()
        for folder, said in ((empty, "no run"), (self.dir / "nowhere", "no run"), (model, "computed, not measured")):
            _, done = self.again(text, folder)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("phases.speed_models", done.stderr)
            self.assertIn(said, done.stderr)

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
