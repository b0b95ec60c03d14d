#!/usr/bin/env python3
"""Unusable input: exit status 2 (3 for the environment), one line that says what, where and what would be
right, nothing left behind, no rank that hangs. One test per case."""

import json
import os
import subprocess
import unittest

import h5py

from moevar_cli import SMALL, Case, start


class BadInput(Case):
    def refused(self, arguments, *parts, status=2, ranks=(0, 2)):
        """Refused alone and under mpirun, with one line that holds all `parts`; leaves no `out`."""
        for number in ranks:
            run = start(arguments, ranks=number, timeout=30)
            lines = [line for line in run.stderr.splitlines() if line.startswith("moevar: ")]
            self.assertEqual(run.returncode, status, run.stderr)
            self.assertEqual(len(lines), 1, run.stderr)
            if number == 0:
                self.assertEqual(run.stderr.count("\n"), 1, run.stderr)
            for part in parts:
                self.assertIn(part, lines[0])
            self.assertFalse((self.dir / "out").exists())

    def refused_study(self, text, *parts, options=(), **how):
        study = self.write("study.toml", text)
        self.refused(["run", study, "--out", self.dir / "out", *options], *parts, **how)

    def refused_counts(self, trace, *parts, name="trace.json"):
        path = self.write(name, trace if isinstance(trace, str) else json.dumps(trace))
        text = SMALL.replace('kind = "synthetic"', 'kind = "counts"')
        self.refused_study(text, str(path), *parts, options=["--set", f"workload.path={path}"])

    def counts(self, layers=3, experts=16):
        return [[float(1 + (e * 7 + l) % 5) for e in range(experts)] for l in range(layers)]

    # ---- the study file
    def test_study_absent(self):
        self.refused(["run", self.dir / "no.toml", "--out", self.dir / "out"], "no.toml",
                     "cannot be read")

    def test_study_is_a_folder(self):
        self.refused(["run", self.dir, "--out", self.dir / "out"], "cannot be read")

    def test_study_empty(self):
        self.refused_study("", "study.toml", "is empty")

    def test_study_without_a_model(self):
        self.refused_study("[study]\nname = 'x'\n", "study.toml", "model.hidden", "missing")

    def test_malformed_toml(self):
        self.refused_study(SMALL + "[fleet\n", "study.toml:24", "not TOML")

    def test_binary_study(self):
        path = self.dir / "study.toml"
        path.write_bytes(os.urandom(2000))
        self.refused(["run", path, "--out", self.dir / "out"], "study.toml", "not TOML")

    def test_unknown_section(self):
        self.refused_study(SMALL + "[gpu]\nx = 1\n", "study.toml:25", "gpu.x", "no such key")

    def test_misspelt_key(self):
        self.refused_study(SMALL.replace("devices =", "devcies ="), "study.toml:16", "fleet.devcies",
                           "the nearest is fleet.devices")

    def test_misspelt_policy(self):
        self.refused_study(SMALL.replace('"eplb"', '"elpb"'), "study.toml:20", "placement.policies",
                           "elpb", "the nearest is eplb")

    def test_wrong_type(self):
        self.refused_study(SMALL.replace("seed = 3", 'seed = "three"'), "study.toml:4", "study.seed",
                           "not a whole number")

    def test_zero_devices(self):
        self.refused_study(SMALL.replace("[8]", "[0]"), "study.toml:16", "fleet.devices", "from 1")

    def test_negative_devices(self):
        self.refused_study(SMALL.replace("[8]", "[-8]"), "fleet.devices", "from 1")

    def test_experts_do_not_divide_over_slots(self):
        self.refused_study(SMALL.replace("[8]", "[8, 6]"), "study.toml:16", "fleet.devices",
                           "don't divide over 6")

    def test_more_devices_than_experts(self):
        self.refused_study(SMALL.replace("[8]", "[32]"), "fleet.devices", "don't divide over 32")

    def test_top_k_above_experts(self):
        self.refused_study(SMALL.replace("top_k = 2", "top_k = 17"), "model.top_k", "a layer has 16")

    def test_zero_steps(self):
        self.refused_study(SMALL.replace("\nsteps = 4", "\nsteps = 0"), "phases.steps", "from 1")

    def test_nan_skew(self):
        self.refused_study(SMALL, "workload.skew", "from 0 to 10", options=["--set", "workload.skew=nan"])

    def test_cap_out_of_range(self):
        self.refused_study(SMALL.replace("500", "900"), "study.toml:18", "conditions.power_cap_w", "900 W",
                           "200 to 700 W")

    def test_unknown_fleet_preset(self):
        self.refused_study(SMALL, "fleet.preset", "h100-sxm5", options=["--set", "fleet.preset=h100-sxm4"])

    def test_unknown_model_preset(self):
        self.refused_study(SMALL, "model.preset", "deepseek-v3",
                           options=["--set", "model.preset=deepseek-v4"])

    def test_too_many_tokens_to_count(self):
        self.refused_study(SMALL, "workload.tokens_per_device",
                           options=["--set", "workload.tokens_per_device=16000000", "--set",
                                    "model.experts=1024", "--set", "fleet.devices=[512]"])

    def test_policy_twice(self):
        self.refused_study(SMALL.replace('"eplb"', '"vibe"'), "placement.policies", "twice")

    def test_redundant_experts_that_do_not_divide(self):
        text = SMALL.replace("[placement]", "[placement]\nredundant_experts = 3")
        self.refused_study(text, "study.toml:20", "placement.redundant_experts", "19 slots", "8 devices", "0 redundant")
        for redundant, right in ((5, 8), (12, 8), (13, 16)):
            self.refused_study(SMALL, "placement.redundant_experts", f": {right} redundant experts", ranks=(0,),
                               options=["--set", f"placement.redundant_experts={redundant}"])
        self.refused_study(SMALL, "all fleets: 8 redundant", ranks=(0,),
                           options=["--set", "placement.redundant_experts=2", "--set", "fleet.devices=[6, 8]"])
        self.refused_study(SMALL, "fleet.devices", "17 experts", ": 7 redundant experts", ranks=(0,),
                           options=["--set", "model.experts=17"])
        self.refused_study(SMALL, "fleet.devices", "no number", ranks=(0,),
                           options=["--set", "fleet.devices=[1009, 1013, 1019]"])

    def test_pools_that_cannot_be_drawn_from(self):
        def refused(*parts, options):
            self.refused_study(SMALL, *parts, ranks=(0,), options=[w for o in options for w in ("--set", o)])
        self.refused_study(SMALL, "fleet.pool", "4 devices to draw from", "a fleet has 8", options=["--set", "fleet.pool=4"])
        refused("fleet.pool", "not made up of nodes of 8", "; 64 is", options=["fleet.pool=60"])
        refused("fleet.draw", "without a fleet.pool", options=["fleet.draw='devices'"])
        refused("placement.recompute", "between-phases", options=["fleet.pool=64", "placement.recompute='once'"])
        refused("fleet.pool", "only modelled GPUs", options=["fleet.device='cpu'", "fleet.devices=[1]", "fleet.pool=64",
                                                             "conditions.power_cap_w=[]"])

    def test_weak_scaling_that_makes_no_layer(self):
        def refused(*parts, options):
            self.refused_study(SMALL, *parts, ranks=(0,), options=[w for o in options for w in ("--set", o)])
        weak = "fleet.scaling=['weak']"
        self.refused_study(SMALL, "fleet.experts_per_device", "2 experts a token", "1 devices have 1",
                           options=["--set", weak, "--set", "fleet.experts_per_device=1", "--set", "fleet.devices=[1]"])
        refused("fleet.experts_per_device", "at most 16777216", options=[
            weak, "fleet.experts_per_device=1048576", "fleet.devices=[1024]"])
        refused("placement.redundant_experts", "3 redundant experts don't divide", "fill_slots", options=[
            weak, "placement.redundant_experts=3"])
        refused("fleet.experts_per_device", "only weak scaling", options=["fleet.experts_per_device=16"])
        refused("fleet.scaling", "one of strong, weak", options=["fleet.scaling=['strange']"])
        path = self.write("trace.json", json.dumps({"logical_count": self.counts()}))
        refused("fleet.scaling", "only synthetic", options=[weak, "workload.kind=counts", f"workload.path={path}"])

    def test_stopping_that_never_would(self):
        for option in ("phases.max_steps=100", "phases.time_limit_s=3.0"):
            self.refused_study(SMALL, option.split("=")[0], "phases.precision", ranks=(0,), options=["--set", option])
        self.refused_study(SMALL, "phases.max_steps", "2 steps at most", "4 at a time",
                           options=["--set", "phases.precision=0.01", "--set", "phases.max_steps=2"])
        self.refused_study(SMALL, "placement.policies", "harmoeny plans every step anew", "phases.precision", ranks=(0,),
                           options=["--set", "phases.precision=0.01", "--set", "placement.policies=['harmoeny']"])
        self.refused_study(SMALL, "phases.precision", "from 0 to 1", ranks=(0,), options=["--set", "phases.precision=nan"])

    def test_trace_steps(self):
        self.refused_study(SMALL, "placement.trace_steps", "from 1", ranks=(0,),
                           options=["--set", "placement.trace_steps=0"])

    def test_caps_on_cpu(self):
        self.refused_study(SMALL.replace('"model"', '"cpu"').replace("[8]", "[2]"),
                           "conditions.power_cap_w")

    def test_study_too_large_for_memory(self):
        self.refused_study(SMALL, "phases.steps", "GiB", status=3,
                           options=["--set", "phases.steps=10000000", "--set", "model.layers=1000"])

    def test_path_without_recorded_routing(self):
        self.refused_study(SMALL, "workload.path", "synthetic", options=["--set", "workload.path=x.json"])

    def test_skew_of_recorded_routing(self):
        path = self.write("trace.json", json.dumps({"logical_count": self.counts()}))
        self.refused_study(SMALL, "workload.skew", "leave it out",
                           options=["--set", "workload.kind=counts", "--set", f"workload.path={path}",
                                    "--set", "workload.skew=1.0"])

    def test_profile_of_modelled_gpus(self):
        self.refused_study(SMALL, "phases.profile_devices", "computed, not measured",
                           options=["--set", "phases.profile_devices=alone"])

    def test_section_given_a_value(self):
        self.refused_study("fleet = 3\n" + SMALL.replace("[fleet]", "[fleets]"), "study.toml:1",
                           "fleet is a section")

    # ---- the command line
    def test_override_without_value(self):
        self.refused_study(SMALL, "--set fleet.devices", "section.key=value",
                           options=["--set", "fleet.devices"])

    def test_override_of_unknown_key(self):
        self.refused_study(SMALL, "fleet.devicess", "the nearest is fleet.devices",
                           options=["--set", "fleet.devicess=3"])

    def test_unknown_option(self):
        self.refused_study(SMALL, "--fast", options=["--fast"])

    def test_no_out(self):
        self.refused(["run", self.write("study.toml", SMALL)], "--out")

    def test_unknown_subcommand(self):
        self.refused(["rnu"], "subcommand")

    # ---- recorded loads
    def test_trace_absent(self):
        text = SMALL.replace('kind = "synthetic"', 'kind = "counts"')
        self.refused_study(text, "workload.path", "no.json", "cannot be read",
                           options=["--set", f"workload.path={self.dir}/no.json"])

    def test_trace_not_given(self):
        self.refused_study(SMALL.replace('kind = "synthetic"', 'kind = "counts"'), "workload.path",
                           "missing")

    def test_trace_empty(self):
        self.refused_counts("", "empty")

    def test_trace_truncated(self):
        self.refused_counts(json.dumps({"logical_count": self.counts()})[:200], "not JSON")
    def test_trace_without_its_key(self):
        self.refused_counts({"physical_count": self.counts()}, "logical_count", "expected")
    def test_trace_with_too_few_layers(self):
        self.refused_counts({"logical_count": self.counts(layers=2)}, "layers")

    def test_trace_with_other_experts(self):
        self.refused_counts({"logical_count": self.counts(experts=8)}, "8", "16")

    def test_trace_ragged(self):
        counts = self.counts()
        counts[1].pop()
        self.refused_counts({"logical_count": counts}, "layer 1", "15 experts", "expected 16")
    def test_trace_not_numbers(self):
        counts = self.counts()
        counts[1][2] = "many"
        self.refused_counts({"logical_count": counts}, "layer 1", "expert 2", "expected")
    def test_trace_negative(self):
        counts = self.counts()
        counts[1][2] = -1.0
        self.refused_counts({"logical_count": counts}, "layer 1", "expert 2", "expected")
    def test_trace_nan(self):
        counts = self.counts()
        counts[1][2] = float("nan")
        self.refused_counts({"logical_count": counts}, "not JSON")  # Python writes NaN, which is no JSON
    def test_trace_null(self):
        counts = self.counts()
        counts[1][2] = None
        self.refused_counts({"logical_count": counts}, "layer 1", "expert 2", "expected")
    def test_trace_huge(self):
        counts = self.counts()
        counts[1][2] = 1e300
        self.refused_counts({"logical_count": counts}, "layer 1", "expert 2", "expected")
    def test_trace_infinite(self):
        self.refused_counts('{"logical_count": [[1e999, 1.0]]}')

    def test_trace_all_dense(self):
        self.refused_counts({"logical_count": [[0.0] * 16] * 3}, "no layer has tokens")
    def test_csv_negative(self):
        rows = [f"{l},{e},{-5 if (l, e) == (1, 2) else 5}" for l in range(3) for e in range(16)]
        self.refused_counts("layer,expert,count\n" + "\n".join(rows) + "\n", "layer 1", "expert 2", "expected", name="trace.csv")
    def test_csv_nan(self):
        rows = [f"{l},{e},{'nan' if (l, e) == (1, 2) else 5}" for l in range(3) for e in range(16)]
        self.refused_counts("layer,expert,count\n" + "\n".join(rows) + "\n", "layer 1", "expert 2", "expected", name="trace.csv")
    def test_csv_without_a_column(self):
        self.refused_counts("layer,count\n0,3\n", "expert", name="trace.csv")
    def test_csv_cut_off(self):
        rows = [f"{l},{e},5" for l in range(3) for e in range(16)]
        self.refused_counts("layer,expert,count\n" + "\n".join(rows)[:-3], "expected 3", name="trace.csv")
    def test_trace_of_unknown_format(self):
        self.refused_counts("hello", ".json", name="trace.npz")

    # ---- where results go
    def test_out_in_use(self):
        out = self.dir / "used"
        self.run_study(SMALL, out)
        before = {p.name: p.read_bytes() for p in out.iterdir()}
        study = self.write("study.toml", SMALL)
        self.refused(["run", study, "--out", out], "used")
        self.assertEqual({p.name: p.read_bytes() for p in out.iterdir()}, before)

    def test_out_empty(self):
        self.refused(["run", self.write("study.toml", SMALL), "--out", ""], "--out")

    def test_out_read_only(self):
        study = self.write("study.toml", SMALL)
        mount = self.dir / "mount"
        mount.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", mount], capture_output=True).returncode:
            self.skipTest("a read-only file system cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", mount])
        self.refused(["run", study, "--out", mount / "out"], str(mount), status=3)

    def test_disk_full_keeps_the_finished_phases(self):
        mount = self.dir / "mount"
        mount.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", mount],
                          capture_output=True).returncode:
            self.skipTest("a small file system cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", mount])
        study = self.write("study.toml", SMALL)
        run = start(["run", study, "--out", mount / "out", "--set", "study.repeats=100", "--set",
                     "phases.steps=64"], ranks=2)
        lines = [line for line in run.stderr.splitlines() if line.startswith("moevar: ")]
        self.assertEqual((run.returncode, len(lines)), (3, 1), run.stderr)
        with h5py.File(mount / "out" / "study.h5") as file:
            self.assertEqual(file.attrs["complete"], 0)
            self.assertGreater(len(file["phases"]), 0)
            for phase in file["phases"].values():
                self.assertEqual(phase["wait_ns"][...].shape, (8, 64, 3))
        self.assertEqual(list((mount / "out").rglob("*.tmp")), [])

    def test_out_below_a_file(self):
        file = self.write("file", "")
        study = self.write("study.toml", SMALL)
        self.refused(["run", study, "--out", file / "out"], "file", status=3)

    def test_out_cannot_be_created(self):
        study = self.write("study.toml", SMALL)
        self.refused(["run", study, "--out", "/proc/moevar/out"], "/proc/moevar", status=3)

    # ---- the environment
    def test_cuda_without_gpu_kernels(self):
        self.refused_study(SMALL.replace('"model"', '"cuda"'), "fleet.device", "cuda", status=3)

    def test_more_cpu_devices_than_ranks(self):
        text = SMALL.replace('"model"', '"cpu"').replace("power_cap_w = [700, 500]", "")
        self.refused_study(text, "8", "mpirun -np 8", status=3)

    # ---- the other subcommands check as much
    def test_plan_checks_the_study(self):
        self.refused(["plan", self.write("study.toml", SMALL.replace("[8]", "[7]"))],
                     "don't divide over 7")

    def test_plan_checks_the_trace(self):
        text = SMALL.replace('kind = "synthetic"', 'kind = "counts"')
        self.refused(["plan", self.write("study.toml", text), "--set", "workload.path=/no/such.json"],
                     "/no/such.json")

    def test_fleet_of_unknown_preset(self):
        self.refused(["fleet", "--preset", "h1000", "--devices", "4", "--out", self.dir / "out"],
                     "h1000", "h100-sxm5")

    def test_fleet_cap_out_of_range(self):
        self.refused(["fleet", "--preset", "h100-sxm5", "--devices", "4", "--power-cap-w", "50", "--out",
                      self.dir / "out"], "200 to 700 W")

    def test_fleet_without_devices(self):
        self.refused(["fleet", "--preset", "h100-sxm5", "--devices", "0", "--out", self.dir / "out"],
                     "--devices")

    def test_fleet_does_not_overwrite(self):
        out = self.write("fleet.csv", "mine")
        self.refused(["fleet", "--preset", "h100-sxm5", "--devices", "4", "--out", out], "fleet.csv",
                     "exists")
        self.assertEqual(out.read_text(), "mine")


if __name__ == "__main__":
    unittest.main()
