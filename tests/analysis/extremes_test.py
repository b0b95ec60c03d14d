"""The slowest of N: exact values, measured fleets, and whether fits and projections recover what was planted.

MOEVAR_COVERAGE=full prints what projections cover for more fleets.
"""

import itertools
import os
import unittest

import paths
import numpy as np
import pandas as pd
from moevar import extremes, tails
from scipy import stats

FLEETS = paths.DATA / "gpu-fleets"
FULL = os.environ.get("MOEVAR_COVERAGE") == "full"


def law(mean, sd, weight=0.0, scale=1.0):
    return tails.MixtureLaw(*(np.array([value]) for value in (mean, sd, weight, scale)))


NORMAL = law(1.0, 0.02)
OUTLIERS = law(1.0, 0.015, 0.05, 0.05)


class Exact(unittest.TestCase):
    def test_all_subsets_of_a_small_fleet(self):
        times = np.random.default_rng(1).lognormal(0, 0.2, 9)
        for n in range(1, 10):
            slowest = np.array([max(group) for group in itertools.combinations(times, n)])
            self.assertAlmostEqual(extremes.expected_slowest(times, n), slowest.mean() / np.median(times), places=12)
            for p in (0.1, 0.5, 0.9):
                expected = np.quantile(slowest, p, method="inverted_cdf") / np.median(times)
                self.assertAlmostEqual(extremes.slowest_quantile(times, n, p), expected, places=12)

    def test_a_large_fleet(self):
        times = np.arange(1.0, 131_073.0)
        # E[max of n of 1 .. M] = n (M + 1) / (n + 1)
        for n in (1, 8, 1000, 131_072):
            expected = n * 131_073 / (n + 1) / np.median(times)
            self.assertAlmostEqual(extremes.expected_slowest(times, n) / expected, 1, delta=1e-6)

    def test_unusable_input(self):
        for times, n in (([1.0, 2.0], 3), ([1.0, 2.0], 0), ([], 1), ([1.0, np.nan], 1), ([0.0, 1.0], 1)):
            self.assertRaises(ValueError, extremes.expected_slowest, times, n)
        self.assertRaises(ValueError, extremes.slowest_quantile, [1.0], 1, 1.0)

    def test_a_large_fleets_error_leaves_out_each_gpu(self):
        times = np.sort(np.random.default_rng(2).lognormal(0, 0.1, 41))
        for fleet in (times, times[:-1]):
            for n in (3, 10):
                logs = np.log([extremes.expected_slowest(np.delete(fleet, i), n) - 1 for i in range(fleet.size)])
                expected = np.sqrt((fleet.size - 1) * logs.var())
                self.assertAlmostEqual(extremes._jackknife_error(fleet, n), expected, places=10)


@unittest.skipUnless(FLEETS.exists(), "no measured fleets beside the checkout")
class MeasuredFleets(unittest.TestCase):
    def check(self, times, anchors):
        for n, anchor in anchors.items():
            found = extremes.expected_slowest(times, n)
            print(f"{times.size} GPUs, slowest of {n}: {found:.4f} (anchor {anchor})")
            self.assertAlmostEqual(found, anchor, delta=0.003)

    def test_longhorn(self):
        runs = pd.read_csv(FLEETS / "longhorn_v100_sgemm.csv")
        times = runs[runs.ts != -1].groupby("uuid").perf.median().to_numpy()
        self.check(times, {8: 1.028, 16: 1.040, 32: 1.055, 64: 1.077})
        # 64 GPUs drawn of it, projected to 392: the interval holds what all 392 say
        rng = np.random.default_rng(3)
        truth = extremes.expected_slowest(times, 196)
        held = [p.low <= truth <= p.high
                for p in (extremes.project(rng.choice(times, 64, replace=False), [196], rng=rng, laws=100)[0]
                          for _ in range(12))]
        print(f"projected from 64 to 196 of Longhorn: {sum(held)} of 12 intervals hold {truth:.3f}")
        self.assertGreaterEqual(sum(held), 10)

    def test_perlmutter(self):
        runs = pd.read_csv(FLEETS / "perlmutter_a100_gemm.csv")
        pool = runs[runs.Node.str[3:].astype(int) < 8000]  # the 80 GB parts are a pool of their own
        times = pool.groupby(["Node", "GPU"]).Time.median().to_numpy()
        self.check(times, {8: 1.015, 64: 1.031, 512: 1.052})


class LawOfALayer(unittest.TestCase):
    def test_the_product_of_small_distributions(self):
        times = np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 4.0]])
        found = extremes.layer_law(times)
        # slowest: 2 where devices 0 and 2 are at 1 (1/4), 3 (1/4), 4 (1/2)
        self.assertEqual(found.times.tolist(), [2, 3, 4])
        np.testing.assert_allclose(found.probability, [0.25, 0.5, 1.0])
        self.assertAlmostEqual(found.mean, 3.25)
        self.assertEqual([found.quantile(p) for p in (0.2, 0.25, 0.5, 0.9)], [2, 2, 3, 4])

    def test_all_combinations(self):
        times = np.random.default_rng(4).integers(1, 9, (3, 5))  # with ties
        slowest = [max(group) for group in itertools.product(*times)]
        found = extremes.layer_law(times)
        self.assertAlmostEqual(found.mean, np.mean(slowest))
        for p in (0.05, 0.3, 0.5, 0.77):
            self.assertEqual(found.quantile(p), np.quantile(slowest, p, method="inverted_cdf"))

    def test_it_meets_independent_devices_and_misses_correlated_ones(self):
        rng = np.random.default_rng(5)
        own, common = rng.normal(10, 1, (16, 4000, 2)), rng.normal(0, 1, (1, 4000, 2))
        apart = [found.mean for found in extremes.layer_laws(own)]
        np.testing.assert_allclose(apart, own.max(axis=0).mean(axis=0), rtol=0.005)
        together = own + common  # shared slow steps: the real layer is faster than the product says
        self.assertGreater(extremes.layer_laws(together)[0].mean, 1.03 * together.max(axis=0).mean())

    def test_unusable_input(self):
        for times in (np.ones(4), np.ones((0, 3)), np.array([[np.nan]])):
            self.assertRaises(ValueError, extremes.layer_law, times)


class Fits(unittest.TestCase):
    def test_mixtures_are_recovered(self):
        rng = np.random.default_rng(6)
        for size, weight, scale in ((400, 0.06, 0.06), (200, 0.1, 0.08)):
            samples = law(1.0, 0.02, weight, scale).draw(rng, 300, size)
            found = tails.mixture_law(samples)
            low, high = tails.mixture_intervals(samples, found)
            truth = np.array([1.0, 0.02, weight, scale])[:, None]
            covered = ((low <= truth) & (truth <= high)).mean(axis=1)
            print(f"{size} GPUs, mean, sd, weight, scale covered: {covered.round(3)}")
            self.assertTrue((covered >= 0.89).all() and (covered <= 0.99).all(), covered)
            for parameter, expected in zip((found.mean, found.sd, found.weight, found.scale), truth[:, 0]):
                self.assertAlmostEqual(np.median(parameter) / expected, 1, delta=0.15)

    def test_the_law_itself(self):
        x = np.linspace(0.9, 1.6, 7001)[None]
        density = np.exp(OUTLIERS.log_pdf(x))[0]
        self.assertAlmostEqual(np.trapz(density, x[0]), 1, places=4)
        np.testing.assert_allclose(np.gradient(OUTLIERS.cdf(x)[0], x[0])[5:-5], density[5:-5], rtol=0.01, atol=1e-3)
        drawn = OUTLIERS.draw(np.random.default_rng(7), 4000, 64)
        self.assertAlmostEqual(float(OUTLIERS.slowest(64)[0]), drawn.max(axis=1).mean() / np.median(drawn), delta=0.003)
        self.assertAlmostEqual(float(NORMAL.slowest(100)[0]), 1 + 0.02 * 2.5076, delta=2e-4)  # E[max of 100 normals]

    def test_fit_mixture_of_one_fleet(self):
        times = 2500 * law(1.0, 0.02, 0.06, 0.06).draw(np.random.default_rng(8), 1, 400)[0]
        found = extremes.fit_mixture(times)
        self.assertTrue(found.mean.covers(2500) and found.sd.covers(50) and found.weight.covers(0.06), found)
        self.assertTrue(10 <= found.outliers_seen <= 24, found.outliers_seen)
        self.assertAlmostEqual(found.expected_slowest(64), 1.118, delta=0.03)
        self.assertRaises(ValueError, extremes.fit_mixture, times[:20])

    def test_tails_are_recovered(self):
        rng = np.random.default_rng(9)
        for shape in (-0.2, 0.0, 0.2, 0.5):
            covered = np.zeros(2)
            for _ in range(200):
                excess = stats.genpareto.rvs(shape, scale=0.03, size=60, random_state=rng)
                found = extremes.fit_tail(np.concatenate([np.linspace(0.9, 1, 540), 1 + excess]), exceedances=60)
                covered += found.shape.covers(shape), found.scale.covers(0.03)
            print(f"tail of shape {shape}: shape, scale covered: {covered / 200}")
            self.assertTrue((covered / 200 >= 0.89).all() and (covered / 200 <= 0.99).all(), covered)

    def test_a_tail_beyond_the_sample(self):
        times = stats.genpareto.rvs(0.1, loc=1, scale=0.02, size=5000, random_state=np.random.default_rng(10))
        found = extremes.fit_tail(times)
        self.assertEqual((found.exceedances, found.n), (500, 5000))
        truth = stats.genpareto.ppf(0.9999, 0.1, loc=1, scale=0.02)
        self.assertAlmostEqual((found.quantile(0.9999) - 1) / (truth - 1), 1, delta=0.25)
        self.assertAlmostEqual(float(found.cdf(found.quantile(0.99))), 0.99)
        self.assertRaises(ValueError, found.quantile, 0.5)
        for bad in (np.ones(100), times[:12]):
            self.assertRaises(ValueError, extremes.fit_tail, bad)


class Projections(unittest.TestCase):
    def coverage(self, population, size, sizes, runs, seed):
        rng = np.random.default_rng(seed)
        truth = [float(population.slowest(n)[0]) for n in sizes]
        covered = np.zeros(len(sizes))
        for _ in range(runs):
            found = extremes.project(population.draw(rng, 1, size)[0], sizes, rng=rng, laws=100)
            covered += [p.low <= t <= p.high for p, t in zip(found, truth)]
        print(f"{size} GPUs to {sizes}: covered {covered / runs} of {runs}", flush=True)
        return covered / runs

    def test_normal_fleets_from_eight_gpus(self):
        covered = self.coverage(NORMAL, 8, [4, 64, 1024], 60, seed=11)
        self.assertTrue((covered >= 0.93).all(), covered)

    def test_fleets_with_outliers_from_64_gpus(self):
        covered = self.coverage(OUTLIERS, 64, [8, 64, 1024], 40, seed=12)
        self.assertTrue((covered >= 0.93).all(), covered)

    def test_eight_gpus_leave_rare_outliers_open_and_the_warning_says_so(self):
        self.assertTrue((self.coverage(OUTLIERS, 8, [4, 512], 60, seed=13) >= 0.93).all())
        rng = np.random.default_rng(14)
        found = extremes.project(NORMAL.draw(rng, 1, 8)[0], [4, 512], rng=rng)
        self.assertIsNone(found[0].warning)
        self.assertIn("8 GPUs are too few to tell slow outliers", found[1].warning)
        # no GPU of the eight is an outlier, so the value is a normal fleet's; the interval holds fleets that have some
        self.assertLess(found[1].value, 1.15)
        self.assertGreater(found[1].high, 1.2)

    def test_intervals_narrow_with_the_fleet_and_are_no_wider_than_they_must(self):
        rng = np.random.default_rng(17)
        widths = [p.high - p.low for size in (16, 64, 256)
                  for p in extremes.project(OUTLIERS.draw(rng, 1, size)[0], [64], rng=rng, laws=200)]
        self.assertGreater(widths[0], 2 * widths[2])
        self.assertLess(widths[2], 0.15)  # the truth is 1.093

    def test_a_tail_on_a_handful_of_gpus_says_how_many(self):
        times = np.concatenate([np.random.default_rng(15).normal(1, 0.01, 60), [1.2, 1.25, 1.3]])
        near, far = extremes.project(times, [16, 1024], rng=np.random.default_rng(2), laws=50)
        self.assertIsNone(near.warning)
        self.assertIn("the tail rests on 3 of 63 GPUs", far.warning)
        self.assertIn("rarer than 1 in 63", far.warning)
        self.assertLess(near.high, far.high)

    def test_large_fleets_take_the_same_values_from_theory(self):
        rng = np.random.default_rng(16)
        times = OUTLIERS.draw(rng, 1, 20_000)[0]
        for found in extremes.project(times, [8, 512, 100_000], rng=rng):
            truth = float(OUTLIERS.slowest(found.n)[0])
            self.assertTrue(found.low - 0.01 <= truth <= found.high + 0.01, found)
            self.assertLess(found.high - found.low, 0.2 * (truth - 1) + 0.002)

    def test_degenerate_fleets(self):
        same = extremes.project([2.0] * 6, [1, 100], rng=np.random.default_rng(3))
        self.assertEqual([(p.value, p.low, p.high) for p in same], [(1, 1, 1)] * 2)
        self.assertRaises(ValueError, extremes.project, [1.0, 2.0, 3.0], [8], rng=np.random.default_rng(3))

    @unittest.skipUnless(FULL, "MOEVAR_COVERAGE=full")
    def test_the_whole_table(self):
        for size in (8, 16, 64, 256):
            self.coverage(NORMAL, size, [4, 64, 1024], 100, seed=size)
        for size in (8, 64, 256, 1000):
            self.coverage(OUTLIERS, size, [8, 64, 1024], 60, seed=size)


if __name__ == "__main__":
    unittest.main()
