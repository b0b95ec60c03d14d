"""Estimates over repeats: every repeat is another fleet, another stretch of the workload, or both, and so the unit.

Student's t over repeats. What is compared between policies is paired by repeat, for these run on the same fleet and
steps: a ratio is one of means, its interval that of the residuals top - ratio x bottom (delta method).
"""

import math

import numpy as np
from scipy import stats

from moevar.cells import FEWEST_REPEATS
from moevar.intervals import NOT_SUPPORTED, Estimate, student

ALPHA = 0.05


def over(values):
    """Mean of a value per repeat."""
    values = np.asarray([value for value in values if value is not None], dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("a value per repeat is needed, each finite")
    return _student(float(values.mean()), values - values.mean())


def share(values):
    """Mean of a share per repeat; the interval ends at 0 and 1."""
    made = over(values)
    if not made.supported:
        return made
    return Estimate(made.value, max(made.low, 0.0), min(made.high, 1.0), made.n, made.method)


def proportion(hits):
    """Part of the repeats that are hits, with Clopper and Pearson's interval: all of few are not surely all."""
    hits = [bool(hit) for hit in hits]
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(1 - ALPHA, method="exact")
    return Estimate(sum(hits) / len(hits), interval.low, interval.high, len(hits), "Clopper-Pearson over repeats")


def ratio(tops, bottoms):
    """Mean of tops over mean of bottoms; {repeat: value} each, those repeats alone that both have."""
    repeats = sorted(set(tops) & set(bottoms))
    if not repeats:
        raise ValueError("no repeat in common")
    top, bottom = (np.array([values[repeat] for repeat in repeats], dtype=float) for values in (tops, bottoms))
    if bottom.mean() == 0:
        raise ValueError("a ratio to nothing")
    value = float(top.mean() / bottom.mean())
    return _student(value, (top - value * bottom) / bottom.mean())


def change(tops, bottoms):
    """ratio - 1."""
    return shifted(ratio(tops, bottoms), -1.0)


def difference(tops, bottoms):
    repeats = sorted(set(tops) & set(bottoms))
    return over([tops[repeat] - bottoms[repeat] for repeat in repeats])


def shifted(estimate, by):
    ends = (None if end is None else end + by for end in (estimate.low, estimate.high))
    return Estimate(estimate.value + by, *ends, estimate.n, estimate.method)


def _student(value, residuals):
    n = residuals.size
    if n < FEWEST_REPEATS:
        return Estimate(value, None, None, n, NOT_SUPPORTED)
    reach = student(n - 1, ALPHA) * math.sqrt(float((residuals**2).sum()) / (n - 1) / n)
    return Estimate(value, value - reach, value + reach, n, "Student's t over repeats")
