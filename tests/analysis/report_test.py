"""The report of real runs: every figure's numbers against summary.json and study.h5; its page in a browser; bad input."""

import html
import itertools
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
from synthetic_study import TOKENS, Writer, nearest_rank

sys.path.insert(0, str(paths.ROOT / "tests/cli"))
from moevar_cli import start  # noqa: E402

REPORT = paths.ROOT / "analysis/report.py"
QUICKSTART = paths.ROOT / "jobs/studies/quickstart.toml"
CPU = paths.ROOT / "jobs/studies/cpu.toml"
EVERY = {"fleet-speed", "fleet-state", "tax-by-size", "slowest-law", "layer-time", "tax-idle", "prediction"}


def options(**changes):
    return [part for key, value in changes.items()
            for part in ("--set", f"{key.replace('__', '.')}={json.dumps(value)}")]


RUNS = {
    # name: (study, ranks, changes, figures besides EVERY)
    "sizes": (QUICKSTART, 0, options(fleet__devices=[2, 4, 8], model__layers=4, phases__steps=24, study__repeats=2),
              {"vibe-projection", "spread-cap", "slow-step", "slow-step-best"}),
    "heat": (QUICKSTART, 0, options(model__layers=3, phases__steps=40, study__repeats=1, record__telemetry_hz=10,
                                    conditions__heat=["ambient", "soaked"], placement__policies=["eplb", "minmax"]),
             {"spread-cap", "sensors", "slow-step", "slow-step-best"}),
    "drift": (QUICKSTART, 0, options(model__layers=3, phases__steps=32, study__repeats=4, workload__drift=0.05,
                                     study__order="listed", placement__policies=["eplb", "vibe"],
                                     placement__recompute="on-drift", record__timelines=False),
              {"spread-cap", "drift"}),
    "cpu": (CPU, 2, options(phases__steps=8, model__layers=2),
            {"vibe-projection", "slow-step", "slow-step-best"}),
}


def report(*arguments):
    return subprocess.run([sys.executable, REPORT, *map(str, arguments)], capture_output=True, text=True, timeout=300)


class Reports(unittest.TestCase):
    """Runs of the program, and their reports, made once."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        for name, (study, ranks, changes, _) in RUNS.items():
            run = start(["run", study, "--out", cls.dir / name, *changes], ranks=ranks, timeout=120)
            assert run.returncode == 0, run.stderr
            made = report(cls.dir / name)
            assert made.returncode == 0, made.stderr

    def runs(self):
        """(name, cells of summary.json by phase, study.h5, numbers of every figure) of each run."""
        for name in RUNS:
            folder = self.dir / name
            summary = json.loads((folder / "summary.json").read_text())
            figures = {path.stem: json.loads(path.read_text())["numbers"]
                       for path in (folder / "figures").glob("*.json")}
            with self.subTest(run=name), h5py.File(folder / "study.h5") as file:
                yield name, {cell["phase"]: cell for cell in summary["cells"]}, file, figures

    def joined(self, row, cells):
        """The cells that a row of numbers says it is of; their factors must be the row's."""
        found = [cells[index] for index in row.get("phases", [row.get("phase")])]
        for cell in found:
            for key in ("devices", "policy", "power_cap_w", "heat", "workload"):
                if key in row:
                    self.assertEqual(row[key], cell[key], (key, row))
        self.assertGreater(len(found), 0)
        return found

    def close(self, found, expected, about=None):
        self.assertTrue(np.isclose(found, expected, rtol=1e-9, atol=1e-12), f"{found} is not {expected}: {about}")

    def test_every_figure_is_there_and_no_other(self):
        for name, _, _, figures in self.runs():
            more = set(RUNS[name][3])
            # the best policy's step has a figure of its own where it is not the first policy's
            expected = EVERY | more - {"slow-step-best"}
            if name == "cpu":   # nothing reads a CPU core's clock
                expected -= {"fleet-state"}
            self.assertEqual(set(figures) - {"slow-step-best"}, expected)
            for figure, numbers in figures.items():
                self.assertGreater(len(numbers), 0, figure)
                svg = (self.dir / name / "figures" / f"{figure}.svg").read_text()
                self.assertTrue(svg.startswith("<svg") and svg.rstrip().endswith("</svg>"))

    def test_taxes(self):
        checked = 0
        for _, cells, file, figures in self.runs():
            singles = {row["phase"]: row for row in figures["tax-by-size"] if "straggler_tax" in row}
            self.assertEqual(set(singles), set(cells))
            for index, row in singles.items():
                self.close(row["straggler_tax"], cells[index]["straggler_tax"], row)
                self.joined(row, cells)
            for row in figures["tax-by-size"] + figures["tax-idle"]:
                if "interval" in row and row.get("what") != "idle_fraction":
                    taxes = [cell["straggler_tax"] for cell in self.joined(row, cells)]
                    layer, busy = (sum(int(file[f"phases/{index:04}/layer/{field}"][...].sum()) for index in row["phases"])
                                   for field in ("layer_ns", "busy_sum_ns"))
                    self.close(row["value"], layer * row["devices"] / busy - 1, row)
                    self.assertTrue(min(taxes) - 1e-12 <= row["value"] <= max(taxes) + 1e-12, (row, taxes))
                    self.assertTrue(row["low"] is None or row["low"] <= row["value"] <= row["high"], row)
                    checked += 1
        self.assertGreater(checked, 40)

    def test_idle_shares(self):
        for _, cells, file, figures in self.runs():
            rows = [row for row in figures["tax-idle"] if row["what"] == "idle_fraction"]
            self.assertEqual(sorted(index for row in rows for index in row["phases"]), sorted(cells))
            for row in rows:
                shares = [cell["idle_fraction"] for cell in self.joined(row, cells)]
                self.assertTrue(min(shares) - 1e-12 <= row["value"] <= max(shares) + 1e-12, (row, shares))
                if len(shares) == 1:
                    self.close(row["value"], shares[0], row)

    def test_layer_times(self):
        for _, cells, file, figures in self.runs():
            rows = figures["layer-time"]
            self.assertEqual({row["what"] for row in rows}, {"layer_us.median", "layer_us.p90", "layer_us.p99"})
            self.assertEqual({index for row in rows for index in row["phases"]}, set(cells))
            for row in rows:
                kind = row["what"].partition(".")[2]
                found = self.joined(row, cells)
                if len(found) == 1:
                    self.close(row["value"], found[0]["layer_us"][kind], row)
                times = np.concatenate([file[f"phases/{i:04}/layer/layer_ns"][...].ravel() for i in row["phases"]]) / 1e3
                self.close(row["value"], nearest_rank(times, {"median": 50, "p90": 90, "p99": 99}[kind]), row)

    def test_predictions(self):
        for _, cells, file, figures in self.runs():
            rows = figures["prediction"]
            self.assertEqual({row["phase"] for row in rows}, set(cells))
            for row in rows:
                (cell,) = self.joined(row, cells)
                for name in ("predicted_layer_us", "lower_bound_layer_us"):
                    self.close(row[name], cell[name], row)
                self.close(row["achieved_layer_us"], file[f"phases/{row['phase']:04}/layer/expert_max_ns"][...].mean() / 1e3)

    def test_ratios_beside_the_published_projection(self):
        for name, cells, file, figures in self.runs():
            if "vibe-projection" not in figures:
                continue
            ours = [row for row in figures["vibe-projection"] if "base_phases" in row]
            published = {(row["policy"], row["devices"]): row["value"] for row in figures["vibe-projection"]
                         if "source" in row}
            self.assertEqual((len(published), published["vibe", 32], published["eplb", 128]), (10, 0.67, 0.91))
            for row in ours:
                def median(indices):
                    return nearest_rank(np.concatenate([file[f"phases/{i:04}/layer/layer_ns"][...].ravel()
                                                        for i in indices]), 50)
                self.close(row["value"], median(row["phases"]) / median(row["base_phases"]), row)
                self.assertTrue(all(cells[index]["policy"] == "contiguous" for index in row["base_phases"]))
                if len(row["phases"]) == 1:
                    self.close(row["value"], cells[row["phases"][0]]["layer_us"]["median"]
                               / cells[row["base_phases"][0]]["layer_us"]["median"], row)
            self.assertEqual({row["policy"] for row in ours} >= {"eplb", "vibe"}, True)

    def fleet(self, file, row):
        """Device times at the row's tokens, read from study.h5 alone."""
        group = file[f"phases/{row['phases'][0]:04}"]
        layer = group["layer/tokens_sum"][...]
        self.close(row["reference_tokens"], layer.mean() / group.attrs["devices"])
        model = group["speed_model"]
        return np.array([np.interp(row["reference_tokens"], np.append(0, tokens), np.append(0, times))
                         for tokens, times in zip(model["tokens"][...], model["time_us"][...])])

    def test_fleets(self):
        for _, cells, file, figures in self.runs():
            for row in figures["fleet-speed"] + figures.get("spread-cap", []):
                self.joined({**row, "devices": row["devices"]}, cells)
                times = self.fleet(file, row)
                self.assertEqual(row["devices_known"], len(times))
                self.close(row["max_over_median"], times.max() / np.median(times), row)
                self.close(row.get("cv", row.get("cv_of_time")), times.std(ddof=1) / times.mean(), row)
                if "outlier_limit" in row:
                    relative = times / np.median(times)
                    limit = 1 + 3.5 * 1.4826 * np.median(np.abs(relative - 1))
                    self.close(row["outlier_limit"], limit)
                    self.assertEqual(row["outliers"], int((relative > limit).sum()))

    def test_the_law_of_the_slowest_against_every_subset(self):
        checked = 0
        for _, cells, file, figures in self.runs():
            laws = [row for row in figures["slowest-law"] if row["what"] == "law" and row["law"] == "exact"]
            self.assertGreater(len(laws), 0)
            for row in laws:
                first = row["fleet_phases"][0]
                group = file[f"phases/{first:04}"]
                tokens = group["layer/tokens_sum"][...].mean() / group.attrs["devices"]
                times = self.fleet(file, {"phases": [first], "reference_tokens": tokens})
                slowest = [max(subset) for subset in itertools.combinations(times, row["devices"])]
                self.close(row["value"], np.mean(slowest) / times.mean() - 1, row)
                checked += 1
            for row in figures["slowest-law"]:
                if row["what"] == "observed" and len(row["phases"]) == 1 and "expert_ns" in file[f"phases/{row['phases'][0]:04}"]:
                    expert = file[f"phases/{row['phases'][0]:04}/expert_ns"][...]
                    self.close(row["value"], expert.max(axis=0).sum() * row["devices"] / expert.sum() - 1, row)
        self.assertGreater(checked, 6)

    def test_slow_steps(self):
        for name, cells, file, figures in self.runs():
            if name == "drift":     # keeps no timelines: said, not drawn
                page = (self.dir / name / "report.html").read_text()
                self.assertTrue("record.timelines = true keeps them" in page)
                continue
            for row in figures["slow-step"]:
                group = file[f"phases/{row['phase']:04}"]
                times = group["layer/layer_ns"][...]
                self.assertEqual(row["step"], int(times.sum(axis=1).argmax()))
                self.close(row["layer_us"], times[row["step"], row["layer"]] / 1e3)
                self.assertEqual(group["wait_ns"][row["last_device"], row["step"], row["layer"]], 0)
                for part in ("dispatch_ns", "expert_ns", "wait_ns", "combine_ns"):
                    np.testing.assert_allclose(row[part], group[part][row["devices_shown"], row["step"], row["layer"]] / 1e3)

    def test_drift_and_sensors(self):
        for name, cells, file, figures in self.runs():
            if name == "drift":
                rows = figures["drift"]
                self.assertEqual({row["phase"] for row in rows}, set(cells))
                for row in rows:
                    (cell,) = self.joined(row, cells)
                    self.close(row["layer_us.mean"], cell["layer_us"]["mean"], row)
                    self.assertEqual(row["solved_because"], cell["solved_because"])
                    anew = cell["solved_because"] not in ("first", "kept", "between-phases", "every step")
                    self.assertEqual(row["solved_anew_by"] is not None, anew, row)
                self.assertTrue(any(row["solved_anew_by"] for row in rows))
            if name == "heat":
                self.assertEqual(len(figures["sensors"]), 4 * 3)
                for row in figures["sensors"]:
                    series = file[f"phases/{row['phase']:04}/telemetry/series"]
                    values = series[row["what"]][...]
                    self.assertEqual(row["readings"], int(series["readings"][...].sum()))
                    self.close(row["lowest"], np.nanmin(values))
                    self.close(row["highest"], np.nanmax(values))
                    self.joined(row, cells)

    def test_what_a_study_cannot_show_is_said_in_a_sentence(self):
        for name, words in {"sizes": ["record.telemetry_hz above 0", "placement.recompute", "study.causes = true"],
                            "heat": ["ViBE's projection compares", "study.causes = true"],
                            "drift": ["record.timelines = true"],
                            "cpu": ["two caps or more", "No clock, temperature or power"]}.items():
            text = html.unescape((self.dir / name / "report.html").read_text())
            for sentence in words:
                self.assertTrue(sentence in text, f"{name}: {sentence}")

    def test_two_runs_side_by_side(self):
        out = self.dir / "both" / "report.html"
        made = report(self.dir / "sizes", self.dir / "cpu", "--out", out)
        self.assertEqual(made.returncode, 0, made.stderr)
        for name in ("side-by-side-fleets", "side-by-side-taxes"):
            numbers = json.loads((out.parent / "figures" / f"{name}.json").read_text())["numbers"]
            self.assertEqual({row["run"] for row in numbers}, {"sizes", "cpu"})
            for row in numbers:
                cells = {cell["phase"]: cell
                         for cell in json.loads((self.dir / row["run"] / "summary.json").read_text())["cells"]}
                found = self.joined({**row, "workload": "synthetic"}, cells)
                if name.endswith("taxes") and len(found) == 1:
                    self.close(row["value"], found[0]["straggler_tax"], row)
        for run in ("sizes", "cpu"):
            self.assertTrue((out.parent / "figures" / run / "tax-by-size.svg").exists())
        identities = re.findall(r"\bid=\"([^\"]+)\"", out.read_text())
        self.assertEqual(len(identities), len(set(identities)))

    def test_figures_draw_the_numbers_they_hand_back(self):
        sys.path.insert(0, str(paths.ROOT / "analysis"))
        from moevar.figures import layer_time, tax_by_size, tax_idle
        from moevar.study import StudyFile
        with StudyFile.open(self.dir / "sizes") as study:
            for module, scale, horizontal in ((tax_by_size, 100, False), (tax_idle, 100, True), (layer_time, 1e-3, True)):
                (drawing,) = module.draw(study)
                drawn = {round(float(value), 6) for axis in drawing.figure.axes for line in axis.lines
                         for value in (line.get_xdata() if horizontal else line.get_ydata())
                         if line.get_marker() not in ("", "None", None)}
                wanted = {round(row["value"] * scale, 6) for row in drawing.numbers if "value" in row}
                self.assertGreater(len(wanted), 10)
                self.assertLessEqual(wanted, drawn, module.__name__)

    # --- the page ---------------------------------------------------------------------------------------------------

    def test_it_opens_without_a_network(self):
        for name in RUNS:
            text = (self.dir / name / "report.html").read_text()
            loaded = re.findall(r"(?:src|href|data|action|poster|srcset)\s*=\s*[\"']([^\"'#][^\"']*)", text)
            self.assertEqual([x for x in loaded if not x.startswith("data:")], [])
            self.assertEqual(re.findall(r"url\(\s*[\"']?(?!#)[^)]*\)|@import|<script|<link|<iframe", text), [])
            # what is left of addresses are the names of XML's namespaces
            left = re.sub(r"xmlns(?::\w+)?=\"http://www\.w3\.org/[^\"]+\"", "", text)
            self.assertNotRegex(left, r"https?://")

    def test_it_holds_on_a_telephone_and_on_a_desk(self):
        probe = """<script>addEventListener("load", () => { const page = document.documentElement;
          parent.postMessage(JSON.stringify({inner: innerWidth, scroll: page.scrollWidth,
            figures: [...document.querySelectorAll("figure")].map(f => { const e = f.querySelector("svg, img");
              const b = e ? e.getBoundingClientRect() : {width: 0, height: 0, right: 0};
              return [f.id, b.width, b.height, b.right]; })}), "*"); })</script>"""
        for name in RUNS:
            page = self.dir / name / "report.html"
            copy = self.dir / f"{name}-probe.html"
            copy.write_text(page.read_text().replace("</body>", probe + "</body>"))
            for width in (390, 1280):
                seen = self.browse(copy, width)
                self.assertEqual(seen["inner"], width)
                self.assertLessEqual(seen["scroll"], width, f"{name} at {width} px scrolls sideways")
                self.assertEqual(len(seen["figures"]), page.read_text().count("<figure "))
                for identity, wide, high, right in seen["figures"]:
                    self.assertGreater(min(wide, high), 100, f"{name}: {identity} at {width} px")
                    self.assertLessEqual(right, width, f"{name}: {identity} at {width} px")
                    if width == 390:
                        self.assertGreater(wide, 340, f"{name}: {identity} leaves the page's width unused")

    def browse(self, page, width):
        """What the page's probe measured in a frame of this width; a picture of it is left beside."""
        wrapper = page.with_name(f"wrapper-{width}.html")
        wrapper.write_text(f"""<!DOCTYPE html><html><body style="margin:0"><pre id="seen"></pre>
          <iframe src="{page.name}" style="border:0; width:{width}px; height:3000px"></iframe>
          <script>addEventListener("message", e => document.getElementById("seen").textContent = e.data)</script>""")
        picture = page.with_suffix(f".{width}.png")
        found = chromium(wrapper, picture, max(width, 500))
        self.assertGreater(picture.stat().st_size, 10_000)
        kept = os.environ.get("MOEVAR_SCREENSHOTS")
        if kept:
            shutil.copy(picture, kept)
        said = re.search(r"<pre id=\"seen\">(.*?)</pre>", found, re.DOTALL)
        self.assertTrue(said and said.group(1), f"{page.name} did not load")
        return json.loads(said.group(1))


def chromium(page, picture, width):
    """The page as it stands once loaded, and a picture of it; the browser's profile lies beside the picture.

    A window cannot be narrower than 500 px: a telephone's page is shown in a frame.
    """
    run = subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom",
                          "--virtual-time-budget=5000", f"--user-data-dir={picture.parent / 'profile'}",
                          f"--screenshot={picture}", f"--window-size={width},3000", page.as_uri()],
                         capture_output=True, text=True, timeout=120)
    return run.stdout


class Causes(unittest.TestCase):
    """The split of causes, and random subsets of a pool, from written files."""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def figures(self, folder):
        made = report(folder)
        self.assertEqual(made.returncode, 0, made.stderr)
        return {path.stem: json.loads(path.read_text()) for path in (folder / "figures").glob("*.json")}

    def check(self, rows, tax):
        """tax(even_load, equal_fleet, which row): the parts must be its contrasts and sum to the total."""
        for row in rows:
            noise, skew, hardware, own = (tax(even, equal, row) for even, equal in ((1, 1), (0, 1), (1, 0), (0, 0)))
            wanted = {"noise": noise, "skew": skew - noise, "hardware": hardware - noise,
                      "interaction": own - skew - hardware + noise, "total": own}[row["what"]]
            self.assertAlmostEqual(row["value"], wanted, places=12, msg=str(row))

    def test_one_repeat_follows_from_summary_json(self):
        out = self.dir / "one"
        Writer(out, sizes=(8, 32), caps=(700.0, 400.0), causes=True)
        cells = json.loads((out / "summary.json").read_text())["cells"]
        rows = self.figures(out)["causes"]["numbers"]

        def tax(even, equal, row):
            (cell,) = (cell for cell in cells if (cell["even_load"], cell["equal_fleet"]) == (even, equal)
                       and all(cell[key] == row[key] for key in ("devices", "power_cap_w", "policy")))
            self.assertIn(cell["phase"], row["cells"][f"even_load={even} equal_fleet={equal}"])
            return cell["straggler_tax"]
        self.assertEqual(len(rows), 2 * 2 * 2 * 5)
        self.check(rows, tax)
        self.assertFalse(any(row["equal_fleet_predicted"] for row in rows))

    def test_repeats_on_other_devices_are_the_unit(self):
        out = self.dir / "pool"
        Writer(out, sizes=(8, 64), repeats=6, causes=True)
        cells = json.loads((out / "summary.json").read_text())["cells"]
        figures = self.figures(out)
        with h5py.File(out / "study.h5") as file:
            def tax(even, equal, row):      # a ratio of sums over the repeats
                found = [file[f"phases/{cell['phase']:04}/layer"] for cell in cells
                         if (cell["even_load"], cell["equal_fleet"]) == (even, equal)
                         and all(cell[key] == row[key] for key in ("devices", "power_cap_w", "policy"))]
                self.assertEqual(len(found), 6)
                layer, busy = (sum(int(group[name][...].sum()) for group in found) for name in ("layer_ns", "busy_sum_ns"))
                return layer * row["devices"] / busy - 1
            self.check(figures["causes"]["numbers"], tax)
        for row in figures["causes"]["numbers"]:
            self.assertEqual(row["interval"], "6 repeats")
        pooled = [row for row in figures["tax-by-size"]["numbers"] if "interval" in row]
        self.assertEqual(len(pooled), 4)
        for row in pooled:
            taxes = [cells[index]["straggler_tax"] for index in row["phases"]]
            self.assertEqual((row["interval"], row["n"]), ("6 repeats on other devices", 6))
            # nearly equal denominators: the ratio's error is nearly that of the mean of the repeats' taxes
            half = 2.5706 * np.std(taxes, ddof=1) / np.sqrt(6)
            self.assertAlmostEqual((row["high"] - row["low"]) / 2 / half, 1, delta=0.1)
            # cells that split causes are no repeats of the study's own cell
            self.assertTrue(all(not cells[index]["even_load"] and not cells[index]["equal_fleet"] for index in row["phases"]))
        # every device of the pool that any subset showed is known, once
        for row in figures["fleet-speed"]["numbers"]:
            self.assertEqual(row["devices_known"], 64)
        observed = [row for row in figures["slowest-law"]["numbers"] if row["what"] == "observed"]
        self.assertTrue(observed and all(row["even_load"] for row in observed))

    def test_equal_fleets_are_predicted_where_none_can_be_run(self):
        out = self.dir / "cpu"
        run = start(["run", CPU, "--out", out, *options(phases__steps=12, model__layers=2,
                                                        placement__policies=["contiguous"])], ranks=2, timeout=120)
        self.assertEqual(run.returncode, 0, run.stderr)
        with h5py.File(out / "study.h5", "r+") as file:     # stands for the cell with even loads
            for part in ("phases", "timing"):
                file.copy(f"{part}/0000", f"{part}/0001")
            file["phases/0000"].attrs["even_load"] = np.int64(0)
            file["phases/0001"].attrs["even_load"] = np.int64(1)
            file.attrs["planned_phases"] = np.int64(2)
            group = file["phases/0000"]
            own = group["layer/layer_ns"][...].sum() * 2 / group["layer/busy_sum_ns"][...].sum() - 1
            arrays = [group[name][...] for name in ("tokens", "speed_model/tokens", "speed_model/time_us", "expert_ns",
                                                    "dispatch_ns", "combine_ns")]
        from moevar import causes
        equal = causes.predicted_equal_fleet(*arrays)
        predicted = equal.layer_ns.sum() * 2 / equal.busy_sum_ns.sum() - 1
        figure = self.figures(out)["causes"]
        values = {row["what"]: row["value"] for row in figure["numbers"]}
        for what, wanted in {"total": own, "noise": predicted, "skew": 0, "hardware": own - predicted,
                             "interaction": 0}.items():
            self.assertAlmostEqual(values[what], wanted, places=12)
        self.assertTrue(all(row["equal_fleet_predicted"] for row in figure["numbers"]))
        self.assertIn("predicted here, not measured", figure["caption"])


class Scale(unittest.TestCase):
    def test_131072_devices_within_4_gb(self):
        with tempfile.TemporaryDirectory(prefix="moevar-test-") as folder:
            out = pathlib.Path(folder) / "large"
            Writer(out, sizes=(1024, 16384, 131072), caps=(700.0, 500.0), steps=8)
            run = subprocess.Popen([sys.executable, REPORT, out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            errors = run.stderr.read()
            _, status, usage = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(status)
            run.stderr.close()
            self.assertEqual(run.returncode, 0, errors)
            print(f"131,072 devices, 12 phases: {usage.ru_utime + usage.ru_stime:.1f} s of processor time, "
                  f"{usage.ru_maxrss / 2**20:.2f} GiB")
            self.assertLess(usage.ru_maxrss * 1024, 4e9)
            numbers = json.loads((out / "figures/fleet-speed.json").read_text())["numbers"]
            self.assertEqual([row["devices_known"] for row in numbers], [131072, 131072])
            with h5py.File(out / "study.h5") as file:
                for row in numbers:
                    phase = file[f"phases/{row['phases'][0]:04}"]
                    times = phase["speed_model/time_us"][:, 0]
                    self.assertAlmostEqual(row["cv"], times.std(ddof=1) / times.mean(), places=9)
                    self.assertAlmostEqual(row["max_over_median"], times.max() / np.median(times), places=9)
            self.assertTrue((out / "figures/fleet-speed.png").exists())
            self.assertLess((out / "report.html").stat().st_size, 4e6)


class Bad(unittest.TestCase):
    """Input that is damaged, and what comes of it."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        Writer(cls.dir / "run", sizes=(8,), repeats=2)

    def copy(self, name):
        return pathlib.Path(shutil.copytree(self.dir / "run", self.dir / name))

    def refused(self, folder, words):
        made = report(folder)
        self.assertEqual(made.returncode, 2, made.stderr)
        self.assertRegex(made.stderr, r"^report\.py: [^\n;]+study\.h5: [^\n]+; [^\n]+\n$")
        self.assertIn(words, made.stderr)
        self.assertFalse((folder / "report.html").exists())

    def test_one_line_and_status_2(self):
        foreign = self.copy("foreign")
        with h5py.File(foreign / "study.h5", "r+") as file:
            file.attrs["schema_version"] = np.int64(2)
        self.refused(foreign, "schema_version 2")
        cut = self.copy("cut")
        whole = (cut / "study.h5").read_bytes()
        for part in (0.01, 0.5, 0.99):
            (cut / "study.h5").write_bytes(whole[:int(part * len(whole))])
            self.refused(cut, "cut off")
        (cut / "study.h5").unlink()
        self.refused(cut, "no such file")

    def test_a_missing_phase_is_named_on_the_page(self):
        out = self.copy("missing")
        with h5py.File(out / "study.h5", "r+") as file:
            del file["phases/0002"]
            del file["phases/0001/layer/layer_ns"]
        made = report(out)
        self.assertEqual(made.returncode, 0, made.stderr)
        text = (out / "report.html").read_text()
        self.assertTrue("1 of 4 planned phases is missing: 0002" in text)
        self.assertTrue("phase 0001 is damaged and left out" in text)
        rows = json.loads((out / "figures/tax-by-size.json").read_text())["numbers"]
        self.assertEqual({row["phase"] for row in rows if "straggler_tax" in row}, {0, 3})

    def test_what_is_damaged_within_a_phase_costs_its_figures_alone(self):
        out = self.copy("partly")
        with h5py.File(out / "study.h5", "r+") as file:
            for group in file["phases"].values():
                del group["placement/predicted_us"]
        made = report(out)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertTrue("placement/predicted_us cannot be read" in (out / "report.html").read_text())
        self.assertTrue((out / "figures/tax-by-size.svg").exists())

    def test_a_run_without_phases(self):
        out = self.copy("none")
        with h5py.File(out / "study.h5", "r+") as file:
            for name in list(file["phases"]):
                del file["phases"][name], file["timing"][name]
            for name in list(file["fleet"]):
                kind = file["fleet"][name].dtype
                del file["fleet"][name]
                file["fleet"][name] = np.zeros(0, kind)
            file.attrs["complete"] = np.int64(0)
        made = report(out)
        self.assertEqual(made.returncode, 0, made.stderr)
        text = (out / "report.html").read_text()
        self.assertTrue("4 of 4 planned phases are missing: 0000 to 0003" in text)
        self.assertFalse("<figure" in text)


if __name__ == "__main__":
    unittest.main()
