"""Ranks, autocorrelation, taxes and differences against exact values; what they cover is coverage_test's."""

import math
import unittest
from fractions import Fraction

import paths  # noqa: F401  (finds the package)
import numpy as np
from moevar import intervals
from moevar.intervals import MEDIAN, P90, P95, P99, NOT_SUPPORTED
from synthetic import autoregressive

# n: (i, j, coverage) or None, computed from the definition with integer binomials
MEDIAN_TABLE = {
    5: None, 6: (1, 6, ".9688"), 7: (1, 7, ".9844"), 9: (2, 8, ".9609"),
    10: (2, 9, ".9785"), 20: (6, 15, ".9586"), 30: (10, 21, ".9572"), 50: (18, 33, ".9672"),
    100: (40, 61, ".9648"), 200: (86, 115, ".9600"), 500: (228, 273, ".9559"), 1000: (469, 532, ".9537"),
}
TABLES = {
    P90: {35: None, 36: (29, 36, ".9540"), 72: (59, 70, ".9682"), 100: (84, 96, ".9557"), 200: (171, 189, ".9669"),
          368: (320, 343, ".9550"), 500: (436, 464, ".9634"), 1000: (881, 919, ".9549")},
    P95: {35: None, 36: None, 72: (64, 72, ".9655"), 100: (90, 100, ".9826"), 200: (184, 197, ".9672"),
          368: (341, 358, ".9584"), 500: (465, 485, ".9605"), 1000: (936, 964, ".9581")},
    P99: {35: None, 36: None, 72: None, 100: None, 200: None, 368: (360, 368, ".9624"), 500: (490, 500, ".9802"),
          1000: (983, 997, ".9761")},
    MEDIAN: MEDIAN_TABLE,
}
SMALLEST = {P90: 36, P95: 72, P99: 368, Fraction(999, 1000): 3688, MEDIAN: 6}


def exact_tail(n, p, most):
    """P(B <= most) for B ~ Binomial(n, p), by integers."""
    q = p.denominator - p.numerator
    return Fraction(sum(math.comb(n, k) * p.numerator**k * q**(n - k) for k in range(most + 1)), p.denominator**n)


class Ranks(unittest.TestCase):
    def test_the_tables(self):
        rows = 0
        for p, table in TABLES.items():
            for n, row in table.items():
                with self.subTest(p=p, n=n):
                    found = intervals.quantile_ranks(p, n)
                    if row is None:
                        self.assertIsNone(found)
                    else:
                        self.assertEqual((*found[:2], f"{found[2]:.4f}".lstrip("0")), row)
                    rows += 1
        self.assertEqual(rows, 36)

    def test_the_smallest_n_that_supports_a_quantile(self):
        for p, n in SMALLEST.items():
            self.assertIsNone(intervals.quantile_ranks(p, n - 1), (p, n))
            self.assertIsNotNone(intervals.quantile_ranks(p, n), (p, n))

    def test_the_definition_in_integers(self):
        alpha = Fraction(1, 20)
        for p in (MEDIAN, P90, Fraction(3, 10), Fraction(1, 10)):
            for n in (*range(1, 60), 137, 300):
                lower = [i for i in range(1, n + 1) if exact_tail(n, p, i - 1) <= alpha / 2]
                upper = [j for j in range(1, n + 1) if 1 - exact_tail(n, p, j - 1) <= alpha / 2]
                expected = (max(lower), min(upper)) if lower and upper else None
                found = intervals.quantile_ranks(p, n)
                self.assertEqual(found and found[:2], expected, (p, n))
                if expected:
                    coverage = exact_tail(n, p, expected[1] - 1) - exact_tail(n, p, expected[0] - 1)
                    self.assertAlmostEqual(found[2], float(coverage), delta=1e-12)

    def test_a_million_values(self):
        n, p = 10**6, 0.99

        def log_tail(ks):
            """log P(B in ks), summed in log space."""
            logs = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p)
                             + (n - k) * math.log1p(-p) for k in ks])
            return logs.max() + math.log(np.exp(logs - logs.max()).sum())

        i, j, coverage = intervals.quantile_ranks(P99, n)
        half = math.log(0.025)
        self.assertLessEqual(log_tail(range(i - 2000, i)), half)
        self.assertGreater(log_tail(range(i - 2000, i + 1)), half)
        self.assertLessEqual(log_tail(range(j, j + 2000)), half)
        self.assertGreater(log_tail(range(j - 1, j + 2000)), half)
        self.assertAlmostEqual(coverage, math.exp(log_tail(range(i, j))), delta=1e-6)

    def test_nearest_rank_in_integers(self):
        self.assertEqual(intervals.nearest_rank(P95, 20), 19)  # 0.95 * 20 is above 19 in doubles
        self.assertEqual(intervals.nearest_rank(MEDIAN, 4), 2)
        self.assertEqual(intervals.nearest_rank(P99, 1), 1)
        values = np.random.default_rng(1).permutation(100) + 1
        self.assertEqual(intervals.quantile(values, P90).value, 90)
        for p in (0, 1, Fraction(3, 2)):
            self.assertRaises(ValueError, intervals.nearest_rank, p, 10)

    def test_what_n_does_not_support_has_no_number(self):
        found = intervals.quantile(np.arange(99), P99)
        self.assertEqual((found.value, found.low, found.high, found.method), (98, None, None, NOT_SUPPORTED))
        self.assertFalse(found.covers(98))
        found = intervals.quantile(np.arange(1, 101), P90)
        self.assertEqual((found.low, found.value, found.high, found.method), (84, 90, 96, "ranks"))

    def test_unusable_input(self):
        for values in ([], [1.0, math.nan], [math.inf]):
            self.assertRaises(ValueError, intervals.quantile, values, MEDIAN)
            self.assertRaises(ValueError, intervals.quantile_series, values, MEDIAN)
            self.assertRaises(ValueError, intervals.mean_interval, values)


class Autocorrelation(unittest.TestCase):
    def test_the_time_of_an_autoregression(self):
        rng = np.random.default_rng(2)
        for rho in (0.0, 0.3, 0.7, 0.9):
            expected = (1 + rho) / (1 - rho)
            found = intervals.autocorrelation_time(autoregressive(rng, (100_000,), rho))
            self.assertAlmostEqual(found / expected, 1, delta=0.08)
            layers = autoregressive(rng, (20_000, 5), rho) + 10 * np.arange(5)
            self.assertAlmostEqual(intervals.autocorrelation_time(layers) / expected, 1, delta=0.08)
            self.assertAlmostEqual(intervals.effective_sample_size(layers) * expected / 20_000, 1, delta=0.08)

    def test_constants_and_short_series(self):
        self.assertEqual(intervals.autocorrelation_time(np.full(50, 3.0)), 1)
        self.assertEqual(intervals.autocorrelation_time([2.0]), 1)
        self.assertEqual(intervals.autocorrelation_time([1.0, -1.0] * 20), 1)  # never below 1

    def test_blocks_are_longer_than_the_correlation(self):
        rng = np.random.default_rng(3)
        lengths = {rho: np.median([intervals.block_length(autoregressive(rng, (1000,), rho)) for _ in range(50)])
                   for rho in (0.0, 0.5, 0.8)}
        self.assertLessEqual(lengths[0.0], 3)
        # the best length for the variance of an AR(1) mean: (3 (2 rho / (1 - rho^2))^2 S / 2)^(1/3)
        for rho in (0.5, 0.8):
            best = (1.5 * (2 * rho / (1 - rho**2)) ** 2 * 1000) ** (1 / 3)
            self.assertAlmostEqual(lengths[rho] / best, 1, delta=0.3)


class Taxes(unittest.TestCase):
    def test_a_ratio_of_sums_over_devices(self):
        # two devices; layer 0: 10 + 10 of 10; layer 1: 90 + 30 of 90
        layer = np.tile([[10.0, 90.0]], (12, 1))
        busy = np.tile([[20.0, 120.0]], (12, 1))
        self.assertAlmostEqual(intervals.tax(layer, busy, 2), 200 / 140 - 1)  # the mean of the layers' taxes is 0.25
        found = intervals.tax_interval(layer, busy, 2)
        self.assertAlmostEqual(found.low, found.high)
        self.assertEqual(found.n, 24)

    def test_few_steps_have_no_interval(self):
        found = intervals.tax_interval(np.ones((7, 3)), np.ones((7, 3)), 1)
        self.assertEqual((found.value, found.low, found.method), (0, None, NOT_SUPPORTED))

    def test_segments_are_not_joined_over_their_seam(self):
        rng = np.random.default_rng(4)
        parts = [autoregressive(rng, (64, 2), 0.5) + level for level in (0.0, 100.0)]
        apart = intervals.mean_interval(parts)
        joined = intervals.mean_interval(np.concatenate(parts))
        self.assertAlmostEqual(apart.value, joined.value)
        self.assertLess(apart.high - apart.low, 0.05 * (joined.high - joined.low))


class Differences(unittest.TestCase):
    def test_a_constant_factor_of_paired_steps_is_exact(self):
        a = np.exp(autoregressive(np.random.default_rng(5), (64, 4), 0.5))
        for statistic in ("mean", "median"):
            same = intervals.relative_difference(a, a, statistic=statistic, paired=True)
            self.assertEqual((same.value, same.low, same.high), (0, 0, 0))
            slower = intervals.relative_difference(a, 1.01 * a, statistic=statistic, paired=True)
            self.assertAlmostEqual(slower.value, 0.01)
            self.assertAlmostEqual(slower.high - slower.low, 0, delta=1e-12)

    def test_independent_series_differ_in_length(self):
        rng = np.random.default_rng(6)
        a, b = (10 + autoregressive(rng, (steps, 3), 0.4) for steps in (200, 300))
        found = intervals.relative_difference(a, b)
        self.assertAlmostEqual(found.value, b.mean() / a.mean() - 1)
        self.assertLess(found.low, found.value)
        self.assertRaises(ValueError, intervals.relative_difference, a, b, statistic="mode")
        self.assertRaises(ValueError, intervals.relative_difference, a, b, paired=True)


class Bootstrap(unittest.TestCase):
    def test_it_agrees_with_the_long_run_variance(self):
        rng = np.random.default_rng(7)
        series = autoregressive(rng, (2000, 2), 0.5)
        drawn = intervals.block_bootstrap(series, np.mean, rng=rng)
        computed = intervals.mean_interval(series)
        self.assertAlmostEqual(drawn.value, computed.value)
        self.assertAlmostEqual((drawn.high - drawn.low) / (computed.high - computed.low), 1, delta=0.25)

    def test_rows_stay_whole_and_few_blocks_are_refused(self):
        rows = np.repeat(np.arange(40.0)[:, None], 3, axis=1)

        def spread_within_rows(drawn):
            self.assertTrue((drawn == drawn[:, :1]).all())
            self.assertEqual(drawn.shape, rows.shape)
            return drawn.mean()

        rng = np.random.default_rng(8)
        found = intervals.block_bootstrap(rows, spread_within_rows, rng=rng, reps=50, block=10)
        self.assertTrue(found.supported)
        self.assertEqual(intervals.block_bootstrap(rows, np.mean, rng=rng, block=20).method, NOT_SUPPORTED)


if __name__ == "__main__":
    unittest.main()
