"""Quantiles, means and taxes of measured series, each with an interval.

Three kinds of sample, three kinds of interval:

- Independent values (one per GPU, one per run): `quantile`, the nearest rank with the interval between two order
  statistics that the binomial distribution gives; no assumption about the values' distribution.
- Steps of one run, which are autocorrelated by heat, clock control and drifting loads, and whose layers are
  correlated within a step: `quantile_series`, `mean_interval`, `tax_interval`, `relative_difference`. The row of a
  step is the unit. What is summed over steps is each step's *influence* on the statistic, and its variance is the
  series' long-run one, estimated by equally weighted cosines with Student's t as reference (Lazarus, Lewis, Stock and
  Watson, "HAR Inference: Recommendations for Practice", JBES 2018). A quantile's interval stays one of ranks, at the
  effective sample size.
- Any other statistic of such a series: `block_bootstrap`, blocks of whole rows.

What the 95 % intervals of a series cover, for skewed AR(1) steps (tests/analysis/coverage_test.py, 2,000 studies
each): 94 to 98 % for medians and 94 to 95 % for taxes from 64 steps on where the steps' autocorrelation is up to 0.7,
from 256 on at 0.85; 94 to 97 % for p90 from 128 steps on at up to 0.5, from 256 at 0.7, from 1,000 at 0.85. Of
shorter series p90 is mostly refused, and what is given covers less: it is wrong in up to 5.4 % of all studies.

A quantile that the sample cannot support is an `Estimate` whose ends are None and whose method is `NOT_SUPPORTED`.

Times may be in any unit; results have the unit of what went in. alpha = 0.05 is a 95 % interval. All functions raise
ValueError on empty or non-finite input.
"""

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import fft, special, stats

NOT_SUPPORTED = "not supported by n"
MEDIAN = Fraction(1, 2)
P90, P95, P99 = Fraction(90, 100), Fraction(95, 100), Fraction(99, 100)

# Fewer cosines than this leave Student's t without a usable variance; each takes two steps at least.
MIN_COSINES = 4
MIN_STEPS = 2 * MIN_COSINES


@dataclass(frozen=True)
class Estimate:
    """A value with its interval. low and high are None where the sample does not support one; n counts the values (for
    series: steps x layers), method names how the interval was made."""

    value: float
    low: float | None
    high: float | None
    n: int
    method: str

    @property
    def supported(self) -> bool:
        return self.low is not None and self.high is not None

    def covers(self, truth: float) -> bool:
        return self.supported and self.low <= truth <= self.high


def _finite(values, name="values") -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError(f"{name}: empty; at least one value is needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {np.count_nonzero(~np.isfinite(array))} of {array.size} values are not finite")
    return array


def _as_rows(series) -> np.ndarray:
    """[S] or [S, ...] as [S, K]: a row per step."""
    array = _finite(series, "series")
    return array.reshape(array.shape[0], -1)


# --- independent values -------------------------------------------------------------------------------------------


def nearest_rank(p: Fraction, n: int) -> int:
    """k = ceil(p n), 1-based, in integers: the element of n sorted values that is quantile p."""
    p = Fraction(p)
    if not 0 < p < 1:
        raise ValueError(f"quantile {p}: between 0 and 1 is needed")
    return -(-p.numerator * n // p.denominator)


@functools.lru_cache(maxsize=4096)
def quantile_ranks(p: Fraction, n: int, alpha: float = 0.05) -> tuple[int, int, float] | None:
    """Ranks i, j (1-based) of the interval [x_i, x_j] for quantile p of n independent values, and its coverage.

    With B ~ Binomial(n, p): i is the largest with P(B <= i - 1) <= alpha / 2, j the smallest with P(B >= j) <= alpha
    / 2; coverage P(i <= B <= j - 1). None where either does not exist. (Hahn and Meeker, Statistical Intervals, 5.2.)
    """
    nearest_rank(p, n)
    binomial = stats.binom(n, float(p))
    # ppf and isf are right but for rounding next to a tie, so the definition itself has the last word.
    i = int(binomial.ppf(alpha / 2))
    while i >= 0 and binomial.cdf(i) > alpha / 2:
        i -= 1
    while binomial.cdf(i + 1) <= alpha / 2:
        i += 1
    i += 1
    j = int(binomial.isf(alpha / 2)) + 1
    while binomial.sf(j - 1) > alpha / 2:
        j += 1
    while j > 1 and binomial.sf(j - 2) <= alpha / 2:
        j -= 1
    if i < 1 or j > n:
        return None
    return i, j, float(binomial.cdf(j - 1) - binomial.cdf(i - 1))


def quantile(values, p: Fraction, alpha: float = 0.05) -> Estimate:
    """Quantile p (nearest rank) of independent values, any shape, with the interval of `quantile_ranks`."""
    ordered = np.sort(_finite(values), axis=None)
    n = ordered.size
    value = float(ordered[nearest_rank(p, n) - 1])
    ranks = quantile_ranks(Fraction(p), n, alpha)
    if ranks is None:
        return Estimate(value, None, None, n, NOT_SUPPORTED)
    return Estimate(value, float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1]), n, "ranks")


# --- autocorrelation ----------------------------------------------------------------------------------------------


def autocorrelations(series) -> np.ndarray:
    """[S] of a series [S] or [S, K]: autocorrelation at lags 0 .. S - 1. Columns are centred each by itself and their
    autocovariances added, so that constant differences between layers are not taken for correlation. All 0 but the
    first for a constant series."""
    rows = _as_rows(series)
    steps = rows.shape[0]
    rows = rows - rows.mean(axis=0)
    length = fft.next_fast_len(2 * steps, real=True)
    power = np.zeros(length // 2 + 1)
    for first in range(0, rows.shape[1], 64):
        power += (np.abs(fft.rfft(rows[:, first:first + 64], length, axis=0)) ** 2).sum(axis=1)
    covariance = fft.irfft(power, length)[:steps]
    if covariance[0] <= 0 or not (rows != 0).any():
        return np.concatenate([[1.0], np.zeros(steps - 1)])
    return covariance / covariance[0]


def autocorrelation_time(series) -> float:
    """Integrated autocorrelation time 1 + 2 sum of rho(k), in samples, at least 1, of a series [S] or [S, K].

    The sum ends at the first window of at least five times itself (Sokal's rule; Madras and Sokal, J. Stat. Phys. 50,
    1988): longer ones add noise, shorter ones cut the correlation off.
    """
    sums = 2 * np.cumsum(autocorrelations(series)) - 1
    windows = np.arange(sums.size)
    done = np.flatnonzero(windows >= 5 * sums)
    return float(max(1.0, sums[done[0] if done.size else -1]))


def effective_sample_size(series) -> float:
    """Steps divided by their autocorrelation time: how many independent steps say as much about the mean."""
    return len(series) / autocorrelation_time(series)


def least_sample_size(series) -> float:
    """The smaller of `effective_sample_size` and what a first-order autoregression of the series' rows leaves, where a
    part as slow as the series itself, such as a queue that is filling, must not pass for many independent steps."""
    return min(effective_sample_size(series), _autoregressive_size(_as_rows(series)))


# --- influences and their long-run variance -----------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """A statistic as the mean of what each step adds to it: value - truth is about influence.mean(), and the mean of
    the influences itself is 0 at the sample. `segments` are lengths of stretches of consecutive steps (phases,
    repeats) that are independent of each other; they sum to influence.size. n counts the values behind it."""

    value: float
    influence: np.ndarray
    segments: tuple[int, ...]
    n: int

    def __add__(self, other: "Linear") -> "Linear":
        return self._with(self.value + other.value, self.influence + other.influence, other)

    def __sub__(self, other: "Linear") -> "Linear":
        return self._with(self.value - other.value, self.influence - other.influence, other)

    def over(self, base: "Linear") -> "Linear":
        """The ratio to a statistic of the same steps (paired)."""
        ratio = self.value / base.value
        return self._with(ratio, (self.influence - ratio * base.influence) / base.value, base)

    def _with(self, value, influence, other):
        if self.segments != other.segments:
            raise ValueError(f"statistics of different steps: {self.segments} and {other.segments}")
        return Linear(value, influence, self.segments, self.n)


def _joined(series) -> tuple[np.ndarray, tuple[int, ...]]:
    """One series [S, ...], or a list of such segments, as rows [S, K] and the segments' lengths."""
    several = isinstance(series, (list, tuple)) and len(series) > 0 and np.ndim(series[0]) > 0
    parts = [_as_rows(part) for part in series] if several else [_as_rows(series)]
    return np.concatenate(parts), tuple(len(part) for part in parts)


def mean_of(series) -> Linear:
    """Mean over all values of a series [S, ...] or of a list of such segments."""
    rows, segments = _joined(series)
    value = float(rows.mean())
    return Linear(value, rows.mean(axis=1) - value, segments, rows.size)


def ratio_of(numerator, denominator) -> Linear:
    """Sum of a series over sum of another of the same steps: a ratio of summaries, never a summary of ratios."""
    top, segments = _joined(numerator)
    bottom, _ = _joined(denominator)
    if len(top) != len(bottom):
        raise ValueError(f"{len(top)} and {len(bottom)} steps; a ratio needs the same")
    n = top.size
    top, bottom = top.sum(axis=1), bottom.sum(axis=1)
    value = float(top.sum() / bottom.sum())
    return Linear(value, (top - value * bottom) / bottom.mean(), segments, n)


def quantile_of(series, p: Fraction) -> Linear:
    """Quantile p over all values of a series as a sum over steps (Bahadur): (p - share at or below it) / density.

    The density is that of the sample within one standard error of the share on either side (Woodruff, JASA 47, 1952).
    """
    rows, segments = _joined(series)
    ordered = np.sort(rows, axis=None)
    value = float(ordered[nearest_rank(p, ordered.size) - 1])
    excess = float(p) - (rows <= value).mean(axis=1)
    excess -= excess.mean()
    error, _ = long_run_error(excess, segments)
    error = max(error, 1 / ordered.size)
    low, high = (_order_statistic(ordered, min(max(float(p) + side * error, 0), 1) * ordered.size) for side in (-1, 1))
    return Linear(value, excess * (high - low) / (2 * error), segments, ordered.size)


def cosines(steps: int) -> int:
    """How many cosines the long-run variance of so many steps is estimated from: 0.2 S^(2/3), half of what its authors
    advise. Skewed, strongly correlated steps are then still covered, for intervals wider by 2 to 15 %."""
    return max(MIN_COSINES, int(0.2 * steps ** (2 / 3)))


def long_run_error(influence, segments=None, most=None) -> tuple[float, float]:
    """Standard error of the mean of autocorrelated influences [S], and the degrees of freedom behind it.

    Each segment's long-run variance is the mean square of its first cosine coefficients, whose number is the degrees
    of freedom; those of several segments are Welch's and Satterthwaite's. (inf, 0) where segments are under MIN_STEPS
    steps, (0, inf) where nothing varies. most: no more cosines than this, for series that are slower than `cosines` is
    made for.
    """
    influence = np.asarray(influence, dtype=float)
    variances, freedoms, first = [], [], 0
    for steps in segments or (influence.size,):
        part = influence[first:first + steps]
        first += steps
        if steps < MIN_STEPS:
            return math.inf, 0.0
        count = min(cosines(steps), most or steps)
        coefficients = fft.dct(part - part.mean(), type=2, norm="ortho")[1:count + 1]
        variances.append(steps * float(np.mean(coefficients**2)))
        freedoms.append(count)
    total = sum(variances)
    if total <= 0:
        return 0.0, math.inf
    freedom = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms))
    return math.sqrt(total) / influence.size, freedom


def interval_of(statistic: Linear, alpha: float = 0.05) -> Estimate:
    """Value and Student's t interval of a linear statistic."""
    error, freedom = long_run_error(statistic.influence, statistic.segments)
    return around(statistic.value, error, freedom, statistic.n, "long-run variance", alpha)


def student(freedom: float, alpha: float) -> float:
    """Two-sided critical value of Student's t; the normal one for infinite freedom."""
    return float(stats.t.ppf(1 - alpha / 2, freedom) if math.isfinite(freedom) else stats.norm.ppf(1 - alpha / 2))


# --- series -------------------------------------------------------------------------------------------------------


def mean_interval(series, alpha: float = 0.05) -> Estimate:
    """Mean of an autocorrelated series [S, ...], or of a list of independent segments of one."""
    return interval_of(mean_of(series), alpha)


def quantile_series(series, p: Fraction, alpha: float = 0.05) -> Estimate:
    """Quantile p (nearest rank over all values) of autocorrelated steps [S, ...], or of a list of independent segments.

    Ranks as for independent values, at the effective sample size: p (1 - p) over the long-run variance of the steps'
    share at or below the quantile, which holds the correlation in time and between the layers of a step. It is
    lowered by (z / t)^2 for being estimated, is no whole number, and so the ranks are fractional order statistics
    (Hutson, Comm. Stat. Theory 28, 1999). Not supported where independent values of that number would not support it,
    or of the number that a first-order autoregression of the steps' means leaves: short series whose slow part
    happens to be quiet would else pass for many independent steps.
    """
    rows, segments = _joined(series)
    ordered = np.sort(rows, axis=None)
    n = ordered.size
    value = float(ordered[nearest_rank(p, n) - 1])
    if ordered[0] == ordered[-1] and min(segments) >= MIN_STEPS:
        return Estimate(value, value, value, n, "constant")
    share = (rows <= value).mean(axis=1)
    error, freedom = long_run_error(share - share.mean(), segments)
    if freedom <= 0:
        return Estimate(value, None, None, n, NOT_SUPPORTED)
    p = float(p)
    effective = min(n, p * (1 - p) / error**2) if error > 0 else n
    penalty = (stats.norm.ppf(1 - alpha / 2) / student(freedom, alpha)) ** 2
    ranks = _fractional_ranks(p, effective * penalty, alpha)
    if ranks is None or _fractional_ranks(p, min(n, _autoregressive_size(rows)), alpha) is None:
        return Estimate(value, None, None, n, NOT_SUPPORTED)
    low, high = (_order_statistic(ordered, rank * n) for rank in ranks)
    return Estimate(value, low, high, n, "ranks at the effective sample size")


def _fractional_ranks(p: float, n: float, alpha: float) -> tuple[float, float] | None:
    """Ranks, as parts of n, whose order statistics in n independent values (n need not be whole) enclose quantile p.

    The r-th of n uniform values is Beta(r, n + 1 - r): the lower rank is where P(U_r <= p) = 1 - alpha / 2, the upper
    where it is alpha / 2. None where either lies outside 1 .. n.
    """
    ends = []
    for level in (1 - alpha / 2, alpha / 2):
        low, high = 1.0, n
        if high <= low or not special.betainc(high, 1.0, p) < level < special.betainc(low, n, p):
            return None
        for _ in range(60):
            rank = (low + high) / 2
            low, high = (rank, high) if special.betainc(rank, n + 1 - rank, p) > level else (low, rank)
        ends.append(low / (n + 1))
    return ends[0], ends[1]


def _autoregressive_size(rows: np.ndarray) -> float:
    """How many independent values have a mean as well known as that of rows [S, K], if their means were an AR(1)
    series; its coefficient with Kendall's correction for bias, (1 + 3 rho) / S."""
    means = rows.mean(axis=1) - rows.mean()
    spread = float(means @ means)
    if spread <= 0:
        return rows.size
    rho = float(means[1:] @ means[:-1]) / spread
    rho = min(max(rho + (1 + 3 * rho) / means.size, 0.0), 0.97)
    return float(rows.var()) * means.size**2 / spread * (1 - rho) / (1 + rho)


def _order_statistic(ordered: np.ndarray, rank: float) -> float:
    """The value at a fractional rank (1-based) of sorted values, linear between its neighbours."""
    return float(np.interp(rank, np.arange(1, ordered.size + 1), ordered))


def tax(layer_ns, busy_sum_ns, devices: int) -> float:
    """Straggler tax of layer calls [S, L]: sum of layer times x D / sum of busy times over devices - 1.

    Never a mean of the layers' own taxes: an idle layer would weigh as much as a long one.
    """
    return tax_of(layer_ns, busy_sum_ns, devices).value


def tax_of(layer_ns, busy_sum_ns, devices: int) -> Linear:
    """The straggler tax as a linear statistic; arguments as of `tax`, or lists of segments."""
    ratio = ratio_of(layer_ns, busy_sum_ns)
    return Linear(ratio.value * devices - 1, ratio.influence * devices, ratio.segments, ratio.n)


def tax_interval(layer_ns, busy_sum_ns, devices: int, *, rng=None, alpha: float = 0.05) -> Estimate:
    """The straggler tax with its interval; layer_ns and busy_sum_ns [S, L] or lists of such segments.

    rng is not drawn from (no resampling is needed); it is taken so that all intervals can be called alike.
    """
    return interval_of(tax_of(layer_ns, busy_sum_ns, devices), alpha)


def relative_difference(a, b, *, rng=None, statistic: str = "mean", paired: bool = False,
                        alpha: float = 0.05) -> Estimate:
    """Effect size: (mean or median of b) / (of a) - 1 of two autocorrelated series [S, ...] or lists of segments.

    paired: step s of both did the same work, so that what the work does to both cancels. Else the two are independent,
    and their lengths may differ. rng as for `tax_interval`.
    """
    return interval_of_difference(*(linear(part, statistic) for part in (a, b)), paired=paired, alpha=alpha)[0]


def linear(series, statistic: str) -> Linear:
    """The mean or the median of a series as a linear statistic."""
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic {statistic!r}: mean or median is needed")
    return mean_of(series) if statistic == "mean" else quantile_of(series, MEDIAN)


def interval_of_difference(base: Linear, other: Linear, *, paired: bool, alpha: float = 0.05,
                           error_of=long_run_error) -> tuple[Estimate, float, float]:
    """other / base - 1 with its interval, its standard error and the degrees of freedom.

    error_of(influence, segments) gives the standard error of a mean of influences, and its degrees of freedom.
    """
    if base.value == 0:
        raise ValueError("a relative difference from 0 does not exist")
    value = other.value / base.value - 1
    if paired:
        ratio = other.over(base)
        error, freedom = error_of(ratio.influence, ratio.segments)
    else:
        error, freedom = combined_error([error_of(other.influence / base.value, other.segments),
                                         error_of(base.influence * (other.value / base.value**2), base.segments)])
    n = min(base.n, other.n)
    return around(value, error, freedom, n, "paired steps" if paired else "independent steps", alpha), error, freedom


def around(value: float, error: float, freedom: float, n: int, method: str, alpha: float = 0.05) -> Estimate:
    """A value with Student's t interval; without one where there are no degrees of freedom."""
    if freedom <= 0:
        return Estimate(value, None, None, n, NOT_SUPPORTED)
    half = student(freedom, alpha) * error
    return Estimate(value, value - half, value + half, n, method)


def combined_error(parts) -> tuple[float, float]:
    """Standard error and degrees of freedom (Welch, Satterthwaite) of a sum of independent parts (error, freedom)."""
    if any(freedom <= 0 for _, freedom in parts):
        return math.inf, 0.0
    total = sum(error**2 for error, _ in parts)
    if total == 0:
        return 0.0, math.inf
    return math.sqrt(total), total**2 / sum(error**4 / freedom for error, freedom in parts)


# --- bootstrap ----------------------------------------------------------------------------------------------------


def block_length(series) -> int:
    """Block length for a circular block bootstrap of the mean of a series [S, ...] (its row means).

    Politis and White, Econometric Reviews 23 (2004), with the correction of Patton, Politis and White (2009): flat-top
    weights up to twice the lag beyond which no autocorrelation of a stretch stands out. At most S / 4.
    """
    values = _as_rows(series).mean(axis=1)
    steps = values.size
    rho = autocorrelations(values)
    stretch = max(5, int(math.ceil(math.sqrt(math.log10(max(steps, 10))))))
    bound = 2 * math.sqrt(math.log10(max(steps, 10)) / steps)
    last = min(int(math.ceil(math.sqrt(steps))) + stretch, steps - 1)
    small = np.abs(rho[1:last + 1]) < bound
    cut = next((k for k in range(small.size - stretch + 1) if small[k:k + stretch].all()), small.size)
    lags = np.arange(1, min(2 * max(cut, 1), steps - 1) + 1)
    weights = np.clip(2 * (1 - lags / (lags.size + 1)), 0, 1) * rho[lags]
    spectrum, slope = 1 + 2 * weights.sum(), 2 * (lags * weights).sum()
    if spectrum <= 0:
        return 1
    best = (1.5 * (slope / spectrum) ** 2 * steps) ** (1 / 3)
    return int(min(max(1, math.ceil(best)), max(1, steps // 4)))


def block_bootstrap(rows, statistic, *, rng, reps: int = 2000, block: int | None = None,
                    alpha: float = 0.05) -> Estimate:
    """Any statistic of autocorrelated rows [S, ...], by resampling blocks of whole rows (circular block bootstrap).

    statistic takes rows of the same shape and returns a number. The percentiles are those of Hesterberg's expanded
    interval (The American Statistician 69, 2015) with the number of blocks as sample size: plain percentiles are too
    narrow for few blocks. Not supported below four blocks. Blocks are twice as long as `block_length` says: the best
    length for the variance leaves means of 256 and 1,000 skewed AR(1) steps at 89 to 93 % coverage, twice that at 92
    to 94 %. Where this module has a function for the statistic, it is faster and covers better.
    """
    rows = np.asarray(rows)
    steps = rows.shape[0]
    value = float(statistic(rows))
    block = min(2 * block_length(rows), max(1, steps // 4)) if block is None else block
    blocks = -(-steps // block)
    if blocks < 4:
        return Estimate(value, None, None, rows.size, NOT_SUPPORTED)
    spread = math.sqrt(blocks / (blocks - 1)) * student(blocks - 1, alpha)
    tail = float(stats.norm.sf(spread))
    drawn = np.empty(reps)
    for rep in range(reps):
        starts = rng.integers(0, steps, blocks)
        drawn[rep] = statistic(rows[((starts[:, None] + np.arange(block)) % steps).ravel()[:steps]])
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), rows.size, f"bootstrap of blocks of {block}")
