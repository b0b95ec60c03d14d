"""The Chrome trace of a phase against its timelines in study.h5."""

import json
import subprocess
import sys

import paths
import h5py
import numpy as np

sys.path.insert(0, str(paths.ROOT / "tests/cli"))
from moevar_cli import SMALL, Case  # noqa: E402

TIMELINE = paths.ROOT / "analysis/timeline.py"
CPU = SMALL.replace('"model"', '"cpu"').replace("devices = [8]", "devices = [2]").replace(
    "power_cap_w = [700, 500]", "").replace("hidden = 512", "hidden = 64")


def timeline(*arguments):
    return subprocess.run([sys.executable, TIMELINE, *map(str, arguments)], capture_output=True, text=True, timeout=120)


class Timeline(Case):
    def trace(self, out, *options):
        made = timeline(out, *options)
        self.assertEqual(made.returncode, 0, made.stderr)
        return json.loads((out / "timeline-2.json").read_text())

    def check(self, out, trace, first, last):
        """Every slice, begin and length, in the place of its host and device, and as many as there must be."""
        with h5py.File(out / "study.h5") as file:
            phase = file["phases/0002"]
            devices, _, layers = phase["expert_ns"].shape
            parts = {name: phase[f"{name}_ns"][:, first:last] for name in ("dispatch", "expert", "wait", "combine")}
            arrival, tokens = phase["arrival_ns"][:, first:last], phase["tokens"][:, first:last]
            hosts = [host.decode() for host in file["fleet/host"][:devices]]
            uuids = [uuid.decode() for uuid in file["fleet/uuid"][:devices]]
        begins = {"dispatch": arrival - parts["expert"] - parts["dispatch"], "expert": arrival - parts["expert"],
                  "wait": arrival, "combine": arrival + parts["wait"]}
        events = trace["traceEvents"]
        processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
        threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
        self.assertEqual(sorted(processes.values()), sorted(set(hosts)))
        self.assertEqual(sorted(threads.values()), sorted(uuids))
        slices = [event for event in events if event["ph"] == "X"]
        waits = int((parts["wait"] > 0).sum())
        self.assertEqual(len(slices), 3 * devices * (last - first) * layers + waits)
        ends = {}
        for event in slices:
            device = uuids.index(threads[event["pid"], event["tid"]])
            self.assertEqual(processes[event["pid"]], hosts[device])
            place = device, event["args"]["step"] - first, event["args"]["layer"]
            self.assertAlmostEqual(event["ts"], begins[event["name"]][place] / 1e3, places=6)
            self.assertAlmostEqual(event["dur"], parts[event["name"]][place] / 1e3, places=6)
            if event["name"] == "expert":
                self.assertEqual(event["args"]["tokens"], tokens[place])
            # a thread does one thing at a time, or a viewer nests its slices
            self.assertGreaterEqual(event["ts"] - ends.get(device, -1e18), -1e-6 - self.residual)
            ends[device] = event["ts"] + event["dur"]

    residual = 0.0

    def test_modelled_gpus_with_their_sensors(self):
        out = self.dir / "run"
        self.run_study(SMALL.replace("devices = [8]", "devices = [16]"), out, "--set", "record.telemetry_hz=1000")
        whole = self.trace(out, "--phase", 2)
        self.check(out, whole, 0, 4)
        self.assertEqual(len({e["pid"] for e in whole["traceEvents"]}), 2)     # nodes of eight
        with h5py.File(out / "study.h5") as file:
            series = file["phases/0002/telemetry/series"]
            expected = sorted(
                (int(time) / 1e3, float(value)) for device, count in enumerate(series["readings"])
                for time, value in zip(series["time_ns"][device, :count], series["power_w"][device, :count]))
        slices = [event for event in whole["traceEvents"] if event["ph"] == "X"]
        begin, end = min(e["ts"] for e in slices), max(e["ts"] + e["dur"] for e in slices)
        found = sorted((e["ts"], e["args"]["value"]) for e in whole["traceEvents"]
                       if e["ph"] == "C" and e["name"].startswith("power"))
        self.assertEqual(found, [pair for pair in expected if begin <= pair[0] <= end])
        self.assertGreater(len(found), 0)

    def test_a_range_of_steps(self):
        out = self.dir / "run"
        self.run_study(SMALL, out)
        self.check(out, self.trace(out, "--phase", 2, "--steps", "1:3"), 1, 3)

    def test_cpu_cores_in_real_time(self):
        out = self.dir / "run"
        self.run_study(CPU, out, ranks=2)
        with h5py.File(out / "study.h5") as file:
            self.residual = int(file["phases/0002"].attrs["clock_residual_ns"]) / 1e3
        self.check(out, self.trace(out, "--phase", 2), 0, 4)

    def test_bad_input_is_one_line_and_status_2(self):
        out = self.dir / "run"
        self.run_study(SMALL, out, "--set", "record.timelines=false")
        for arguments, words in (((out, "--phase", 99), "--phase 99: no such phase"),
                                 ((out, "--phase", 0), "record.timelines = true"),
                                 ((self.dir, "--phase", 0), "no such file")):
            made = timeline(*arguments)
            self.assertEqual(made.returncode, 2)
            self.assertRegex(made.stderr, r"^timeline\.py: [^\n]+; [^\n]+\n$")
            self.assertIn(words, made.stderr)
        kept = self.dir / "kept"
        self.run_study(SMALL, kept)
        made = timeline(kept, "--phase", 0, "--steps", "2:9")
        self.assertEqual((made.returncode, made.stdout), (2, ""))
        self.assertIn("steps 0:4", made.stderr)

    def test_order_of_time(self):
        """Layers of a device follow each other on the fleet's clock, from 0."""
        out = self.dir / "run"
        self.run_study(SMALL, out)
        slices = [e for e in self.trace(out, "--phase", 2)["traceEvents"] if e["ph"] == "X"]
        self.assertEqual(min(e["ts"] for e in slices), 0)
        starts = np.array([e["ts"] for e in slices if e["name"] == "expert" and e["tid"] == 3])
        self.assertEqual(len(starts), 12)
        self.assertTrue((np.diff(starts) > 0).all())


if __name__ == "__main__":
    import unittest
    unittest.main()
