"""Reports of runs of the program: every figure's numbers against summary.json and study.h5; the page in a browser."""

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
from synthetic_study import nearest_rank

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
                    groups = [file[f"phases/{index:04}/layer"] for index in row["phases"]]
                    layer, busy = (sum(int(group[field][...].sum()) for group in groups)
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
                times = [file[f"phases/{index:04}/layer/layer_ns"][...].ravel() / 1e3 for index in row["phases"]]
                percent = {"median": 50, "p90": 90, "p99": 99}[kind]
                self.close(row["value"], nearest_rank(np.concatenate(times), percent), row)

    def test_predictions(self):
        for _, cells, file, figures in self.runs():
            rows = figures["prediction"]
            self.assertEqual({row["phase"] for row in rows}, set(cells))
            for row in rows:
                (cell,) = self.joined(row, cells)
                for name in ("predicted_layer_us", "lower_bound_layer_us"):
                    self.close(row[name], cell[name], row)
                slowest = file[f"phases/{row['phase']:04}/layer/expert_max_ns"][...]
                self.close(row["achieved_layer_us"], slowest.mean() / 1e3)

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
                if row["what"] != "observed" or len(row["phases"]) > 1:
                    continue
                group = file[f"phases/{row['phases'][0]:04}"]
                if "expert_ns" in group:
                    expert = group["expert_ns"][...]
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
                    drawn = group[part][row["devices_shown"], row["step"], row["layer"]]
                    np.testing.assert_allclose(row[part], drawn / 1e3)

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
            for module, scale, horizontal in ((tax_by_size, 100, False), (tax_idle, 100, True),
                                              (layer_time, 1e-3, True)):
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


if __name__ == "__main__":
    unittest.main()
