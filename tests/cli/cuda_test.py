#!/usr/bin/env python3
"""Studies on GPUs that the host stands for: MOEVAR is moevar_on_fake_gpus, all of moevar but CUDA and the kernels."""

import os
import unittest

import h5py
import numpy

from moevar_cli import ENVIRONMENT, Case, start

STUDY = """
[study]
name = "gpu"
seed = 5
[model]
hidden = 64
intermediate = 32
experts = 8
top_k = 2
layers = 3
[workload]
tokens_per_device = 32
skew = 0.9
[fleet]
device = "cuda"
devices = [1]
[placement]
policies = ["contiguous", "eplb", "vibe"]
[phases]
steps = 4
"""
ALL = ["contiguous", "round_robin", "random", "eplb", "eplb_steps", "sorted", "vibe", "vibe_finish", "vibe_swap", "flashlb",
       "gem_like", "minmax"]


def on(text="gpus=1", **more):
    """The GPUs that there are, for the next runs."""
    ENVIRONMENT["MOEVAR_FAKE_CUDA"] = text
    for name in ("MOEVAR_NCCL", "FAKE_NCCL"):
        ENVIRONMENT.pop(name, None)
    ENVIRONMENT.update(more)


class CudaStudy(Case):
    def setUp(self):
        super().setUp()
        on()

    def phases(self, out):
        with h5py.File(out / "study.h5") as file:
            for phase in file["phases"].values():
                yield phase

    def check(self, out, devices, tokens=32):
        """Outputs are right, parts add up, and times are those of the GPU's clock."""
        seen = 0
        for phase in self.phases(out):
            seen += 1
            self.assertGreater(phase.attrs["reference_error"], 1e-5)
            self.assertLess(phase.attrs["reference_error"], 2e-2)
            self.assertEqual(phase.attrs["timer"], "cuda_globaltimer")
            residual = int(phase.attrs["clock_residual_ns"])
            self.assertGreater(residual, 0)
            self.assertGreater(int(phase.attrs["clock_step_ns"]), 0)
            self.assertGreater(phase.attrs["stamping_share"], 0)
            parts = [phase[name][...].astype(numpy.int64)
                     for name in ("dispatch_ns", "expert_ns", "wait_ns", "combine_ns")]
            self.assertEqual(parts[0].shape[0], devices)
            off = numpy.abs(sum(parts) - phase["layer/layer_ns"][...][None])
            self.assertLessEqual(off.max(), 2 * residual + 2)
            self.assertGreaterEqual(min(part.min() for part in parts), -residual)
            self.assertEqual(phase["tokens"][...].sum(axis=0).min(), devices * tokens * 2)
        self.assertGreater(seen, 0)

    def fleet(self, out):
        with h5py.File(out / "study.h5") as file:
            table = file["fleet"]
            names = table.dtype.names if isinstance(table, h5py.Dataset) else list(table)
            return {name: [value.decode() if isinstance(value, bytes) else value for value in table[name][...]]
                    for name in names}

    def test_one_gpu(self):
        out = self.dir / "out"
        summary = self.run_study(STUDY, out)
        self.assertEqual(summary["device"], "cuda")
        self.check(out, 1)

    def test_ranks_that_share_a_gpu(self):
        for ranks in (2, 4):
            out = self.dir / f"out{ranks}"
            text = STUDY.replace("devices = [1]", f"devices = [{ranks}]")
            refused = start(["run", self.write("s.toml", text), "--out", out], ranks=ranks)
            self.assertEqual(refused.returncode, 3)
            self.assertIn("--share-gpu", refused.stderr)
            summary = self.run_study(text, out, "--share-gpu", ranks=ranks)
            self.assertGreater(sum(cell["moved_experts"] for cell in summary["cells"]), 0)
            self.check(out, ranks)
            with h5py.File(out / "study.h5") as file:
                toml = file.attrs["study_toml"]
                self.assertIn("share_gpu = true", toml.decode() if isinstance(toml, bytes) else toml)

    def test_emulated_devices_under_all_policies(self):
        out = self.dir / "out"
        text = STUDY.replace("devices = [1]", "devices = [4]\nemulated_sms = [24, 24, 32, 48]")
        text = text.replace('["contiguous", "eplb", "vibe"]', str(ALL).replace("'", '"'))
        summary = self.run_study(text, out)
        self.assertEqual({cell["policy"] for cell in summary["cells"]}, set(ALL))
        self.assertGreater(sum(cell["moved_experts"] for cell in summary["cells"]), 0)
        self.check(out, 4)
        names = self.fleet(out)["name"]
        self.assertIn("emulated: 48 SMs", names[3])
        text = text.replace("devices = [4]", "devices = [8]")
        self.run_study(text, self.dir / "two", "--share-gpu", "--set", "phases.profile_devices=alone", ranks=2)
        self.check(self.dir / "two", 8)
        for phase in self.phases(self.dir / "two"):
            self.assertTrue((phase["speed_model/lower_us"][...] > 0).all())

    def test_what_comes_is_what_cores_get(self):
        """The same routing, loads and contiguous placement as on CPU cores."""
        text = STUDY.replace('["contiguous", "eplb", "vibe"]', '["contiguous"]').replace("devices = [1]", "devices = [2]")
        self.run_study(text, self.dir / "gpu", "--share-gpu", ranks=2)
        self.run_study(text.replace('"cuda"', '"cpu"'), self.dir / "cpu", ranks=2)
        gpu, cpu = (next(iter(self.tokens(self.dir / name))) for name in ("gpu", "cpu"))
        self.assertTrue((gpu == cpu).all())

    def tokens(self, out):
        for phase in self.phases(out):
            yield phase["tokens"][...]

    def test_nccl_and_the_host_give_equal_results(self):
        text = STUDY.replace("devices = [1]", "devices = [2]")
        errors = {}
        for name, keys in (("staged", ""), ("nccl", ""), ("nccl", 'counts = "exchanged"'),
                           ("staged", 'counts = "exchanged"')):
            on("gpus=2", MOEVAR_NCCL=os.environ["MOEVAR_FAKE_NCCL"])
            out = self.dir / f"{name}{len(keys)}"
            self.run_study(text.replace("devices = [2]", f'devices = [2]\nexchange = "{name}"\n{keys}'), out, ranks=2)
            self.check(out, 2)
            errors[name, keys] = [float(phase.attrs["reference_error"]) for phase in self.phases(out)]
        self.assertEqual(len({tuple(sorted(values)) for values in errors.values()}), 1)

    def test_two_batches_give_what_one_gives(self):
        """Over NCCL, through the host, on one GPU and on parts of some: the same rows, and outputs as right."""
        ways = {"nccl": ('devices = [2]\nexchange = "nccl"', 2, 2), "staged": ('devices = [2]\nexchange = "staged"', 2, 2),
                "counted": ('devices = [2]\nexchange = "nccl"\ncounts = "exchanged"', 2, 2),
                "local": ("devices = [1]", 1, 0), "parts": ("devices = [8]\nemulated_sms = [24, 24, 32, 48]", 8, 2)}
        for name, (keys, devices, ranks) in ways.items():
            for tokens in (32, 7):
                on("gpus=2", MOEVAR_NCCL=os.environ["MOEVAR_FAKE_NCCL"])
                text = STUDY.replace("devices = [1]", keys).replace("tokens_per_device = 32", f"tokens_per_device = {tokens}")
                phases = {}
                for overlap, blocks in (("none", 0), ("two-batch", 16)):
                    ENVIRONMENT["FAKE_NCCL"] = f"blocks {blocks}"
                    out = self.dir / f"{name}{tokens}{overlap}"
                    summary = self.run_study(text, out, "--set", f"fleet.overlap={overlap}", ranks=ranks)
                    self.assertEqual({cell["overlap"] for cell in summary["cells"]}, {overlap})
                    self.check(out, devices, tokens)
                    phases[overlap] = {phase.attrs["policy"]: (phase["tokens"][...], phase.attrs["reference_error"])
                                       for phase in self.phases(out)}
                    self.assertEqual({phase.attrs["overlap"] for phase in self.phases(out)}, {overlap})
                # speeds are measured: of the other policies' placements nothing is known
                (rows, error), (other_rows, other_error) = (phases[overlap]["contiguous"] for overlap in phases)
                self.assertTrue((rows == other_rows).all())
                self.assertAlmostEqual(error, other_error, delta=1e-3)

    def test_one_token_is_one_batch(self):
        text = STUDY.replace("tokens_per_device = 32", "tokens_per_device = 1").replace("[1]", '[1]\noverlap = "two-batch"')
        self.run_study(text, self.dir / "out")
        self.check(self.dir / "out", 1, 1)

    def traced(self, text, ranks=0):
        """What every process queued: (number of the stream, what), in order."""
        folder = self.dir / f"trace{len(list(self.dir.iterdir()))}"
        folder.mkdir()
        on(f"gpus=2 trace={folder}", MOEVAR_NCCL=os.environ["MOEVAR_FAKE_NCCL"])
        self.run_study(text, folder / "out", ranks=ranks)
        files = [file for file in folder.iterdir() if file.is_file()]
        self.assertEqual(len(files), ranks or 1)
        return [[(stream, what) for stream, what in (line.split(" ", 1) for line in file.read_text().splitlines())
                 if what != "created"] for file in files]

    def test_streams_and_events_of_a_step(self):
        """Without overlap one stream, and events in profiles alone; with it what travels has a stream of its own, in the same order on
        all ranks, and eight events order a layer."""
        text = STUDY.replace('["contiguous", "eplb", "vibe"]', '["contiguous"]').replace(
            "devices = [1]", 'devices = [2]\nexchange = "nccl"')
        for queued in self.traced(text, ranks=2):
            self.assertEqual(len({stream for stream, _ in queued}), 1)
            self.assertIn("ncclSend", [what for _, what in queued])
            self.assertFalse([what for _, what in queued if what.startswith(("wait", "record"))])
            steps = next(i for i, (_, what) in enumerate(queued) if what == "permute")
            self.assertFalse([what for _, what in queued[steps:] if what.startswith("time")])
        travelled = []
        for queued in self.traced(text.replace("[2]", '[2]\noverlap = "two-batch"'), ranks=2):
            compute, exchange = sorted({stream for stream, _ in queued}, key=int)
            kinds = {stream: {what.split(" ")[0] for other, what in queued if other == stream} for stream in (compute, exchange)}
            self.assertLessEqual({"scores", "permute", "group", "experts", "unpermute", "stamp"}, kinds[compute])
            self.assertEqual(kinds[exchange], {"wait", "record", "copy", "ncclSend", "ncclRecv"})
            layers = sum(what == "permute" for _, what in queued) // 2
            self.assertGreater(layers, 0)
            for kind in ("wait", "record"):
                self.assertEqual(sum(what.startswith(kind) for _, what in queued), 8 * layers)
            travelled.append(sum(what.startswith("nccl") for stream, what in queued if stream == exchange))
        self.assertEqual(travelled[0], travelled[1])

    def test_every_event_of_overlap_is_needed(self):
        """What the stand-in for CUDA finds where a wait for one of them is left out."""
        text = STUDY.replace('["contiguous", "eplb", "vibe"]', '["contiguous"]').replace(
            "devices = [1]", 'devices = [1]\noverlap = "two-batch"')
        for wait in range(8):
            on(f"gpus=1 deaf_to={wait}")
            run = start(["run", self.write("s.toml", text), "--out", self.dir / f"deaf{wait}"])
            self.assertNotEqual(run.returncode, 0)
            self.assertIn("fake CUDA: race", run.stderr)

    def refused(self, status, *words, text=STUDY, options=(), ranks=0):
        out = self.dir / f"refused{len(list(self.dir.iterdir()))}"
        run = start(["run", self.write("s.toml", text), "--out", out, *options], ranks=ranks)
        self.assertEqual(run.returncode, status, run.stderr)
        line = next(line for line in run.stderr.splitlines() if line.startswith("moevar:"))
        for word in words:
            self.assertIn(word, line)

    def test_what_a_machine_cannot_do(self):
        on("no_driver")
        self.refused(3, "fleet.device", "driver", "moevar doctor")
        plan = start(["plan", self.write("s.toml", STUDY)])  # as on a login node
        self.assertEqual(plan.returncode, 0, plan.stderr)
        self.assertNotIn("overlap", plan.stdout)
        plan = start(["plan", self.write("s.toml", STUDY), "--set", "fleet.overlap=two-batch"])
        self.assertIn("two-batch overlap", plan.stdout, plan.stderr)
        on("gpus=0")
        self.refused(3, "fleet.device", "no CUDA-capable device")
        on("gpus=1 memory_mib=1")
        self.refused(3, "GPU-fa", "MiB", "free", text=STUDY.replace("hidden = 64", "hidden = 512"))
        on("gpus=1 lost_after=200")
        self.refused(3, "GPU-fa", "rank 0", "launch failure")
        on("gpus=2", MOEVAR_NCCL="/nonexistent/libnccl.so")
        self.refused(3, "NCCL", text=STUDY.replace("devices = [1]", 'devices = [2]\nexchange = "nccl"'), ranks=2)
        on("gpus=2", MOEVAR_NCCL=os.environ["MOEVAR_FAKE_NCCL"], FAKE_NCCL="fail-later")
        self.refused(3, "nccl", "rank", text=STUDY.replace("devices = [1]", 'devices = [2]\nexchange = "nccl"'), ranks=2)

    def test_one_lost_gpu_stops_all_ranks(self):
        on("gpus=2 lost_after=300")
        self.refused(3, "GPU-fa", text=STUDY.replace("devices = [1]", "devices = [2]\nexchange = \"staged\""), ranks=2)

    def test_keys_that_do_not_fit(self):
        self.refused(2, "emulated_sms", text=STUDY.replace("devices = [1]", "devices = [4]\nemulated_sms = [24, 24, 24]"))
        self.refused(2, "fleet.precision", text=STUDY.replace('"cuda"', '"model"').replace(
            "devices = [1]", 'devices = [8]\nprecision = "fp8"'))
        for kind in ("model", "cpu"):
            self.refused(2, "fleet.overlap", f'only "cuda" devices have it; leave it out on "{kind}" devices',
                         text=STUDY.replace('"cuda"', f'"{kind}"\noverlap = "two-batch"'))
        self.refused(2, "fleet.overlap", "two-batch", text=STUDY.replace('"cuda"', '"cuda"\noverlap = "microbatches"'))
        on("gpus=2", MOEVAR_NCCL=os.environ["MOEVAR_FAKE_NCCL"], FAKE_NCCL="version 21500")
        self.refused(3, "NCCL 2.15.0", "2.17", "fleet.overlap", ranks=2,
                     text=STUDY.replace("devices = [1]", 'devices = [2]\nexchange = "nccl"\noverlap = "two-batch"'))
        on()
        self.refused(2, "fleet.device", text=STUDY + "[serving]\nrates = [1.0]\n")
        self.refused(3, "mpirun -np 2", text=STUDY.replace("devices = [1]", "devices = [2]"))


if __name__ == "__main__":
    unittest.main()
