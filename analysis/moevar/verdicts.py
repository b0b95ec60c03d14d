"""Whether a change is more than chance: standard errors over steps or repeats, p values, and joint verdicts.

A verdict's words: slower, faster, same (identical), no difference shown, or not supported by n.
"""

import math

import numpy as np
from moevar import intervals
from scipy import stats

ALPHA = 0.05
DISAGREEMENT = 0.1
FEWEST_REPEATS = 3      # that can stand for what varies


def steps_or_repeats(influence, segments, most=None) -> tuple[float, float]:
    """Standard error of a mean of influences [S] and its degrees of freedom: from the steps, or, where three or more
    segments (repeats) differ by more than that, or are too short for it, from the segments' sums. most: as for
    intervals.long_run_error."""
    error, freedom = intervals.long_run_error(influence, segments, most)
    count = len(segments)
    if count < FEWEST_REPEATS:
        return error, freedom
    between, _ = over_repeats(influence, segments)
    # identical runs differ by rounding alone: less than the last digits of a sum
    if between <= 1e-14:
        return error, freedom
    steps_say = 0.0 if freedom <= 0 or error == 0 else stats.f.sf((between / error) ** 2, count - 1, min(freedom, 1e9))
    return (error, freedom) if steps_say >= DISAGREEMENT else (between, count - 1)


def over_repeats(influence, segments) -> tuple[float, float]:
    """Standard error of a mean of influences [S] and its degrees of freedom from the segments' sums alone; (inf, 0) of
    fewer than FEWEST_REPEATS."""
    count = len(segments)
    if count < FEWEST_REPEATS:
        return math.inf, 0.0
    starts = np.cumsum([0, *segments[:-1]])
    sums = np.add.reduceat(influence, starts) * (count / influence.size)
    return float(sums.std(ddof=1)) / math.sqrt(count), count - 1.0


def p_value(value: float, error: float, freedom: float, threshold: float) -> float | None:
    """Two-sided p of a change of at most `threshold` either way; None where the sample supports none."""
    beyond = abs(value) - threshold
    if beyond <= 0:
        return 1.0 if freedom > 0 or value == 0 else None
    if freedom <= 0:
        return None
    if error == 0:
        return 0.0
    distance = beyond / error
    return float(min(1.0, 2 * (stats.t.sf(distance, freedom) if math.isfinite(freedom) else stats.norm.sf(distance))))


def holm(p_values) -> np.ndarray:
    """Adjusted p values: rejecting where they are at most alpha keeps the chance of any wrong rejection at alpha."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((p.size - np.arange(p.size)) * p[order])
    adjusted = np.empty(p.size)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def give_verdicts(entries, changes, threshold: float) -> None:
    """Fills p_holm and verdict of entries that have p, jointly."""
    known = [entry for entry in entries if entry.p is not None]
    for entry, adjusted in zip(known, holm([entry.p for entry in known])):
        entry.p_holm = float(adjusted)
    for entry, change in zip(entries, changes):
        if entry.p is None:
            entry.verdict = intervals.NOT_SUPPORTED
        elif entry.p_holm <= ALPHA and abs(change.value) > threshold:
            entry.verdict = "slower" if change.value > 0 else "faster"
        elif change.value == 0 and change.low == change.high:
            entry.verdict = "same"
        else:
            entry.verdict = "no difference shown"
