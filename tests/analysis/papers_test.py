"""The papers' page: verdicts by rule, which claims there are and what they ask for, estimates over repeats."""

import unittest

import paths  # noqa: F401  (puts the analysis on the path)
import numpy as np
import papers
from moevar.intervals import NOT_SUPPORTED, Estimate
from moevar.papers import beyond, estimates, findings, gem, runs, serving
from moevar.papers.verdicts import FAILS, HOLDS, IN_PART, NOT_RUN
from moevar.papers.verdicts import Claim, Direction, Equivalent, Figure, Measure, combined
from scipy import stats


def estimate(value, low, high, n=8):
    return Estimate(value, low, high, n, "planted")


class Rules(unittest.TestCase):
    def judged(self, rule, cases):
        for (value, low, high), verdict in cases:
            with self.subTest(rule=rule, ours=(value, low, high)):
                self.assertEqual(rule.judge(estimate(value, low, high)), verdict)

    def test_a_figure_holds_where_the_interval_contains_it(self):
        self.judged(
            Figure.of(0.12),
            [
                ((0.10, 0.05, 0.15), HOLDS),
                ((0.10, 0.08, 0.12), HOLDS),
                ((0.10, 0.08, 0.119), IN_PART),
                ((0.07, 0.065, 0.075), IN_PART),
                ((0.061, 0.0605, 0.0615), IN_PART),
                ((0.059, 0.058, 0.0595), FAILS),  # under half of it
                ((0.23, 0.22, 0.235), IN_PART),
                ((0.25, 0.245, 0.255), FAILS),
                ((0.08, -0.01, 0.11), FAILS),  # the sign is not clear
                ((-0.12, -0.13, -0.11), FAILS),
            ],
        )

    def test_a_ratio_is_an_effect_from_one(self):
        self.judged(
            Figure.of(0.8, null=1),
            [
                ((0.8, 0.79, 0.81), HOLDS),
                ((0.89, 0.885, 0.895), IN_PART),
                ((0.91, 0.905, 0.915), FAILS),
                ((0.61, 0.605, 0.615), IN_PART),
                ((0.59, 0.585, 0.595), FAILS),
                ((1.2, 1.15, 1.25), FAILS),
            ],
        )

    def test_a_reading_off_a_plot_is_a_range(self):
        self.judged(
            Figure.of(0.87, null=1, reading=0.02), [((0.855, 0.85, 0.86), HOLDS), ((0.845, 0.842, 0.848), IN_PART)]
        )

    def test_a_range_holds_where_the_interval_meets_it(self):
        self.judged(
            Figure(0.24, 0.34),
            [
                ((0.30, 0.29, 0.31), HOLDS),
                ((0.22, 0.20, 0.24), HOLDS),
                ((0.13, 0.125, 0.135), IN_PART),
                ((0.11, 0.105, 0.115), FAILS),
                ((0.66, 0.65, 0.67), IN_PART),
                ((0.70, 0.69, 0.71), FAILS),
            ],
        )
        self.judged(
            Figure(-0.169, -0.168),
            [((-0.1685, -0.17, -0.16), HOLDS), ((-0.1, -0.11, -0.09), IN_PART), ((0.1685, 0.16, 0.17), FAILS)],
        )

    def test_a_direction_and_an_equivalence(self):
        self.judged(
            Direction(-1),
            [
                ((-0.01, -0.02, -0.001), HOLDS),
                ((-0.01, -0.03, 0.01), IN_PART),
                ((0.001, -0.01, 0.012), FAILS),
                ((0.1, 0.05, 0.15), FAILS),
            ],
        )
        self.judged(
            Direction(1, null=1), [((1.1, 1.01, 1.2), HOLDS), ((1.1, 0.9, 1.3), IN_PART), ((0.9, 0.8, 1.0), FAILS)]
        )
        self.judged(
            Equivalent(0.02),
            [
                ((0.0, -0.01, 0.01), HOLDS),
                ((0.015, 0.01, 0.02), HOLDS),
                ((0.02, 0.01, 0.03), IN_PART),
                ((0.04, 0.03, 0.05), FAILS),
            ],
        )

    def test_without_an_interval_nothing_is_decided(self):
        measure = Measure("m", "1", Estimate(1.0, None, None, 2, NOT_SUPPORTED), Figure.of(1.0))
        self.assertIsNone(measure.verdict)
        finding = findings.find(Claim("X1", "c", "s", measures=(lambda _: measure,)), None)
        self.assertEqual(finding.verdict, NOT_RUN)
        self.assertIn("too few repeats", finding.reasons[0])

    def test_a_claim_is_all_of_its_measures(self):
        self.assertEqual(combined([HOLDS, HOLDS]), HOLDS)
        self.assertEqual(combined([FAILS, FAILS]), FAILS)
        for mixed in ([HOLDS, FAILS], [IN_PART], [HOLDS, IN_PART], [FAILS, IN_PART]):
            self.assertEqual(combined(mixed), IN_PART)

    def test_the_explanation_is_chosen_by_the_verdict(self):
        why = {HOLDS: "yes", IN_PART: "partly", FAILS: "no"}
        for ours, verdict in (((1.0, 0.9, 1.1), HOLDS), ((0.7, 0.6, 0.8), IN_PART), ((3.0, 2.9, 3.1), FAILS)):
            claim = Claim(
                "X1", "c", "s", measures=(lambda _, o=ours: Measure("m", "1", estimate(*o), Figure.of(1.0)),), why=why
            )
            finding = findings.find(claim, None)
            self.assertEqual((finding.verdict, finding.why), (verdict, why[verdict]))


class Claims(unittest.TestCase):
    def test_every_claim_has_a_text_for_every_verdict_or_a_reason(self):
        for claim in papers.claims():
            with self.subTest(claim=claim.identity):
                if claim.cannot:
                    self.assertFalse(claim.measures)
                else:
                    self.assertTrue(claim.measures)
                    self.assertEqual(set(claim.why), {HOLDS, IN_PART, FAILS})
                    self.assertEqual(len(set(claim.why.values())), 3)

    def test_all_claims_are_there_once_and_in_order(self):
        names = [claim.identity for claim in papers.claims()]
        self.assertEqual(
            names,
            [f"V{i}" for i in range(1, 9)]
            + ["V8b"]
            + [f"V{i}" for i in range(9, 17)]
            + [f"G{i}" for i in range(1, 8)]
            + ["A1", "E1", "E2", "F1", "H1", "L1", "M1", "S1", "T1"],
        )

    def test_every_run_that_a_claim_asks_for_is_listed_and_its_file_is_there(self):
        """A set of runs that knows what is asked of it and has nothing."""

        class Asked:
            names = set()

            def get(self, name):
                self.names.add(name)
                raise runs.NotRun(name)

        asked = Asked()
        for claim in papers.claims():
            findings.find(claim, asked)
        listed = {entry.name: entry for entry in runs.listed(papers.STUDIES / "runs.txt")}
        # a measure that meets a run that is missing asks for no second one
        self.assertLessEqual(asked.names, set(listed))
        self.assertLessEqual({*gem.SET_UPS, *gem.EVEN, *gem.REQUESTS}, set(listed))
        self.assertLessEqual({name for name, _, base in beyond.SET_UPS for name in (name, base)}, set(listed))
        self.assertTrue(any(name.startswith(serving.FRONTIER) and name.endswith("-redundant") for name in listed))
        for entry in listed.values():
            self.assertTrue((papers.STUDIES / entry.file).exists(), entry)


class Estimates(unittest.TestCase):
    def test_a_mean_has_students_interval(self):
        values = [1.0, 1.2, 0.9, 1.1, 1.3]
        made = estimates.over(values)
        low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
        np.testing.assert_allclose([made.value, made.low, made.high], [np.mean(values), low, high])
        self.assertEqual(estimates.over([1.0, 2.0]).low, None)
        self.assertGreater(estimates.over([0.8, 0.9, 1.0]).high, 1.0)
        self.assertEqual(estimates.share([0.8, 0.9, 1.0]).high, 1.0)

    def test_all_of_few_repeats_are_not_surely_all(self):
        made = estimates.proportion([True] * 15)
        self.assertEqual((made.value, made.high, made.n), (1.0, 1.0, 15))
        self.assertAlmostEqual(made.low, 0.025 ** (1 / 15))
        self.assertAlmostEqual(estimates.proportion([0.0] * 15).high, 1 - 0.025 ** (1 / 15))

    def test_a_ratio_is_one_of_means_and_paired_by_repeat(self):
        rng = np.random.default_rng(1)
        fleets = dict(enumerate(np.exp(rng.standard_normal(8))))
        same = estimates.ratio({r: 0.9 * t for r, t in fleets.items()}, fleets)
        np.testing.assert_allclose([same.value, same.low, same.high], 0.9)  # fleets differ widely, the ratio does not
        some = estimates.ratio({0: 3.0, 1: 1.0, 9: 100.0}, {0: 1.0, 1: 3.0, 5: 7.0})
        self.assertEqual((some.value, some.n), (1.0, 2))
        with self.assertRaises(ValueError):
            estimates.ratio({0: 1.0}, {1: 1.0})

    def test_intervals_of_ratios_cover(self):
        rng = np.random.default_rng(2)
        covered = 0
        for _ in range(2000):
            base = np.exp(0.3 * rng.standard_normal(8))
            top = 0.8 * base * (1 + 0.05 * rng.standard_normal(8))
            covered += estimates.ratio(dict(enumerate(top)), dict(enumerate(base))).covers(0.8)
        self.assertGreater(covered / 2000, 0.92)
        self.assertLess(covered / 2000, 0.975)


if __name__ == "__main__":
    unittest.main()
