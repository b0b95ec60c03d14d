"""compare.py: planted slowdowns are found, chance is not, and unusable input says so in a line."""

import contextlib
import io
import json
import sys
import unittest

import paths
import h5py
import numpy as np
from moevar import comparison, verdicts
from moevar.intervals import NOT_SUPPORTED
from moevar_cli import SMALL, Case, start
from synthetic import autoregressive

sys.path.insert(0, str(paths.ROOT / "analysis"))
import compare  # noqa: E402

STEPS, LAYERS, DEVICES = 64, 3, 4
PAIRS = 200
WORK, NOISE = 0.10, 0.01  # sd of log layer time: of what the steps are, and of the run itself; both autocorrelated


def layers_of(rng, work=None, noise=NOISE, steps=STEPS):
    """Layer times [S, L] in ns: AR(1) work (drawn where it is not given) times AR(1) noise of the run."""
    if work is None:
        work = autoregressive(rng, (steps, LAYERS), 0.6)
    return 5e6 * np.exp(WORK * work + noise * autoregressive(rng, work.shape, 0.5))


def write_run(folder, cells, *, sha="one study", device="cuda", times_of_devices=None, uuids=None, first_step=2):
    """A run of schema 1. cells: list of (factors, layer times [S, L]); times_of_devices [D]: slowness of each GPU."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "study.h5", "w") as file:
        file.attrs.update({"schema_version": np.int64(1), "study": "synthetic", "device": device,
                           "planned_phases": np.int64(len(cells)), "study_toml": "[study]\nname = 'synthetic'\n",
                           "study_sha256": sha, "moevar_version": "0", "complete": np.int64(1)})
        fleet = file.create_group("fleet")
        numbers = np.arange(DEVICES, dtype="i4")
        fleet["device"], fleet["node"], fleet["slot"] = numbers, numbers // 8, numbers % 8
        for name in ("kind", "name", "host"):
            fleet[name] = np.full(DEVICES, name.encode())
        fleet["uuid"] = np.array(uuids or [f"GPU-{d}" for d in numbers], dtype="S")
        for index, (factors, layer) in enumerate(cells):
            write_phase(file.create_group(f"phases/{index:04}"), index, factors, layer, first_step, times_of_devices)
            file.create_group(f"timing/{index:04}").attrs.update({"solve_ms": 0.0, "migrate_ms": 0.0})
    return folder


def write_phase(group, index, factors, layer, first_step, times_of_devices):
    attributes = {"repeat": 0, "devices": DEVICES, "power_cap_w": 700.0, "heat": "soaked", "workload": "synthetic",
                  "policy": "eplb", "index": index, "first_step": first_step, "tokens_per_step": 4096, "timer": "t",
                  "sync": "s", "summary": "s", "quantile": "nearest_rank", "clock_residual_ns": 0} | factors
    group.attrs.update({key: np.int64(value) if isinstance(value, int) else value for key, value in attributes.items()})
    group.create_group("placement").attrs.update({"solved_because": "between-phases", "per_step": np.int64(0)})
    layer = np.round(layer).astype("i8")
    for name, values in {"layer_ns": layer, "busy_sum_ns": np.round(layer * DEVICES / 1.1).astype("i8")}.items():
        group[f"layer/{name}"] = values
    for name in ("wait_sum_ns", "expert_max_ns", "expert_min_ns", "tokens_max", "tokens_sum"):
        group[f"layer/{name}"] = np.ones_like(layer)
    if times_of_devices is not None:
        group["device/tokens_sum"] = np.full(DEVICES, 1_000_000, dtype="i8")
        group["device/expert_sum_ns"] = np.round(1e9 * np.asarray(times_of_devices)).astype("i8")


def rewrite_layers(folder, layers):
    """Other layer times [S, L], one array a phase, in a run that is there: much faster than writing it anew."""
    with h5py.File(folder / "study.h5", "r+") as file:
        for phase, layer in zip(file["phases"].values(), layers):
            phase["layer/layer_ns"][...] = np.round(layer)
            phase["layer/busy_sum_ns"][...] = np.round(layer * DEVICES / 1.1)


def policies(count):
    return [{"policy": f"policy{i}"} for i in range(count)]


def run_compare(*arguments):
    """Exit status, standard output and standard error of compare.py."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = compare.main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code
    return status, out.getvalue(), err.getvalue()


class FalseAlarms(Case):
    """200 pairs of runs without a difference, of several cells and autocorrelated steps: 5 % may be called different,
    jointly."""

    def alarms(self, seed, paired, cells=6, repeats=1):
        rng = np.random.default_rng(seed)
        factors = [policy | {"repeat": repeat} for policy in policies(cells) for repeat in range(repeats)]
        blank = [(factor, np.ones((STEPS, LAYERS))) for factor in factors]
        a = write_run(self.dir / "a", blank)
        b = write_run(self.dir / "b", blank, sha="one study" if paired else "another")
        wrong = slower = 0
        for _ in range(PAIRS):
            works = [autoregressive(rng, (STEPS, LAYERS), 0.6) for _ in factors]
            rewrite_layers(a, [layers_of(rng, work) for work in works])
            rewrite_layers(b, [layers_of(rng, work if paired else None) for work in works])
            status, out, err = run_compare(a, b, "--json")
            self.assertEqual(err, "".join(f"compare.py: {run / 'study.h5'}: summary.json is missing; "
                                          "it is written when a run ends\n" for run in (a, b)))
            found = json.loads(out)
            self.assertEqual({cell["paired"] for cell in found["cells"]}, {paired})
            verdicts = {cell["verdict"] for cell in found["cells"]}
            wrong += bool(verdicts & {"slower", "faster"})
            self.assertEqual(status, int("slower" in verdicts))
            slower += status
        print(f"{PAIRS} equal pairs, {'paired' if paired else 'independent'}, {repeats} repeat(s): "
              f"{wrong} with a wrong verdict, {slower} of them exit 1", flush=True)
        # 5 % of 200 are 10; 19 or more has a probability of 0.5 %
        self.assertLess(wrong, 19)
        return wrong

    def test_paired(self):
        self.alarms(1, paired=True)

    def test_independent(self):
        self.alarms(2, paired=False)

    def test_three_repeats(self):
        self.alarms(3, paired=True, cells=2, repeats=3)

    def test_one_cell_is_held_to_five_per_cent_not_to_zero(self):
        """The level is used: with 2,000 single cells some 5 % are wrong, neither 10 nor 0."""
        rng = np.random.default_rng(4)
        wrong = 0
        for _ in range(2000):
            work = autoregressive(rng, (STEPS, LAYERS), 0.6)
            base, other = (comparison.intervals.mean_of(layers_of(rng, work)) for _ in range(2))
            change, error, freedom = comparison.intervals.interval_of_difference(
                base, other, paired=True, error_of=comparison.steps_or_repeats)
            wrong += comparison.p_value(change.value, error, freedom, 0.0) <= 0.05
        print(f"2,000 equal pairs of one cell: {wrong} wrong")
        self.assertTrue(60 <= wrong <= 140, wrong)


class Planted(Case):
    def found(self, seed, factor, paired=True, steps=STEPS, options=(), where=2, repeats=1):
        """compare.py on six cells of which one is slower by the factor."""
        rng = np.random.default_rng(seed)
        cells_a, cells_b = [], []
        for i, factors in enumerate(policies(6)):
            for repeat in range(repeats):
                work = autoregressive(rng, (steps, LAYERS), 0.6)
                cells_a.append((factors | {"repeat": repeat}, layers_of(rng, work)))
                other = layers_of(rng, work if paired else None, steps=steps)
                cells_b.append((factors | {"repeat": repeat}, other * (factor if i == where else 1)))
        a = write_run(self.dir / "a", cells_a)
        b = write_run(self.dir / "b", cells_b, sha="one study" if paired else "another")
        status, out, _ = run_compare(a, b, "--json", *options)
        return status, json.loads(out)["cells"]

    def test_one_per_cent_in_one_of_six_cells(self):
        """1 % run noise, 3 layers: 256 steps find it always, 64 steps (four degrees of freedom) in over half of the
        pairs."""
        hits = {}
        for steps in (64, 256):
            hits[steps] = 0
            for seed in range(40):
                status, cells = self.found(seed, 1.01, steps=steps)
                hits[steps] += cells[2]["verdict"] == "slower"
                self.assertEqual(status, int("slower" in [cell["verdict"] for cell in cells]))
        print(f"1 % slowdown in one of six cells, paired, noise {NOISE:.0%}: found (of 40) by steps: {hits}")
        self.assertGreaterEqual(hits[64], 20)
        self.assertGreaterEqual(hits[256], 39)

    def test_what_independent_runs_need(self):
        """Unpaired, the workload's own 10 % stay in: 1 % of 64 steps is lost in them, 10 % of 256 is found."""
        lost = sum(self.found(seed, 1.01, paired=False)[0] for seed in range(20))
        hits = sum(self.found(seed, 1.10, paired=False, steps=256)[0] for seed in range(20))
        print(f"independent runs: 1 % of 64 steps found in {lost} of 20, 10 % of 256 steps in {hits} of 20")
        self.assertLessEqual(lost, 5)
        self.assertGreaterEqual(hits, 19)

    def test_faster_is_no_failure(self):
        status, cells = self.found(5, 0.97)
        self.assertEqual((status, cells[2]["verdict"]), (0, "faster"))

    def test_the_interval_holds_the_effect(self):
        for repeats in (1, 3):
            held = {"mean": 0, "median": 0}
            for seed in range(50):
                _, cells = self.found(100 + seed, 1.02, repeats=repeats)
                for name, change in (("mean", cells[2]["mean_us"]["change"]), ("median", cells[2]["median"]["change"])):
                    held[name] += change["low"] <= 0.02 <= change["high"]
            print(f"{repeats} repeat(s): the interval holds the planted 2 % in {held} of 50")
            self.assertGreaterEqual(min(held.values()), 43)  # 42 or fewer of 95 %: probability 0.4 %

    def test_the_threshold(self):
        self.assertEqual(self.found(6, 1.02, options=("--threshold", 0.5))[0], 1)
        status, cells = self.found(6, 1.02, options=("--threshold", 3))
        self.assertEqual((status, cells[2]["verdict"]), (0, "no difference shown"))

    def test_repeats_that_disagree_are_the_unit(self):
        """A whole run may be off by more than its steps show: then three repeats say little, and nothing is called
        slower."""
        rng = np.random.default_rng(7)
        cells_a, cells_b = [], []
        for repeat, off in enumerate((1.00, 1.03, 1.06)):
            work = autoregressive(rng, (STEPS, LAYERS), 0.6)
            cells_a.append(({"repeat": repeat}, layers_of(rng, work)))
            cells_b.append(({"repeat": repeat}, off * layers_of(rng, work)))
        found = self.compare(cells_a, cells_b)
        self.assertEqual(found["cells"][0]["verdict"], "no difference shown")
        alone = self.compare(cells_a[1:2], cells_b[1:2])
        self.assertEqual(alone["cells"][0]["verdict"], "slower")

    def compare(self, cells_a, cells_b):
        status, out, _ = run_compare(write_run(self.dir / "a", cells_a), write_run(self.dir / "b", cells_b), "--json")
        return json.loads(out)

    def test_few_steps_are_not_supported(self):
        rng = np.random.default_rng(8)
        found = self.compare([({}, layers_of(rng, steps=6))], [({}, layers_of(rng, steps=6))])["cells"][0]
        self.assertEqual((found["verdict"], found["p"]), (NOT_SUPPORTED, None))
        self.assertIsNone(found["mean_us"]["change"]["low"])

    def test_other_first_steps_are_not_paired(self):
        rng = np.random.default_rng(9)
        cells = [({}, layers_of(rng))]
        a, b = write_run(self.dir / "a", cells), write_run(self.dir / "b", cells, first_step=66)
        self.assertFalse(json.loads(run_compare(a, b, "--json")[1])["cells"][0]["paired"])

    def test_holm(self):
        np.testing.assert_allclose(verdicts.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
        np.testing.assert_allclose(verdicts.holm([0.9, 0.8]), [1, 1])


class Devices(Case):
    def devices(self, slower, phases=6, uuids=None):
        rng = np.random.default_rng(10)
        runs = []
        for name, extra in (("a", np.zeros(DEVICES)), ("b", np.asarray(slower))):
            folder = self.dir / name
            write_run(folder, [])
            with h5py.File(folder / "study.h5", "a") as file:
                file.attrs["planned_phases"] = np.int64(phases)
                for index in range(phases):
                    times = (1 + extra) * (1 + 0.001 * rng.standard_normal(DEVICES))
                    write_phase(file.create_group(f"phases/{index:04}"), index, {"policy": f"p{index}"},
                                layers_of(rng), 2, times)
                if name == "b" and uuids:
                    del file["fleet/uuid"]
                    file["fleet/uuid"] = np.array(uuids, dtype="S")
            runs.append(folder)
        return json.loads(run_compare(*runs, "--json")[1])["devices"]

    def test_the_gpu_that_got_slower_is_named(self):
        found = self.devices([0, 0, 0.02, 0])
        self.assertEqual([(d["uuid"], d["verdict"]) for d in found][0], ("GPU-2", "slower"))
        self.assertEqual({d["verdict"] for d in found[1:]}, {"no difference shown"})
        self.assertAlmostEqual(found[0]["change"]["value"], 0.02, delta=0.003)
        self.assertTrue(found[0]["change"]["low"] <= 0.02 <= found[0]["change"]["high"])

    def test_gpus_are_matched_by_uuid_and_not_by_place(self):
        found = self.devices([0.02, 0, 0, 0], uuids=["GPU-3", "GPU-1", "other", "GPU-0"])
        self.assertEqual({d["uuid"] for d in found}, {"GPU-0", "GPU-1", "GPU-3"})
        self.assertEqual(found[0]["uuid"], "GPU-3")
        self.assertEqual(self.devices([0.02] * 4, uuids=["w", "x", "y", "z"]), [])

    def test_two_phases_support_no_verdict(self):
        self.assertEqual({d["verdict"] for d in self.devices([0.1, 0, 0, 0], phases=2)}, {NOT_SUPPORTED})


class RealRuns(Case):
    def run_program(self, name, *options):
        out = self.dir / name
        run = start(["run", self.write("study.toml", SMALL.replace("steps = 4", "steps = 32")), "--out", out, *options])
        self.assertEqual(run.returncode, 0, run.stderr)
        return out

    def test_runs_of_modelled_gpus(self):
        first, again = self.run_program("first"), self.run_program("again")
        other = self.run_program("other", "--set", "study.seed=4")
        status, out, err = run_compare(first, again)
        self.assertEqual((status, err), (0, ""))
        rows = [line for line in out.splitlines() if line.endswith("| same |")]
        self.assertEqual(len(rows), 6)
        for row in rows:
            self.assertIn("+0.00 [+0.00, +0.00]", row)
        self.assertIn("6 of 6 cells paired by step", out)
        self.assertIn("8 devices of both runs, all the same", out)

        status, out, err = run_compare(first, other)
        self.assertEqual(err, "")
        self.assertIn("0 of 6 cells paired by step", out)
        self.assertIn("no device in common", out)
        self.assertEqual(status, int("| slower |" in out))

    def test_no_cell_in_common(self):
        first = self.run_program("first", "--set", "conditions.power_cap_w=[700]")
        capped = self.run_program("capped", "--set", "conditions.power_cap_w=[500]")
        status, _, err = run_compare(first, capped)
        self.assertEqual(status, 2)
        self.assertEqual(err.count("\n"), 1)
        self.assertIn("no cell in common", err)


class Usage(Case):
    def test_unusable_input_is_one_line_and_2(self):
        rng = np.random.default_rng(11)
        good = write_run(self.dir / "good", [({}, layers_of(rng))])
        (self.dir / "cut").mkdir()
        (self.dir / "cut" / "study.h5").write_bytes((good / "study.h5").read_bytes()[:3000])
        newer = write_run(self.dir / "newer", [({}, layers_of(rng))])
        with h5py.File(newer / "study.h5", "a") as file:
            file.attrs["schema_version"] = np.int64(9)
        said = {self.dir / "none": "no such file", self.dir / "cut": "study.h5", newer: "schema_version 9"}
        for bad, words in said.items():
            for pair in ((bad, good), (good, bad)):
                status, out, err = run_compare(*pair)
                self.assertEqual((status, out, err.count("\n")), (2, "", 1), err)
                self.assertTrue(err.startswith("compare.py: ") and words in err, err)

    def test_help_and_wrong_options(self):
        status, out, _ = run_compare("--help")
        self.assertEqual(status, 0)
        for word in ("--threshold", "--json", "exit status", "Holm"):
            self.assertIn(word, out)
        for wrong in (["a"], ["a", "b", "--threshold", "-1"], ["a", "b", "--threshold", "x"]):
            self.assertEqual(run_compare(*wrong)[0], 2)

    def test_the_table(self):
        rng = np.random.default_rng(12)
        work = autoregressive(rng, (STEPS, LAYERS), 0.6)
        a = write_run(self.dir / "a", [({"policy": p}, layers_of(rng, work)) for p in ("eplb", "vibe")])
        b = write_run(self.dir / "b", [({"policy": p}, 1.1 * layers_of(rng, work)) for p in ("eplb", "minmax")])
        status, out, _ = run_compare(a, b)
        self.assertEqual(status, 1)
        lines = [line for line in out.splitlines() if line.startswith("|")]
        self.assertEqual({line.count("|") for line in lines[:3]}, {12})
        self.assertIn("| slower |", lines[2])
        self.assertIn("Only in A: 1 cell", out)
        self.assertIn("policy minmax", out)


if __name__ == "__main__":
    unittest.main()
