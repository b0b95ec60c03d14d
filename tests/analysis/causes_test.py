"""Planted causes come back: the split of a tax, its intervals, and the prediction of a fleet of equals."""

import unittest

import paths  # noqa: F401  (finds the package)
import numpy as np
from moevar import causes
from moevar.study import StudyFile
from moevar_cli import Case, start
from synthetic import autoregressive

DEVICES, LAYERS = 8, 2
NOISE, SKEW, HARDWARE = 0.01, 0.1, 0.03


def four_cells(rng, steps, speeds=None, noise=NOISE, skew=SKEW, hardware=HARDWARE):
    """{(even_load, equal_fleet): LayerSeries} of one repeat: device times are work x slowness x noise; the work's
    skew is autocorrelated over steps. `speeds` [D]: the devices' slowness, drawn where it is not given."""
    slowness = rng.normal(0, 1, DEVICES) if speeds is None else speeds
    work = np.exp(skew * autoregressive(rng, (steps, LAYERS, DEVICES), 0.5))
    cells = {}
    for even in (0, 1):
        for equal in (0, 1):
            times = 1e6 * (1 if even else work) * (1 if equal else 1 + hardware * slowness)
            times = times * np.exp(noise * rng.standard_normal((steps, LAYERS, DEVICES)))
            cells[even, equal] = causes.LayerSeries(times.max(axis=2), times.sum(axis=2), DEVICES)
    return cells


def coverage(truth, draws):
    """{part: share of the splits in `draws` whose interval holds the truth}."""
    covered = dict.fromkeys(causes.PARTS, 0)
    for found in draws:
        for name in covered:
            covered[name] += getattr(found, name).covers(getattr(truth, name).value)
    return {name: count / len(draws) for name, count in covered.items()}


class Splits(unittest.TestCase):
    def test_each_cause_alone(self):
        rng = np.random.default_rng(1)
        for planted in ("noise", "skew", "hardware"):
            size = {"noise": 0.02, "skew": 0.2, "hardware": 0.05}[planted]
            sizes = {"noise": 0.0, "skew": 0.0, "hardware": 0.0, planted: size}
            found = causes.split(four_cells(rng, 200, **sizes))
            for name in ("noise", "skew", "hardware"):
                value = getattr(found, name).value
                if name == planted:
                    self.assertGreater(value, size)  # the slowest of 8 lies 1.42 sd above the mean
                elif planted == "noise":
                    self.assertTrue(getattr(found, name).covers(0), name)
                else:
                    self.assertAlmostEqual(value, 0, places=9)
            parts = [getattr(found, name).value for name in causes.PARTS if name != "total"]
            self.assertAlmostEqual(found.total.value, sum(parts))

    def test_the_formulas(self):
        cells = {}
        for (even, equal), tax in {(1, 1): 0.01, (0, 1): 0.11, (1, 0): 0.05, (0, 0): 0.12}.items():
            cells[even, equal] = causes.LayerSeries(np.full((20, 3), 1 + tax), np.full((20, 3), 4.0), 4)
        found = causes.split(cells)
        for name, expected in dict(noise=0.01, skew=0.10, hardware=0.04, interaction=-0.03, total=0.12).items():
            self.assertAlmostEqual(getattr(found, name).value, expected)
            self.assertAlmostEqual(getattr(found, name).low, expected)

    def test_intervals_over_steps_cover(self):
        rng = np.random.default_rng(2)
        speeds = rng.normal(0, 1, DEVICES)
        truth = causes.split(four_cells(rng, 200_000, speeds))
        covered = coverage(truth, [causes.split(four_cells(rng, 128, speeds)) for _ in range(600)])
        print("over 128 steps:", covered)
        for name, share in covered.items():
            self.assertGreaterEqual(share, 0.93, name)
            self.assertLessEqual(share, 0.98, name)

    def test_intervals_over_repeats_cover_the_population(self):
        rng = np.random.default_rng(3)

        def repeats(count, steps):
            drawn = [four_cells(rng, steps) for _ in range(count)]
            return {cell: [one[cell] for one in drawn] for cell in causes.CELLS}

        truth = causes.split(repeats(5000, 16))
        draws = [repeats(8, 32) for _ in range(1000)]
        covered = coverage(truth, [causes.split(cells) for cells in draws])
        print("over 8 repeats of 8 GPUs each:", covered)
        for name, share in covered.items():
            self.assertGreaterEqual(share, 0.925, name)
            self.assertLessEqual(share, 0.98, name)
        # the steps of eight draws of GPUs do not know how GPUs vary
        self.assertLess(coverage(truth, [causes.split(cells, unit="step") for cells in draws])["hardware"], 0.5)

    def test_pairing_narrows(self):
        rng = np.random.default_rng(4)
        cells = four_cells(rng, 400)
        paired = causes.split(cells)
        other = four_cells(rng, 400)
        apart = causes.split({(0, 0): cells[0, 0], (0, 1): other[0, 1], (1, 0): cells[1, 0], (1, 1): other[1, 1]})
        width = [found.interaction.high - found.interaction.low for found in (paired, apart)]
        self.assertLess(width[0], 0.8 * width[1])

    def test_unusable_input(self):
        cells = four_cells(np.random.default_rng(5), 16)
        self.assertRaises(ValueError, causes.split, {cell: cells[cell] for cell in causes.CELLS[:3]})
        self.assertRaises(ValueError, causes.split, cells, unit="layer")
        self.assertRaises(ValueError, causes.split, cells | {(0, 0): [cells[0, 0]] * 2})
        short = causes.LayerSeries(np.ones((15, LAYERS)), np.ones((15, LAYERS)), DEVICES)
        self.assertRaises(ValueError, causes.split, cells | {(0, 0): short})
        found = causes.split(four_cells(np.random.default_rng(6), 7))
        self.assertFalse(found.total.supported)


class FleetsOfEquals(unittest.TestCase):
    def test_curves_read_as_the_solver_reads_them(self):
        tokens, time = np.array([100.0, 200.0, np.nan]), np.array([10.0, 30.0, np.nan])
        found = causes.curve_times(tokens, time, [0, 50, 100, 150, 200, 300])
        np.testing.assert_allclose(found, [0, 5, 10, 20, 30, 50])
        self.assertRaises(ValueError, causes.curve_times, np.array([np.nan]), np.array([np.nan]), [1])

    def test_planted_slowness_is_taken_out_and_noise_left(self):
        rng = np.random.default_rng(7)
        slowness = 1 + 0.05 * rng.normal(0, 1, DEVICES)
        grid = np.array([64.0, 256.0, 1024.0])
        curve = 5 + 0.1 * grid
        tokens = rng.integers(64, 1024, (DEVICES, 50, LAYERS))
        noise = np.exp(0.01 * rng.standard_normal(tokens.shape))
        dispatch = 1e3 * rng.random(tokens.shape)
        combine = np.broadcast_to(1e3 * rng.random((1, 50, LAYERS)), tokens.shape)
        expert = 1e3 * (5 + 0.1 * tokens) * slowness[:, None, None] * noise
        found = causes.predicted_equal_fleet(tokens, np.tile(grid, (DEVICES, 1)), slowness[:, None] * curve, expert,
                                             dispatch, combine)
        equal = 1e3 * (5 + 0.1 * tokens) * slowness.mean() * noise
        np.testing.assert_allclose(found.layer_ns, (dispatch + equal).max(axis=0) + combine[0])
        np.testing.assert_allclose(found.busy_sum_ns, (dispatch + equal + combine).sum(axis=0))
        self.assertRaises(ValueError, causes.predicted_equal_fleet, tokens, grid[None], curve[None], expert, dispatch,
                          combine)
        self.assertRaises(ValueError, causes.predicted_equal_fleet, tokens, slowness[:, None] * grid,
                          slowness[:, None] * curve, expert[1:], dispatch, combine)


class ModelledFleet(Case):
    STUDY = """
[study]
name = "equals"
seed = 5
[model]
preset = "qwen3-235b"
layers = 4
[workload]
kind = "synthetic"
tokens_per_device = 4096
[fleet]
device = "model"
preset = "h100-sxm5"
devices = [8]
[conditions]
power_cap_w = [500]
[placement]
policies = ["eplb"]
[phases]
steps = 32
"""

    def taxes(self, *options):
        out = self.dir / f"run{len(list(self.dir.iterdir()))}"
        run = start(["run", self.write("study.toml", self.STUDY), "--out", out, *options], timeout=120)
        self.assertEqual(run.returncode, 0, run.stderr)
        with StudyFile.open(out) as study:
            phase = study.phases[0]
            found = causes.predicted_equal_fleet(phase.array("tokens"), phase.speed_tokens, phase.speed_time_us,
                                                 *map(phase.array, ("expert_ns", "dispatch_ns", "combine_ns")))
            measured = causes.LayerSeries(phase.layer_ns, phase.busy_sum_ns, phase.devices)
        return [float(part.layer_ns.sum() * part.devices / part.busy_sum_ns.sum() - 1) for part in (measured, found)]

    def test_the_prediction_meets_a_run_of_equal_gpus(self):
        as_it_is, predicted = self.taxes()
        equal, unchanged = self.taxes("--set", "fleet.homogeneous=true")
        print(f"tax as it is {as_it_is:.4f}, predicted for equals {predicted:.4f}, run on equals {equal:.4f}")
        self.assertGreater(abs(as_it_is - equal), 0.005)
        self.assertAlmostEqual(predicted, equal, delta=0.1 * abs(as_it_is - equal) + 0.001)
        self.assertAlmostEqual(unchanged, equal, places=9)


if __name__ == "__main__":
    unittest.main()
