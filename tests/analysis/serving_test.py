"""What report.py and table.py make of runs that served requests: planted figures come out, rates stay apart."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import paths
import numpy as np
import synthetic_serving as synthetic
from moevar import request_comparison, serving
from moevar.intervals import NOT_SUPPORTED, Estimate
from moevar.study import StudyFile
from scipy import stats
from synthetic_serving import change, found, phase, write

sys.path.insert(0, str(paths.ROOT / "tests/cli"))
from moevar_cli import start  # noqa: E402

TINY = """[study]
name = "tiny"
repeats = 2
[model]
hidden = 1024
intermediate = 512
experts = 32
top_k = 4
layers = 3
[workload]
tokens_per_device = 64
[fleet]
device = "model"
preset = "mi300x"
devices = [2, 4]
[placement]
policies = ["contiguous", "vibe"]
recompute = "on-drift"
[serving]
rates = [50.0, 400.0]
requests = 150
lengths = ["fixed"]
input_tokens = 96
output_tokens = 8
token_budget = 256
slo_ttft_ms = 3
slo_tpot_ms = 1
disturbance = "failing"
disturbed_device = 1
[record]
timelines = false
"""


def rows_of(markdown):
    """The rows of each Markdown table in a text, by the names of its columns."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        tables.append([dict(zip(lines[0], line)) for line in lines[2:]])
    return tables


class Served(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def start(self, program, *arguments):
        made = subprocess.run([sys.executable, paths.ROOT / "analysis" / program, *map(str, arguments)],
                              capture_output=True, text=True, timeout=300)
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        return made.stdout

    def report(self, folder):
        """The page's words, and each figure's numbers."""
        self.start("report.py", folder, "--png")
        figures = {path.stem: json.loads(path.read_text()) for path in (folder / "figures").glob("*.json")}
        page = re.sub(r"<img[^>]*>", "", (folder / "report.html").read_text())
        return page, {name: figure["numbers"] for name, figure in figures.items()}

    @staticmethod
    def table_rows(page, caption):
        """The rows of the table whose caption begins so, cells as text."""
        table = next(table for table in re.findall(r"<table>.*?</table>", page, flags=re.DOTALL)
                     if f"<caption>{caption}" in table)
        return [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
                for row in re.findall(r"<tr>.*?</tr>", table.split("<tbody>")[1])]


class OverRepeats(unittest.TestCase):
    def test_two_repeats_join_their_own_intervals(self):
        joined = serving.over_repeats([Estimate(0.8, 0.7, 0.85, 50, ""), Estimate(0.6, 0.4, 0.75, 50, "")], highest=1.0)
        self.assertAlmostEqual(joined.value, 0.7)
        self.assertAlmostEqual(joined.low, 0.7 - np.hypot(0.1, 0.2) / 2)
        self.assertAlmostEqual(joined.high, 0.7 + np.hypot(0.05, 0.15) / 2)
        self.assertEqual(joined.n, 100)

    def test_without_own_intervals_three_repeats_are_needed(self):
        values = [0.5, 0.6, 0.9]
        bare = [Estimate(value, None, None, 10, NOT_SUPPORTED) for value in values]
        self.assertFalse(serving.over_repeats(bare[:2]).supported)
        three = serving.over_repeats(bare)
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
        self.assertAlmostEqual(three.high, np.mean(values) + half)
        self.assertEqual(serving.over_repeats(bare, highest=1.0).high, 1.0)
        self.assertEqual(serving.over_repeats(bare).low, max(0.0, np.mean(values) - half))

    def test_one_repeat_keeps_its_own(self):
        only = Estimate(0.5, 0.4, 0.6, 10, "")
        self.assertIs(serving.over_repeats([only]), only)

    def test_joined_intervals_cover(self):
        rng = np.random.default_rng(3)
        covered, total, t = 0, 8000, stats.t.ppf(0.975, 39)    # single intervals as the program makes them
        for kept in rng.binomial(40, 0.8, (total, 3)) / 40:
            z2 = t**2 / 40
            centre, half = (kept + z2 / 2) / (1 + z2), np.sqrt(z2 * (kept * (1 - kept) + z2 / 4)) / (1 + z2)
            covered += serving.over_repeats([Estimate(value, c - h, c + h, 40, "") for value, c, h in
                                             zip(kept, centre, half)]).covers(0.8)
        # 94.1 % of very many; a share of 40 has few values
        self.assertTrue(0.933 < covered / total < 0.95, covered / total)


class Courses(Served):
    def test_tax_and_ttft_roll_and_end_with_the_last_arrival(self):
        tax = np.concatenate([np.full(60, 0.1), np.full(60, 0.3), np.full(40, 5.0)])    # the last 40: nobody comes
        ttft = np.concatenate([np.full(30, 100.0), np.full(30, 400.0)])
        arrived = np.linspace(0, 5.96, 60)      # step 119 begins at 5.95 s
        with StudyFile.open(write(self.dir, [phase(rate=2.5, ttft_ms=ttft, arrived_s=arrived, tax=tax)])) as study:
            (only,) = study.phases
            times, rolling = serving.tax_course(only)
            self.assertAlmostEqual(times[-1], 5.95)
            self.assertEqual(len(rolling), 120 - 49)
            np.testing.assert_allclose(rolling[[0, 10, 35, 60, -1]], [0.1, 0.1, 0.2, 0.3, 0.3], rtol=1e-6)
            times, rolling = serving.ttft_course(only, 25)
            self.assertEqual((len(rolling), times[0], times[-1]), (36, arrived[24], arrived[-1]))
            np.testing.assert_allclose(rolling[[0, 17, 18, -1]], [100, 100, 400, 400])


class Report(Served):
    def rated(self):
        """Two rates, two policies, two repeats: attainment 1, 0.8 and, of contiguous at the higher rate, 0.4."""
        def latencies(policy, rate, repeat):
            late = {("contiguous", 4.0): 60, ("eplb", 4.0): 20}.get((policy, rate), 0)
            return np.concatenate([np.full(100 - late, 60.0 * rate + repeat), np.full(late, 5000.0)])
        return write(self.dir / "rated", [
            phase(rate=rate, policy=policy, repeat=repeat, ttft_ms=latencies(policy, rate, repeat),
                  tax=np.full(20, 0.05 * rate)) for repeat in (0, 1) for rate in (1.0, 4.0)
            for policy in ("contiguous", "eplb")])

    def test_rates_are_cells_of_their_own_everywhere(self):
        page, figures = self.report(self.rated())
        shares = {(row["policy"], row["rate"]): (row["value"], row["per_repeat"]) for row in figures["attainment"]}
        self.assertEqual(shares, {("contiguous", 1.0): (1.0, [1.0, 1.0]), ("contiguous", 4.0): (0.4, [0.4, 0.4]),
                                  ("eplb", 1.0): (1.0, [1.0, 1.0]), ("eplb", 4.0): (0.8, [0.8, 0.8])})
        (low,) = [row["low"] for row in figures["attainment"] if (row["policy"], row["rate"]) == ("eplb", 4.0)]
        self.assertAlmostEqual(low, 0.8 - np.hypot(0.1, 0.1) / 2)
        for what, expected in (("p50", {"contiguous": 5000.0, "eplb": 240.5}), ("p90", {"contiguous": 5000.0,
                                                                                        "eplb": 5000.0})):
            here = {row["policy"]: row["value"] for row in figures["ttft-by-rate"]
                    if row["what"] == f"ttft_ms.{what}" and row["rate"] == 4.0}
            self.assertEqual({policy: round(value, 6) for policy, value in here.items()}, expected)
        self.assertTrue(all(abs(row["value"] - 10) < 1e-6 for row in figures["tpot-by-rate"]))
        taxes = {row["rate"]: row["value"] for row in figures["tax-by-size"] if row.get("what") == "tax over repeats"}
        self.assertEqual({rate: round(value, 6) for rate, value in taxes.items()}, {1.0: 0.05, 4.0: 0.2})
        self.assertEqual({(row["rate"], len(row["phases"])) for row in figures["layer-time"]}, {(1.0, 2), (4.0, 2)})
        self.assertIn("own limit · soaked · 4 requests/s per device", page)
        self.assertIn("TTFT ≤ 300 ms and TPOT ≤ 50 ms", page)

    def test_figures_of_equal_steps_are_left_out_with_a_reason(self):
        page, figures = self.report(self.rated())
        self.assertEqual(set(figures), {"attainment", "ttft-by-rate", "tpot-by-rate", "tax-by-size", "layer-time",
                                        "tax-idle"})
        for reason in ("Phases that serve requests keep no timelines", "requests make steps of every size",
                       "what changed in a run stands under Requests"):
            self.assertIn(reason, page)
        self.assertIn("Requests made the steps", page)

    def test_the_table_of_requests(self):
        page, _ = self.report(self.rated())
        rows = self.table_rows(page, "SLO: TTFT ≤ 300 ms")
        self.assertEqual([(row[0], row[3]) for row in rows], [(policy, rate) for rate in ("1", "4")
                                                              for policy in ("contiguous", "eplb")])
        half = 10 * np.hypot(1, 1) / 2
        self.assertEqual(rows[3][9], f"80.0 ({80 - half:.1f} … {80 + half / 2:.1f})")
        self.assertEqual(rows[3][6], "5000.0")      # p99 has no interval

    def test_searched_rates(self):
        searched = write(self.dir / "searched", [
            phase(rate=rate, policy=policy, repeat=repeat, max_rate=found(rate, rate - 0.1, rate + 0.1, [[1.0, 1.0], [
                rate + 0.1, 0.85], [rate - 0.1, 0.95]]))
            for policy, rates in (("contiguous", (2.0, 2.2, 2.4)), ("vibe", (3.0, 3.1, 3.2)))
            for repeat, rate in enumerate(rates)] + [
            phase(rate=64.0, policy="eplb", max_rate=found(None, 64.0, None, [[64.0, 1.0]]))], find_rate=True)
        page, figures = self.report(searched)
        self.assertNotIn("attainment", figures)
        means = {row["policy"]: row for row in figures["max-rate"] if row["what"] == "found rate over repeats"}
        self.assertEqual({policy: round(row["value"], 6) for policy, row in means.items()},
                         {"contiguous": 2.2, "vibe": 3.1})
        half = stats.t.ppf(0.975, 2) * 0.2 / np.sqrt(3)
        self.assertAlmostEqual(means["contiguous"]["low"], 2.2 - half)
        single = [row for row in figures["max-rate"] if row["what"] == "found rate" and row["policy"] == "eplb"]
        self.assertEqual([(row["value"], row["kept"], row["missed"]) for row in single], [(None, 64.0, None)])
        self.assertIn("vibe keeps the attainment up to 3.1 requests/s per device, +40.9 % against contiguous", page)
        rates = {row[0]: row[3] for row in self.table_rows(page, "SLO")}
        self.assertEqual(rates, {"contiguous": "2.200 (found)", "vibe": "3.100 (found)", "eplb": "&gt; 64"})
        # each policy at a rate of its own: layer times are not set against each other
        self.assertEqual([row[5] for row in self.table_rows(page, "In brackets 95 %")], ["base", "–", "–"])
        self.assertIn("How long a layer takes under each policy", page)
        self.assertEqual(page.count("Each cell ran at the request rate that was found for it."), 2)

    def test_changes_and_moves(self):
        moves = [{"at_s": 4.0, "because": "cosine", "moved_experts": 70, "migrate_ms": 30.0},
                 {"at_s": 6.0, "because": "cosine", "moved_experts": 0, "migrate_ms": 0.0}]
        run = write(self.dir / "changed", [
            phase(rate=2.5, policy=policy, repeat=repeat, ttft_ms=np.full(80, 100.0), tax=np.full(160, 0.1),
                  rearrangements=moves if policy == "vibe" else [],
                  changes=[change("sharegpt to sonnet", 3.0, **figures)])
            for policy, repeat, figures in (
                ("contiguous", 0, {}), ("contiguous", 1, {}),
                ("vibe", 0, {"noticed_after_s": 1.0, "recovered_after_s": 2.0, "moved_experts": 70,
                             "stopped_ms": 30.0}),
                ("vibe", 1, {"noticed_after_s": 2.0, "moved_experts": 90, "stopped_ms": 40.0}))])
        page, figures = self.report(run)
        contiguous, vibe = self.table_rows(page, "What changed in a run")
        self.assertEqual((contiguous[4:8]), ["never", "never", "0", "0.0"])
        self.assertEqual(vibe[:2] + vibe[4:], ["sharegpt to sonnet", "vibe", "1.50", "2.00 (1 of 2)", "80", "35.0",
                                               "10.0", "30.0", "100", "900"])
        drawn = figures["course"]
        self.assertEqual([(row["policy"], row["at_s"]) for row in drawn if row["what"] == "change"],
                         [("contiguous", 3.0), ("vibe", 3.0)])
        self.assertEqual([row["moved_experts"] for row in drawn if row["what"] == "rearrangement"], [70, 0])
        self.assertEqual({row["repeat"] for row in drawn}, {0})
        self.assertIn("After sharegpt to sonnet vibe moved 70 experts in 1 moves", page)

    def test_predicted_against_measured(self):
        predicted = {"ttft_ms": synthetic.estimates(np.full(10, 100.0))}
        _, figures = self.report(write(self.dir / "cores", [
            phase(rate=2.0, ttft_ms=np.concatenate([np.full(60, 110.0), np.full(40, 150.0)]), predicted=predicted)],
            device="cpu"))
        errors = {row["quantile"]: round(row["error"], 6) for row in figures["serving-prediction"]}
        self.assertEqual(errors, {"p50": 0.1, "p90": 0.5, "p99": 0.5})

    def test_without_summary_the_page_says_so(self):
        page, figures = self.report(write(self.dir / "bare", [phase(rate=2.0)], summary=False))
        self.assertIn("summary.json: no cell has `serving`", page)
        self.assertIn("tax-by-size", figures)


class Table(Served):
    def test_a_row_per_rate_and_policy(self):
        run = write(self.dir / "run", [
            phase(rate=rate, policy=policy, repeat=repeat, ttft_ms=np.full(10, 100 * rate + repeat), tpot_ms=20.0,
                  tax=[0.1 + 0.1 * repeat])
            for rate in (1.0, 4.0) for policy in ("contiguous", "vibe") for repeat in (0, 1)])
        (rows,) = rows_of(self.start("table.py", run))
        self.assertEqual([(row["rate, requests/s per device"], row["policy"], row["TTFT p50 ms"]) for row in rows],
                         [("1", "contiguous", "100.5"), ("1", "vibe", "100.5"), ("4", "contiguous", "400.5"),
                          ("4", "vibe", "400.5")])
        self.assertEqual([row["in SLO %"] for row in rows], ["100.0", "100.0", "0.0", "0.0"])
        self.assertEqual({(row["TPOT p90 ms"], row["tax %"], row["devices"]) for row in rows}, {("20.0", "15.0", "4")})
        self.assertNotIn("imbalance", self.start("table.py", run))

    def test_found_rates_and_bounds(self):
        run = write(self.dir / "run", [
            phase(rate=2.0, max_rate=found(2.0, 1.9, 2.1, [])),
            phase(rate=2.5, repeat=1, max_rate=found(2.5, 2.4, 2.6, [])),
            phase(rate=64.0, policy="vibe", max_rate=found(None, 64.0, None, [])),
            phase(rate=0.1, policy="eplb", max_rate=found(None, None, 0.1, []))], find_rate=True)
        (rows,) = rows_of(self.start("table.py", run))
        self.assertEqual([row["rate, requests/s per device"] for row in rows], ["2.250 found", "> 64", "< 0.1"])

    def test_answers_of_one_token_have_no_tpot(self):
        run = write(self.dir / "run", [phase(rate=2.0)])
        summary = json.loads((run / "summary.json").read_text())
        summary["cells"][0]["serving"]["tpot_ms"] = None
        (run / "summary.json").write_text(json.dumps(summary))
        ((row,),) = rows_of(self.start("table.py", run))
        self.assertEqual((row["TPOT p50 ms"], row["TTFT p50 ms"]), ("–", "100.0"))
        page, figures = self.report(run)
        self.assertNotIn("tpot-by-rate", figures)
        self.assertEqual(self.table_rows(page, "SLO")[0][7:9], ["–", "–"])


class OfTheProgram(Served):
    """A small run of moevar itself: every number of the figures is the run's own."""

    @classmethod
    def setUpClass(cls):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        (folder / "tiny.toml").write_text(TINY)
        cls.run_folder = folder / "tiny"
        run = start(["run", folder / "tiny.toml", "--out", cls.run_folder], timeout=120)
        assert run.returncode == 0, run.stderr

    def test_report_and_table_say_what_the_summary_says(self):
        cells = json.loads((self.run_folder / "summary.json").read_text())["cells"]
        self.assertEqual(len(cells), 2 * 2 * 2 * 2)
        page, figures = self.report(self.run_folder)
        self.assertNotIn("Not shown", page)
        for name in ("attainment", "ttft-by-rate", "ttft-by-rate-2", "tpot-by-rate", "course", "fleet-speed"):
            self.assertIn(name, figures)
        rows = figures["attainment"] + figures["ttft-by-rate"] + figures["ttft-by-rate-2"]
        self.assertEqual(len(rows), 8 + 3 * 8)
        for row in rows:
            own = [cell for cell in cells if cell["phase"] in row["phases"]]
            self.assertEqual({(cell["rate"], cell["policy"], cell["devices"]) for cell in own},
                             {(row["rate"], row["policy"], row["devices"])})
            name, _, quantile = row["what"].partition(".")
            values = [cell["serving"][name][quantile] if quantile else cell["serving"][name] for cell in own]
            self.assertEqual(len(values), 2)
            self.assertAlmostEqual(row["value"], float(np.mean(values)))
        changed = [row for name, numbers in figures.items() if name.startswith("course") for row in numbers
                   if row["what"] == "change"]
        self.assertEqual(len(changed), 2 * 2 * 2)     # a repeat of each size, rate and policy
        (lines,) = rows_of(self.start("table.py", self.run_folder))
        self.assertEqual(len(lines), 8)

    def test_the_tables_attainment_is_that_of_the_requests(self):
        """compare.py counts requests within the limits as the program does."""
        with StudyFile.open(self.run_folder) as study:
            for one in study.phases:
                share = request_comparison.within_limits(one, 3.0, 1.0).mean()
                self.assertAlmostEqual(share, study.cell(one)["serving"]["slo_attainment"])


if __name__ == "__main__":
    unittest.main()
