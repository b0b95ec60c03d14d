"""The papers' page from runs: planted ones whose answers are known, missing and damaged ones, and a small run of the
program from end to end."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import paths
import h5py
import numpy as np
import papers
from moevar.papers import document, findings, runs, serving, slowed, vibe_kernels
from moevar.papers.verdicts import CANNOT, FAILS, HOLDS, IN_PART, NOT_RUN
from synthetic_study import Writer


class Planted(unittest.TestCase):
    """Runs that nobody made: written folders, with a list of them."""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.studies, self.out = self.dir / "studies", self.dir / "runs"
        self.studies.mkdir()
        self.out.mkdir()
        (self.studies / "study.toml").write_text('[study]\nname = "planted"\n')

    def list(self, *names):
        lines = [name if " " in name else f"{name} study.toml" for name in names]
        (self.studies / "runs.txt").write_text("# runs\n\n" + "\n".join(lines) + "\n")

    def write(self, name, **options):
        folder = self.out / name
        Writer(folder, **{"sizes": (8,), "policies": ("contiguous", "eplb", "vibe"), "repeats": 6, **options})
        return folder

    def serve(self, name, serving_of, **options):
        """A run whose cells say that they served: serving_of(policy, repeat) → (rate, serving)."""
        folder = self.write(name, **options)
        path = folder / "summary.json"
        summary = json.loads(path.read_text())
        for cell in summary["cells"]:
            cell["rate"], cell["serving"] = serving_of(cell["policy"], cell["repeat"])
        path.write_text(json.dumps(summary))

    def opened(self):
        made = runs.Runs(self.out, self.studies)
        self.addCleanup(made.close)
        return made

    def found(self, identity):
        claim = next(claim for claim in papers.claims() if claim.identity == identity)
        return findings.find(claim, self.opened())

    def page(self):
        made = subprocess.run(
            [
                sys.executable,
                paths.ROOT / "analysis" / "papers.py",
                self.out,
                "--studies",
                self.studies,
                "--out",
                self.dir / "page",
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        return (
            (self.dir / "page" / "papers.html").read_text(),
            json.loads((self.dir / "page" / "papers.json").read_text()),
        )

    def measures(self, finding, text):
        chosen = [measure for measure in finding.measures if text in measure.name]
        self.assertTrue(chosen, [measure.name for measure in finding.measures])
        return chosen


class Layers(Planted):
    def test_changes_and_gaps_are_those_of_the_cells(self):
        self.list("vibe-layers")
        self.write("vibe-layers")
        cells = json.loads((self.out / "vibe-layers" / "summary.json").read_text())["cells"]

        def mean(policy, pick):
            return np.mean([pick(cell) for cell in cells if cell["policy"] == policy])

        (change,) = self.measures(self.found("V6"), "layer time, vibe against contiguous (drawn")
        expected = (
            mean("vibe", lambda c: c["layer_us"]["mean"]) / mean("contiguous", lambda c: c["layer_us"]["mean"]) - 1
        )
        self.assertAlmostEqual(change.ours.value, expected, 9)
        (gap,) = self.measures(self.found("V5"), "gap, eplb ÷ contiguous (drawn")
        expected = mean("eplb", lambda c: c["gap_us"]["median"]) / mean("contiguous", lambda c: c["gap_us"]["median"])
        self.assertAlmostEqual(gap.ours.value, expected, 9)
        self.assertEqual(gap.ours.n, 6)

    def test_a_node_spreads_as_its_speed_models_do(self):
        self.list("vibe-layers")
        self.write("vibe-layers", sizes=(64,))  # the same 64 devices in every repeat, in another order
        with runs.StudyFile.open(self.out / "vibe-layers") as study:
            times = study.phases[0].speed_time_us[:, -1]
        measure = vibe_kernels.spread_at_equal_tokens(self.opened())
        for end in (measure.ours.value, measure.ours.low, measure.ours.high):
            self.assertAlmostEqual(end, times.max() / times.min() - 1, 6)

    def test_clock_that_is_speed_is_a_perfect_proxy(self):
        self.list("vibe-layers")
        self.write("vibe-layers")  # written clocks are 1500 / relative time
        finding = self.found("V11")
        self.assertAlmostEqual(finding.measures[0].ours.value, -1.0)
        self.assertEqual(finding.verdict, FAILS)
        self.assertIn("as fast as its clock", finding.why)

    def test_a_knee_is_found_where_it_is(self):
        tokens = np.geomspace(8, 4096, 12)
        for knee in (60.0, 150.0, 400.0):
            times = 50 + 0.001 * tokens + 0.3 * np.maximum(tokens - knee, 0)
            self.assertAlmostEqual(vibe_kernels._knee(tuple(tokens), tuple(times)) / knee, 1.0, delta=0.02)


class Requests(Planted):
    NOISE = (1.0, 1.01, 0.99, 1.005, 0.995, 1.0)

    def frontier(self, name, rates):
        """Every search finds policy's rate × the repeat's noise, and vibe's are off by 0.2 % this way or that."""

        def serving_of(policy, repeat):
            rate = rates[policy] * self.NOISE[repeat] * (1 + 0.002 * ((-1) ** repeat if policy == "vibe" else 0))
            found = {
                "rate": rate,
                "low": 0.99 * rate,
                "high": 1.01 * rate,
                "monotone": True,
                "evaluations": [[0.8 * rate, 0.99], [1.01 * rate, 0.88], [0.99 * rate, 0.91]],
            }
            return rate, {"slo_attainment": 0.9, "max_rate": found, "changes": []}

        self.serve(name, serving_of)

    def test_crossings_that_are_the_papers_hold(self):
        names = [serving.FRONTIER + case for case in serving.CASES]
        self.list(*names)
        for case, (_, published) in serving.CASES.items():
            self.frontier(serving.FRONTIER + case, published)
        finding = self.found("V8")
        ratio = self.measures(finding, "Qwen3-235B, ShareGPT: 90 % crossing, vibe ÷ eplb")[0]
        self.assertTrue(ratio.ours.covers(12.8 / 10.9))
        self.assertLess(ratio.ours.high - ratio.ours.low, 0.01)  # paired: the repeats' noise is common
        (level,) = self.measures(finding, "Qwen3-235B, ShareGPT: crossing of vibe")
        self.assertTrue(level.ours.covers(12.8))
        self.assertGreater(level.ours.high - level.ours.low, 0.1)
        self.assertEqual({measure.verdict for measure in self.measures(finding, "÷")}, {HOLDS})
        self.assertEqual((finding.verdict, self.found("V8b").verdict), (HOLDS, HOLDS))

    def test_policies_that_are_equal_do_not(self):
        case = "deepseek-sonnet"
        self.list(*[serving.FRONTIER + name for name in serving.CASES])
        self.frontier(serving.FRONTIER + case, {"contiguous": 2.0, "eplb": 2.0, "vibe": 2.0})
        finding = self.found("V8")
        self.assertEqual(finding.verdict, FAILS)
        self.assertEqual(len(finding.reasons), 3)  # the other three cases are named
        html, _ = self.page()
        self.assertIn("DeepSeek-V3, Sonnet: share of requests within limits", html)
        self.assertIn("90 % crossing, requests/s per device", html)

    def test_what_adapting_regains_is_a_ratio_of_two_runs(self):
        names = ("vibe-drift-once", "vibe-drift-adaptive", "vibe-drift-run")
        self.list(*names)
        for name, factor in zip(names, (1.68, 1.80)):

            def serving_of(policy, repeat, factor=factor):
                rate = factor * self.NOISE[repeat] * (1 + 0.001 * (-1) ** (repeat + (factor > 1.7)))
                return rate, {"max_rate": {"rate": rate, "evaluations": []}, "changes": []}

            self.serve(name, serving_of, policies=("eplb", "vibe_swap"))

        def changed(policy, repeat):
            change = {
                "noticed_after_s": 1.0 + 0.1 * repeat,
                "recovered_after_s": None,
                "moved_experts": 40,
                "stopped_ms": 3.0,
                "ttft_peak_ms": 900.0,
            }
            return 2.0, {"changes": [change, {**change, "noticed_after_s": 100.0}]}

        self.serve("vibe-drift-run", changed, policies=("vibe", "vibe_swap"), layers=2)
        finding = self.found("V13")
        regained = self.measures(finding, "crossing with on-drift ÷ with once")
        self.assertEqual([round(measure.ours.value, 4) for measure in regained], [round(1.80 / 1.68, 4)] * 2)
        (noticed,) = self.measures(finding, "vibe_swap: first rearrangement")
        self.assertAlmostEqual(noticed.ours.value, 1.25)  # of the first change
        (moved,) = self.measures(finding, "vibe_swap: experts a layer")
        self.assertAlmostEqual(moved.ours.value, 20.0)  # 40 over two layers
        self.assertFalse([measure for measure in finding.measures if "tax back" in measure.name])  # it never was
        self.assertEqual(finding.reasons, [])

    def test_a_slow_device_is_named_where_the_first_reason_names_it(self):
        """Device 0 slows; policy vibe blames it, eplb another one, contiguous nobody."""
        because = {
            "vibe": "residual: 2 devices, device 0 at 1.30 x its model",
            "eplb": "residual: device 3 at 1.1 x its model",
        }

        def serving_of(policy, repeat):
            moves = [
                {"at_s": 1.0, "because": "residual: device 0 at 1.3 x its model", "moved_experts": 1, "migrate_ms": 1.0}
            ]
            if policy in because:
                moves.append({"at_s": 9.0, "because": because[policy], "moved_experts": 1, "migrate_ms": 1.0})
            change = {
                "at_s": 5.0,
                "noticed_after_s": 4.0 if policy in because else None,
                "moved_experts": 8,
                "stopped_ms": 1.0,
                "tax_end": 0.1,
            }
            return 2.0, {
                "changes": [change],
                "rearrangements": moves,
                "slo_attainment": 0.8 if policy == "vibe" else 0.6,
            }

        for recompute in slowed.RECOMPUTE:
            name = slowed.run_name("failing", recompute)
            self.serve(name, serving_of)
            path = self.out / name / "study.h5"
            with h5py.File(path, "a") as file:
                file.attrs["study_toml"] = file.attrs["study_toml"] + "[serving]\ndisturbed_device = 0\n"
        self.list(*[slowed.run_name(how, recompute) for how in slowed.HOW for recompute in slowed.RECOMPUTE])
        finding = self.found("F1")
        share, delay = finding.measures
        self.assertAlmostEqual(share.ours.value, 1 / 3)  # not by what moved before, nor by another device's name
        self.assertEqual((share.verdict, delay.ours.value, delay.ours.n), (FAILS, 4.0, 12))
        self.assertEqual(len(finding.reasons), 2)  # the two other ways to slow did not run
        rows = {row.policy: row for row in slowed.rows(self.opened())}
        self.assertAlmostEqual(rows["vibe"].adapted.value, 0.8)
        self.assertAlmostEqual(rows["eplb"].moved.value, 4.0)
        html, numbers = self.page()
        self.assertIn("solved anew on drift", html)
        self.assertEqual(len(numbers["slowed"]), 3)

    def test_a_search_that_found_nothing_is_left_out(self):
        def serving_of(policy, repeat):
            rate = None if repeat > 1 else 1.0
            return rate, {"slo_attainment": 0.9, "max_rate": {"rate": rate, "evaluations": []}, "changes": []}

        name = serving.FRONTIER + "deepseek-sonnet"
        self.list(name)
        self.serve(name, serving_of)
        finding = self.found("V8")
        self.assertEqual(finding.verdict, NOT_RUN)
        self.assertTrue(any("too few repeats" in reason for reason in finding.reasons))

    def test_tails_are_read_at_the_top_rate_and_medians_at_the_lowest(self):
        times = {("eplb", 1.0): 100.0, ("vibe", 1.0): 101.0, ("eplb", 2.0): 1000.0, ("vibe", 2.0): 550.0}
        for name in ("vibe-sweep-deepseek-sonnet", "vibe-sweep-qwen-sonnet"):
            folder = self.write(name, policies=("eplb", "vibe"))
            path = folder / "summary.json"
            summary = json.loads(path.read_text())
            cells = []
            for cell in summary["cells"]:
                for rate in (1.0, 2.0):
                    own = (-1) ** cell["repeat"] if cell["policy"] == "vibe" else 0
                    time = times[cell["policy"], rate] * self.NOISE[cell["repeat"]] * (1 + 0.001 * own)
                    quantiles = {"p50": time, "p90": time, "p99": time, "n": 1000}
                    cells.append(
                        {**cell, "rate": rate, "serving": {"ttft_ms": quantiles, "tpot_ms": None, "changes": []}}
                    )
            path.write_text(json.dumps({**summary, "cells": cells}))
        self.list("vibe-sweep-deepseek-sonnet", "vibe-sweep-qwen-sonnet")
        tail = self.found("V9")
        self.assertAlmostEqual(tail.measures[0].ours.value, -0.45, 4)
        self.assertEqual([measure.verdict for measure in tail.measures], [HOLDS, IN_PART])
        low = self.found("V10")
        self.assertAlmostEqual(low.measures[0].ours.value, 0.01, 4)
        self.assertEqual(low.verdict, HOLDS)
        self.assertEqual(len(low.measures), 1)  # prompts alone have no time per output token: that is named
        self.assertEqual(len(low.reasons), 1)


class Inputs(Planted):
    def test_what_is_missing_is_named_and_stops_nothing(self):
        self.list(
            "vibe-layers",
            "vibe-decode",
            "vibe-scale",
            "vibe-caps",
            "broken",
            "vibe-recorded study.toml workload.path={traces}/x.json",
        )
        self.write("vibe-layers")
        self.write("vibe-scale")
        (self.out / "vibe-scale" / "summary.json").write_text("{")
        self.write("vibe-caps")
        with h5py.File(self.out / "vibe-caps" / "study.h5", "a") as file:
            file.attrs["complete"] = np.int64(0)
        broken = self.write("broken") / "study.h5"
        broken.write_bytes(broken.read_bytes()[:1000])
        html, numbers = self.page()
        missing = {reason.split(":")[0]: reason for reason in numbers["missing"]}
        self.assertEqual(set(missing), {"vibe-decode", "vibe-scale", "vibe-caps", "broken"})
        self.assertIn("not run", missing["vibe-decode"])
        self.assertIn("not complete", missing["vibe-scale"])
        self.assertIn("not complete", missing["vibe-caps"])
        self.assertIn("unreadable", missing["broken"])
        self.assertEqual(len(numbers["left_out"]), 1)
        for name in missing:
            self.assertIn(f"Missing: {name}", html)
        verdicts = {claim["id"]: claim["verdict"] for claim in numbers["claims"]}
        self.assertEqual(verdicts["V15"], NOT_RUN)
        self.assertEqual(verdicts["G1"], NOT_RUN)
        self.assertNotEqual(verdicts["V5"], NOT_RUN)
        self.assertEqual(verdicts["A1"], CANNOT)

    def test_an_empty_folder_makes_a_page_of_what_is_missing(self):
        self.list("vibe-layers")
        html, numbers = self.page()
        self.assertEqual({claim["verdict"] for claim in numbers["claims"]}, {NOT_RUN, CANNOT})
        self.assertIn("vibe-layers: not run", html)

    def test_no_such_folder_is_one_line_and_status_2(self):
        made = subprocess.run(
            [sys.executable, paths.ROOT / "analysis" / "papers.py", self.dir / "none", "--out", self.dir],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(made.returncode, 2)
        self.assertEqual(len(made.stderr.splitlines()), 1)

    def test_hashes_are_of_what_was_read(self):
        self.list("vibe-layers study.toml fleet.spread=2.0")
        folder = self.write("vibe-layers")
        text = (self.studies / "study.toml").read_text()
        (folder / "manifest.json").write_text(
            json.dumps(
                {"study_text": text, "overrides": ["fleet.spread=2.0", "workload.path=/a/b/c.json"], "inputs": []}
            )
        )
        _, numbers = self.page()
        (row,) = numbers["inputs"]
        for field, path in (
            ("study_h5_sha256", folder / "study.h5"),
            ("summary_json_sha256", folder / "summary.json"),
            ("study_file_sha256", self.studies / "study.toml"),
        ):
            self.assertEqual(row[field], hashlib.sha256(path.read_bytes()).hexdigest())
        self.assertEqual(
            (row["settings"], row["study_file_unchanged"]), (["fleet.spread=2.0", "workload.path=c.json"], True)
        )
        (self.studies / "study.toml").write_text(text + "# changed\n")
        html, numbers = self.page()
        self.assertFalse(numbers["inputs"][0]["study_file_unchanged"])
        self.assertIn("changed since", html)

    def test_parameters_are_read_from_the_runs(self):
        self.list("vibe-layers", "vibe-decode")
        self.write("vibe-layers", seed=7)
        self.write("vibe-decode", seed=7, repeats=4)
        _, numbers = self.page()
        self.assertEqual(numbers["parameters"]["shared"]["study.seed"], "7")
        self.assertEqual(
            {name: values["study.repeats"] for name, values in numbers["parameters"]["runs"].items()},
            {"vibe-layers": "6", "vibe-decode": "4"},
        )


class Program(unittest.TestCase):
    """The program itself, small."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        cls.environment = {
            **os.environ,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "MOEVAR_PROGRESS": "none",
        }

    def test_every_listed_study_is_accepted(self):
        for entry in runs.listed(papers.STUDIES / "runs.txt"):
            if entry.needs_traces:
                continue
            settings = [word for setting in entry.settings for word in ("--set", setting)]
            made = subprocess.run(
                [os.environ["MOEVAR"], "plan", papers.STUDIES / entry.file, *settings],
                capture_output=True,
                text=True,
                timeout=60,
                env=self.environment,
            )
            self.assertEqual(made.returncode, 0, f"{entry}: {made.stderr}")

    def test_a_small_run_becomes_a_page(self):
        studies, out = self.dir / "studies", self.dir / "runs"
        studies.mkdir()
        shutil.copy(papers.STUDIES / "vibe-layers.toml", studies)
        small = (
            "model.layers=2",
            "study.repeats=4",
            "phases.steps=4",
            'placement.policies=["contiguous","eplb","vibe"]',
        )
        (studies / "runs.txt").write_text(f"vibe-layers vibe-layers.toml {' '.join(small)}\nvibe-scale none.toml\n")
        settings = [word for setting in small for word in ("--set", setting)]
        subprocess.run(
            [os.environ["MOEVAR"], "run", studies / "vibe-layers.toml", *settings, "--out", out / "vibe-layers"],
            check=True,
            capture_output=True,
            timeout=300,
            env=self.environment,
        )
        subprocess.run(
            [
                sys.executable,
                paths.ROOT / "analysis" / "papers.py",
                out,
                "--studies",
                studies,
                "--out",
                self.dir / "page",
            ],
            check=True,
            capture_output=True,
            timeout=300,
        )
        numbers = json.loads((self.dir / "page" / "papers.json").read_text())
        html = (self.dir / "page" / "papers.html").read_text()
        claims = {claim["id"]: claim for claim in numbers["claims"]}
        (spread,) = claims["V1"]["measures"]
        self.assertEqual(spread["n"], 4)
        self.assertGreater(spread["value"], 0.005)
        self.assertLess(spread["low"], spread["value"])
        self.assertEqual([reason.split(":")[0] for reason in numbers["missing"]], ["vibe-scale"])
        (row,) = numbers["inputs"]
        self.assertEqual(row["settings"], list(small))
        self.assertTrue(row["study_file_unchanged"])
        chosen = {**numbers["parameters"]["shared"], **numbers["parameters"]["runs"]["vibe-layers"]}
        self.assertEqual(chosen["model.layers"], "2")
        self.assertFalse(re.search(r"(?:src|href)=\"(?:https?:)?//", html))  # nothing from a network
        for claim in papers.claims():
            self.assertIn(f'id="{document.anchor(claim)}"', html)

    def test_the_job_runs_what_is_listed_names_what_fails_and_repeats_nothing(self):
        studies, out = self.dir / "listed", self.dir / "job"
        studies.mkdir()
        shutil.copy(papers.STUDIES / "vibe-caps.toml", studies)
        (studies / "runs.txt").write_text(
            "# two that run, one that cannot, one that nobody asked for\n\n"
            "one vibe-caps.toml study.repeats=3\n"
            "two vibe-caps.toml study.repeats=3 conditions.power_cap_w=[750]\n"
            "bad vibe-caps.toml fleet.devices=[7]\n"
            "recorded vibe-caps.toml workload.path={traces}/x.json\n"
        )
        environment = {**self.environment, "STUDIES": str(studies), "PYTHON": sys.executable, "JOBS": "2"}
        environment.pop("TRACES", None)

        def job():
            return subprocess.run(
                ["bash", paths.ROOT / "jobs" / "papers.sh", out],
                capture_output=True,
                text=True,
                timeout=300,
                env=environment,
            )

        made = job()
        self.assertEqual(made.returncode, 1, made.stderr)
        self.assertRegex(made.stderr, "bad: failed: .*7")
        numbers = json.loads((out / "page" / "papers.json").read_text())
        self.assertEqual([row["run"] for row in numbers["inputs"]], ["one", "two"])
        self.assertEqual([reason.split(":")[0] for reason in numbers["missing"]], ["bad"])
        self.assertEqual([reason.split(":")[0] for reason in numbers["left_out"]], ["recorded"])
        before = {name: (out / name / "study.h5").stat().st_mtime_ns for name in ("one", "two")}
        (studies / "runs.txt").write_text((studies / "runs.txt").read_text().replace("bad vibe", "# bad vibe"))
        made = job()
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertNotRegex(made.stdout, "one: [0-9]+ s")
        self.assertEqual({name: (out / name / "study.h5").stat().st_mtime_ns for name in before}, before)


if __name__ == "__main__":
    unittest.main()
