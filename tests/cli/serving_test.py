#!/usr/bin/env python3
"""Studies that serve requests, from the command line."""

import json
import math
import subprocess
import time
import unittest

import h5py
import numpy as np

from moevar_cli import DATA, ENVIRONMENT, MOEVAR, SMALL, Case, start

SERVE = SMALL.replace('name = "small"', 'name = "serve"') + """
[serving]
rates = [500.0, 4000.0]
requests = 120
lengths = "fixed"
input_tokens = 96
output_tokens = 12
token_budget = 256
max_running = 32
slo_ttft_ms = 2.0
slo_tpot_ms = 1.0
"""
CPU = """
[study]
name = "cores"
[model]
hidden = 256
intermediate = 512
experts = 8
top_k = 2
layers = 4
[workload]
tokens_per_device = 64
[fleet]
device = "cpu"
devices = [2]
[placement]
policies = ["contiguous"]
[serving]
rates = [8.0]
requests = 40
lengths = "fixed"
input_tokens = 64
output_tokens = 8
token_budget = 128
max_running = 16
"""


class Serving(Case):
    def tables(self, out, phase=0):
        """Requests and steps of a phase, and its group's attributes."""
        with h5py.File(out / "study.h5") as study:
            group = study[f"phases/{phase:04}"]
            return ({name: data[...] for name, data in group["serving/requests"].items()},
                    {name: data[...] for name, data in group["serving/steps"].items()}, dict(group.attrs))

    def assert_equal_phases(self, a, b):
        diff = subprocess.run(["h5diff", a / "study.h5", b / "study.h5", "/phases", "/phases"], capture_output=True,
                              text=True)
        self.assertEqual((diff.returncode, diff.stdout[:2000]), (0, ""))

    def test_the_same_at_any_number_of_ranks(self):
        self.run_study(SERVE, self.dir / "alone")
        for ranks in (2, 4):
            self.run_study(SERVE, self.dir / str(ranks), ranks=ranks)
            self.assert_equal_phases(self.dir / "alone", self.dir / str(ranks))

    def test_every_cell_and_the_table(self):
        study = self.write("study.toml", SERVE)
        run = start(["run", study, "--out", self.dir / "out"])
        self.assertEqual(run.returncode, 0, run.stderr)
        cells = json.loads((self.dir / "out/summary.json").read_text())["cells"]
        factors = [(cell["power_cap_w"], cell["rate"], cell["policy"]) for cell in cells]
        self.assertEqual(factors, [(cap, rate, policy) for cap in (700, 500) for rate in (500.0, 4000.0)
                                   for policy in ("contiguous", "eplb", "vibe")])
        self.assertIn("8 devices · 700 W · soaked · synthetic · 4000 requests/s per device", run.stdout)
        self.assertIn("TTFT", run.stdout)
        for cell in cells:
            self.assertGreater(cell["serving"]["steps"], 10)

    def test_tokens_are_conserved_and_budgets_kept(self):
        for mode, prompt, answer in (("mixed", 96, 12), ("prefill", 96, 1), ("decode", 16, 12)):
            with self.subTest(mode):
                out = self.dir / mode
                self.run_study(SERVE, out, "--set", f"serving.mode={mode}", "--set", "serving.rates=[20000.0]")
                requests, steps, _ = self.tables(out)
                self.assertEqual(steps["prefill_tokens"].sum(), 120 * prompt)
                self.assertEqual(steps["decode_tokens"].sum(), 120 * (answer - 1))
                self.assertLessEqual((steps["prefill_tokens"] + steps["decode_tokens"]).max(), 256)
                self.assertLessEqual(steps["running"].max(), 32)
                self.assertTrue((requests["output_tokens"] == answer).all())

    def test_alone_a_request_waits_for_its_own_prefill_alone(self):
        out = self.dir / "out"
        self.run_study(SERVE, out, "--set", "serving.rates=[0.05]", "--set", "serving.arrivals=uniform")
        requests, steps, _ = self.tables(out)
        self.assertTrue((steps["running"] == 1).all(), "requests overlap: the rate is too high for this test")
        took_s = 1e-9 * (steps["layers_ns"] + steps["rest_ns"])
        for i in range(120):
            first = np.flatnonzero(steps["start_s"] == requests["started_s"][i])
            self.assertEqual(len(first), 1)
            self.assertEqual(requests["started_s"][i], requests["intended_s"][i])
            self.assertAlmostEqual(requests["first_token_s"][i] - requests["intended_s"][i], took_s[first[0]], delta=1e-9)

    def test_without_limits_all_requests_are_served_well(self):
        cells = self.run_study(SERVE, self.dir / "out", "--set", "serving.slo_ttft_ms=0", "--set",
                               "serving.slo_tpot_ms=0")["cells"]
        for cell in cells:
            self.assertEqual(cell["serving"]["slo_attainment"], 1.0)
            self.assertEqual(cell["serving"]["goodput_rps"], cell["serving"]["throughput_rps"])

    def test_one_device_without_skew_is_the_same_to_all_policies(self):
        policies = ["contiguous", "round_robin", "random", "eplb", "eplb_steps", "sorted", "vibe", "vibe_finish",
                    "vibe_swap", "flashlb", "gem_like", "minmax"]
        out = self.dir / "out"
        cells = self.run_study(SERVE, out, "--set", "fleet.devices=[1]", "--set", "workload.skew=0", "--set",
                               f"placement.policies={json.dumps(policies)}", "--set", "conditions.power_cap_w=[700]",
                               "--set", "serving.rates=[300.0]", "--set", "study.order=listed")["cells"]
        self.assertEqual([cell["policy"] for cell in cells], policies)
        tables = [self.tables(out, cell["phase"]) for cell in cells]
        for cell, (requests, steps, _) in zip(cells, tables):
            # run noise is keyed by the phase
            mean = cells[0]["serving"]["e2e_ms"]["p50"]
            self.assertTrue(math.isclose(cell["serving"]["e2e_ms"]["p50"], mean, rel_tol=0.01), cell["policy"])
            self.assertTrue((requests["intended_s"] == tables[0][0]["intended_s"]).all())

    def test_the_rate_that_keeps_the_attainment_is_found(self):
        cells = self.run_study(SERVE.replace("rates = [500.0, 4000.0]", "find_rate = true"), self.dir / "out")["cells"]
        self.assertEqual(len(cells), 6)
        for cell in cells:
            found = cell["serving"]["max_rate"]
            attainment = dict(map(tuple, found["evaluations"]))
            self.assertEqual(cell["rate"], found["rate"])
            self.assertLessEqual(found["low"], found["rate"])
            self.assertLessEqual(found["rate"], found["high"])
            self.assertLessEqual(found["high"], 1.02 * found["low"] * (1 + 1e-12))
            self.assertGreaterEqual(attainment[found["low"]], 0.9)
            self.assertLess(attainment[found["high"]], 0.9)

    def test_other_requests_and_slower_devices_are_noticed_on_drift_alone(self):
        drifting = SERVE.replace("[serving]", """[serving]
disturbance = "failing"
disturbed_device = 3
disturbed_at = 0.3
""")
        # large enough for arithmetic to decide
        options = [word for key in ("model.hidden=4096", "model.intermediate=4096", "model.experts=64", "model.top_k=4",
                                    "workload.tokens_per_device=1024", "workload.skew=0.3", "conditions.power_cap_w=[500]",
                                    'placement.policies=["vibe_swap"]', "serving.mode=prefill", "serving.rates=[40.0]",
                                    "serving.input_tokens=2048", "serving.token_budget=8192", "serving.requests=1500",
                                    "serving.slo_ttft_ms=0", "serving.slo_tpot_ms=0") for word in ("--set", key)]
        static = self.run_study(drifting, self.dir / "static", *options)["cells"][0]["serving"]
        adaptive = self.run_study(drifting, self.dir / "adaptive", *options, "--set",
                                  "placement.recompute=on-drift")["cells"][0]["serving"]
        self.assertEqual(static["rearrangements"], [])
        self.assertIsNone(static["changes"][0]["noticed_after_s"])
        change = adaptive["changes"][0]
        self.assertEqual(change["what"], "device 3: failing")
        self.assertEqual(change["at_s"], static["changes"][0]["at_s"])
        self.assertGreater(change["noticed_after_s"], 0)
        self.assertGreater(change["moved_experts"], 0)
        self.assertGreater(change["stopped_ms"], 0)
        self.assertGreater(change["tax_peak"], 1.1 * change["tax_before"])
        self.assertTrue(any("device 3" in move["because"] for move in adaptive["rearrangements"]), adaptive["rearrangements"])
        self.assertLess(change["tax_end"], static["changes"][0]["tax_end"])

    def test_where_nothing_changes_nothing_is_moved(self):
        shapes = {"few layers": ("model.experts=16", "model.layers=3", "workload.skew=1.5"),
                  "many experts": ("model.experts=128", "model.top_k=8", "model.layers=8", "model.hidden=2048"),
                  "large": ("model.hidden=4096", "model.intermediate=4096", "model.experts=64", "model.top_k=4")}
        text = SERVE.replace('lengths = "fixed"\ninput_tokens = 96\noutput_tokens = 12\n', 'lengths = "sharegpt"\n')
        for name, shape in shapes.items():
            options = [word for key in (*shape, "placement.recompute=on-drift", "serving.rates=[100.0]",
                                        'placement.policies=["eplb","vibe_swap"]', "conditions.power_cap_w=[500]",
                                        "serving.requests=1000", "serving.token_budget=2048")
                       for word in ("--set", key)]
            for cell in self.run_study(text, self.dir / name, *options)["cells"]:
                with self.subTest(shape=name, policy=cell["policy"]):
                    self.assertGreater(cell["serving"]["steps"], 500)
                    self.assertEqual(cell["serving"]["rearrangements"], [])

    def test_of_two_devices_the_slow_one_is_relieved(self):
        text = SERVE.replace("[serving]", '[serving]\ndisturbance = "failing"\ndisturbed_at = 0.3')
        options = [word for key in ("model.hidden=4096", "model.intermediate=4096", "model.experts=64", "model.top_k=4",
                                    "workload.tokens_per_device=2048", "workload.skew=0.3", "conditions.power_cap_w=[500]",
                                    "fleet.devices=[2]", 'placement.policies=["vibe_swap"]', "serving.mode=prefill",
                                    "serving.rates=[40.0]", "serving.input_tokens=2048", "serving.token_budget=8192",
                                    "serving.requests=1000", "placement.recompute=on-drift") for word in ("--set", key)]
        served = self.run_study(text, self.dir / "out", *options)["cells"][0]["serving"]
        change = served["changes"][0]
        self.assertIsNotNone(change["noticed_after_s"], served["rearrangements"])
        self.assertGreater(change["moved_experts"], 0)
        self.assertLess(change["tax_end"], 0.7 * change["tax_peak"])

    def test_repeats_do_not_see_the_same_steps(self):
        out = self.dir / "out"
        self.run_study(SERVE, out, "--set", "study.repeats=2", "--set", "serving.arrivals=uniform", "--set",
                       'placement.policies=["contiguous"]', "--set", "conditions.power_cap_w=[700]", "--set",
                       "serving.rates=[500.0]", "--set", "study.order=listed")
        with h5py.File(out / "study.h5") as study:
            busiest = [study[f"phases/{phase:04}/layer/tokens_max"][...] for phase in (0, 1)]
            first = [int(study[f"phases/{phase:04}"].attrs["first_step"]) for phase in (0, 1)]
        self.assertGreater(first[1] - first[0], len(busiest[0]))
        steps = min(map(len, busiest))
        for shift in range(30):
            same = np.mean(busiest[0][shift:steps] == busiest[1][:steps - shift])
            self.assertLess(same, 0.9, f"repeat 1 is repeat 0, {shift} steps on")

    def test_a_search_without_an_end_names_no_rate(self):
        for limit, missed in (("1e-9", True), ("1e9", False)):
            with self.subTest(limit):
                text = SERVE.replace("rates = [500.0, 4000.0]", "find_rate = true")
                out = self.dir / limit
                cell = self.run_study(text, out, "--set", f"serving.slo_ttft_ms={limit}", "--set", "serving.slo_tpot_ms=0",
                                      "--set", "conditions.power_cap_w=[700]", "--set",
                                      'placement.policies=["eplb"]')["cells"][0]
                self.assertIsNone(cell["rate"])
                found = cell["serving"]["max_rate"]
                self.assertEqual((found["low"] is None, found["high"] is None), (missed, not missed))

    def test_a_drifting_run_is_the_same_at_any_number_of_ranks(self):
        options = ("--set", 'serving.lengths=["sharegpt","sonnet","sharegpt"]', "--set", "serving.token_budget=2048",
                   "--set", "placement.recompute=on-drift", "--set", "serving.rates=[1000.0]", "--set",
                   'placement.policies=["eplb","vibe_swap"]', "--set", "workload.skew=1.5", "--set", "serving.requests=300")
        text = SERVE.replace('lengths = "fixed"\ninput_tokens = 96\noutput_tokens = 12\n', "")
        cells = self.run_study(text, self.dir / "1", *options)["cells"]
        self.assertTrue(any(cell["serving"]["rearrangements"] for cell in cells), "nothing drifted")
        self.assertEqual([change["what"] for change in cells[0]["serving"]["changes"]],
                         ["sharegpt to sonnet", "sonnet to sharegpt"])
        self.run_study(text, self.dir / "3", *options, ranks=3)
        self.assert_equal_phases(self.dir / "1", self.dir / "3")

    def test_a_run_cut_short_goes_on_as_if_it_had_not_been(self):
        whole, cut = self.dir / "whole", self.dir / "cut"
        self.run_study(SERVE, whole)
        study = self.write("study.toml", SERVE)
        process = subprocess.Popen([MOEVAR, "run", study, "--out", cut], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        while process.poll() is None and len(list(cut.glob("phases/[0-9]*.h5"))) < 3:
            time.sleep(0.002)
        process.kill()
        process.wait()
        again = start(["run", study, "--out", cut, "--resume"])
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assert_equal_phases(whole, cut)

    def test_recorded_requests(self):
        trace = self.write("trace.csv", "arrival,input,output\n0,64,8\n0.01,300,4\n0.01,10,1\n0.05,96,12\n")
        text = SERVE.replace("rates = [500.0, 4000.0]", f'arrivals = "recorded"\npath = "{trace}"')
        text = text.replace('lengths = "fixed"\ninput_tokens = 96\noutput_tokens = 12\n', "")
        out = self.dir / "out"
        cells = self.run_study(text, out)["cells"]
        requests, steps, _ = self.tables(out)
        self.assertEqual(requests["intended_s"].tolist(), [0, 0.01, 0.01, 0.05])
        self.assertEqual(requests["input_tokens"].tolist(), [64, 300, 10, 96])
        self.assertGreater(len(steps["start_s"]), 12)
        self.assertAlmostEqual(cells[0]["rate"], 4 / 0.05 / 8)
        manifest = json.loads((out / "manifest.json").read_text())
        self.assertEqual([one["path"] for one in manifest["inputs"]], [str(trace)])
        faster = self.run_study(text, self.dir / "faster", "--set", "serving.rates=[100.0]")["cells"]
        self.assertEqual(faster[0]["rate"], 100.0)
        self.assertAlmostEqual(self.tables(self.dir / "faster")[0]["intended_s"][-1], 4 / 800)

    @unittest.skipUnless((DATA / "request-traces").exists(), "needs ../shared/data/request-traces")
    def test_an_hour_of_real_requests_begins(self):
        trace = DATA / "request-traces/azure_llm_2023_conversation.csv"
        text = SERVE.replace("rates = [500.0, 4000.0]", f'rates = [50.0]\narrivals = "recorded"\npath = "{trace}"')
        text = text.replace('lengths = "fixed"\ninput_tokens = 96\noutput_tokens = 12\n', "")
        cells = self.run_study(text, self.dir / "out")["cells"]
        self.assertEqual(cells[0]["serving"]["requests"], 120)

    def assert_refused(self, text, *words, status=2):
        study = self.write("study.toml", text)
        for ranks in (0, 2):
            run = start(["run", study, "--out", self.dir / "refused"], ranks=ranks)
            lines = [line for line in run.stderr.splitlines() if line.startswith("moevar:")]
            self.assertEqual((run.returncode, len(lines)), (status, 1), run.stderr)
            for word in words:
                self.assertIn(word, lines[0])
            self.assertFalse((self.dir / "refused").exists(), "something is left behind")

    def test_studies_that_cannot_be_served_are_refused(self):
        fixed = 'lengths = "fixed"\ninput_tokens = 96\noutput_tokens = 12\n'
        cases = {
            "no rate": (SERVE.replace("rates = [500.0, 4000.0]", ""), "serving.", "no requests are served"),
            "two ways": (SERVE.replace("[serving]", "[serving]\nfind_rate = true"), "serving.rates"),
            "no limit": (SERVE.replace("rates = [500.0, 4000.0]", "find_rate = true").replace("slo_", "# slo_"),
                         "serving.find_rate", "slo_ttft_ms"),
            "rate 0": (SERVE.replace("500.0, ", "0.0, "), "serving.rates", "0.0"),
            "no file": (SERVE.replace("rates =", 'arrivals = "recorded"\nrates =').replace(fixed, ""), "serving.path"),
            "no such file": (SERVE.replace("rates =", 'arrivals = "recorded"\npath = "absent.csv"\nrates =')
                             .replace(fixed, ""), "absent.csv"),
            "lengths of a file": (SERVE.replace("rates =", 'arrivals = "recorded"\npath = "a.csv"\nrates ='),
                                  "serving.lengths"),
            "a path for nothing": (SERVE.replace("rates =", 'path = "a.csv"\nrates ='), "serving.path"),
            "lengths for nothing": (SERVE.replace('lengths = "fixed"', 'lengths = "sonnet"'), "serving.input_tokens"),
            "a budget below max_running": (SERVE.replace("token_budget = 256", "token_budget = 16"), "16", "32"),
            "every step anew": (SERVE.replace('["contiguous", "eplb", "vibe"]', '["oracle"]'), "oracle"),
            "precision": (SERVE.replace("[phases]", "[phases]\nprecision = 0.1"), "phases.precision"),
            "causes": (SERVE.replace("[study]", "[study]\ncauses = true"), "study.causes"),
            "telemetry": (SERVE + "[record]\ntelemetry_hz = 10\n", "record.telemetry_hz"),
            "no such device": (SERVE.replace("[serving]", '[serving]\ndisturbance = "failing"\ndisturbed_device = 8'),
                               "serving.disturbed_device"),
            "heat": (SERVE.replace("[serving]", '[serving]\ndisturbance = "capped"')
                     .replace("[conditions]", '[conditions]\nheat = ["ambient"]'), "conditions.heat"),
            "shares": (SERVE.replace("[serving]", "[serving]\nshare_tokens_prefill = 100"), "serving.share_tokens_prefill"),
            "attainment for nothing": (SERVE.replace("[serving]", "[serving]\nattainment = 0.8"), "serving.attainment"),
            "a device for nothing": (SERVE.replace("[serving]", "[serving]\ndisturbed_device = 1"),
                                     "serving.disturbed_device"),
            "a budget beyond counting": (SERVE.replace("top_k = 2", "top_k = 16").replace("experts = 16", "experts = 256")
                                         .replace("token_budget = 256", "token_budget = 16777216")
                                         .replace("top_k = 16", "top_k = 256").replace("devices = [8]", "devices = [1]"),
                                         "serving.token_budget"),
            "too many kinds": (SERVE.replace('"fixed"', json.dumps(["fixed"] * 1200)).replace("requests = 120",
                                                                                              "requests = 2400"),
                               "serving.lengths"),
            "a word": (SERVE.replace("[serving]", '[serving]\nmode = "both"'), "mixed, prefill, decode"),
        }
        for name, (text, *words) in cases.items():
            with self.subTest(name):
                self.assert_refused(text, *words)

    def test_bad_traces_are_refused(self):
        text = SERVE.replace("rates = [500.0, 4000.0]", 'arrivals = "recorded"\npath = "{}"')
        text = text.replace('lengths = "fixed"\ninput_tokens = 96\noutput_tokens = 12\n', "")
        for name, rows in {"unsorted": "1,8,8\n0,8,8\n", "negative": "-1,8,8\n", "no prompt": "0,0,8\n",
                           "no answer": "0,8,0\n", "one at a rate": "0,8,8\n", "no number": "0,x,8\n", "short": "0,8\n", "none": ""}.items():
            with self.subTest(name):
                trace = self.write("trace.csv", "arrival,input,output\n" + rows)
                rate = "\nrates = [1.0]" if name == "one at a rate" else ""
                self.assert_refused(text.replace('"{}"', f'"{trace}"{rate}'), "serving.path")

    def test_cores_serve_for_real(self):
        out = self.dir / "out"
        cell = self.run_study(CPU, out, ranks=2)["cells"][0]
        served = cell["serving"]
        requests, steps, attributes = self.tables(out)
        self.assertEqual(attributes["timer"], "clock_monotonic_raw")
        self.assertGreater(attributes["reference_error"], 0.0)
        self.assertLess(attributes["reference_error"], 1e-4)
        self.assertEqual(steps["prefill_tokens"].sum(), 40 * 64)
        self.assertEqual(served["predicted"]["requests"], 40)
        self.assertGreater(served["duration_s"], requests["intended_s"][-1])
        # the shares' rest is waited for
        took_s = 1e-9 * (steps["layers_ns"] + steps["rest_ns"])
        self.assertTrue((np.diff(steps["start_s"]) >= took_s[:-1] - 1e-4).all())
        self.assertGreater(served["rest_s"], 0.1 * served["layers_s"])

    def test_what_cores_cannot_do_is_refused(self):
        for change, word in (("recompute = \"on-drift\"", "placement.recompute"),):
            self.assert_refused(CPU.replace("[placement]", f"[placement]\n{change}"), word)
        self.assert_refused(CPU.replace("rates = [8.0]", "find_rate = true\nslo_ttft_ms = 5"), "serving.find_rate")
        self.assert_refused(CPU.replace("[serving]", '[serving]\ndisturbance = "failing"'), "serving.disturbance")

    def test_the_plan_names_rates(self):
        run = start(["plan", self.write("study.toml", SERVE)])
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("4000 requests/s per device", run.stdout)
        self.assertIn("12 phases of 120 requests", run.stdout)


if __name__ == "__main__":
    unittest.main()
