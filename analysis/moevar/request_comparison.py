"""Cells of two runs that served requests: what a request took, or the highest rate that the runs found.

At a given rate the mean time to first token (TTFT) decides; its quantiles, the mean time to the last token, attainment
and the straggler tax stand beside it. Where both served the same requests (arrivals and lengths) request r of A is
paired with request r of B. Where both searched for a rate, the rate decides, repeat beside repeat.

Requests that queue together are alike: near saturation a run of a thousand is a handful of queues. Errors are those of
autocorrelated series (moevar.intervals) from as few cosines as the requests' effective sample size allows, and below
LEAST_SIZE of that from the repeats, whose requests are independent, if there are enough of them; else there is no
verdict.
"""

import math
from dataclasses import dataclass

import numpy as np
from moevar import intervals
from moevar.intervals import Estimate
from moevar.study import StudyError
from moevar.verdicts import FEWEST_REPEATS, over_repeats, p_value, steps_or_repeats

# With these two some 5 % of queues that are equal but for 2 % noise are called different, at loads of 0.4 to 1.1
# (tests/analysis/compare_requests_test.py).
LEAST_SIZE = 10.0
SIZE_PER_COSINE = 5.0


@dataclass
class RequestCell:
    """A cell of both runs at one rate. Times in ms, changes relative (0.01 is 1 %), of attainment and tax absolute."""

    factors: dict
    paired: bool
    repeats: tuple[int, int]
    ttft_ms: dict       # "mean", "p50", "p90" -> (A's, B's)
    ttft: dict          # "mean", "p50", "p90" -> Estimate of the change
    e2e_ms: tuple[float, float]     # mean, from the intended arrival to the last token
    e2e: Estimate
    attainment: tuple[float, float] | None      # None: no limits, or not the same ones
    attainment_change: Estimate | None
    tax_values: tuple[float, float]
    tax: Estimate
    p: float | None
    p_holm: float | None = None
    verdict: str = ""

    @property
    def mean(self) -> Estimate:
        """What decides."""
        return self.ttft["mean"]


@dataclass
class RateCell:
    """A cell of both runs that searched for the highest rate, requests/s per device, means over repeats; None: a
    repeat's attainment did not cross its target. change: relative, of the rate; above 0 B keeps more."""

    factors: dict
    repeats: tuple[int, int]
    rate: tuple[float | None, float | None]
    change: Estimate
    p: float | None
    p_holm: float | None = None
    verdict: str = ""

    @property
    def slowdown(self) -> Estimate:
        """The change with its sign turned: a lower rate is slower."""
        ends = (None if end is None else -end for end in (self.change.high, self.change.low))
        return Estimate(-self.change.value, *ends, self.change.n, self.change.method)


def compare_requests(factors, studies, repeats, threshold) -> RequestCell:
    """studies: A and B; repeats: {repeat: phase} of each."""
    common = sorted(set(repeats[0]) & set(repeats[1]))
    paired = bool(common) and all(_same_requests(*(part[repeat] for part in repeats)) for repeat in common)
    phases = [[part[repeat] for repeat in (common if paired else sorted(part))] for part in repeats]
    ttft, e2e = ([[_latency_ms(phase, end) for phase in part] for part in phases]
                 for end in ("first_token_s", "finished_s"))
    of_ttft, of_e2e = (_queue_error(_sizes(series, paired)) for series in (ttft, e2e))
    statistics = {"mean": intervals.mean_of, "p50": lambda part: intervals.quantile_of(part, intervals.MEDIAN),
                  "p90": lambda part: intervals.quantile_of(part, intervals.P90)}
    both = {name: [statistic(part) for part in ttft] for name, statistic in statistics.items()}
    changes = {name: _change(*pair, paired, of_ttft) for name, pair in both.items()}
    whole = [intervals.mean_of(part) for part in e2e]
    mean, error, freedom = changes["mean"]
    kept = _attainments(studies, phases)
    taxes = [intervals.tax_of([phase.layer_ns.astype(float) for phase in part],
                              [phase.busy_sum_ns.astype(float) for phase in part], factors["devices"])
             for part in phases]
    return RequestCell(
        factors, paired, tuple(len(part) for part in phases),
        {name: tuple(part.value for part in pair) for name, pair in both.items()},
        {name: change for name, (change, _, _) in changes.items()},
        tuple(part.value for part in whole), _change(*whole, paired, of_e2e)[0],
        None if kept is None else tuple(part.value for part in kept),
        None if kept is None else _clipped(_difference(*kept, paired, of_ttft), kept[0].value),
        tuple(part.value for part in taxes), _difference(*taxes, False, _queue_error(math.inf)),
        p_value(mean.value, error, freedom, threshold))


def _sizes(series, paired) -> float:
    """Effective sample size of a repeat, mean over repeats: the least of A's, of B's and, paired, of their
    difference's."""
    lists = [*series, [b - a for a, b in zip(*series)]] if paired else series
    return min(float(np.mean([intervals.least_sample_size(part) for part in one])) for one in lists)


def _queue_error(size):
    """error_of(influence, segments) for statistics of requests that count for `size` independent ones a repeat; or for
    fewer, if the influences themselves do."""
    def error_of(influence, segments):
        if not np.any(influence):
            return 0.0, math.inf
        parts = np.split(influence, np.cumsum(segments)[:-1])
        least = min(size, float(np.mean([intervals.least_sample_size(part) for part in parts])))
        if least < LEAST_SIZE:
            return over_repeats(influence, segments)
        return steps_or_repeats(influence, segments, max(intervals.MIN_COSINES, int(least / SIZE_PER_COSINE)))
    return error_of


def _latency_ms(phase, end):
    return 1e3 * (phase.array(f"serving/requests/{end}") - phase.array("serving/requests/intended_s"))


def _same_requests(a, b) -> bool:
    names = ("intended_s", "input_tokens", "output_tokens")
    return all(np.array_equal(*(phase.array(f"serving/requests/{name}") for phase in (a, b))) for name in names)


def _attainments(studies, phases):
    """Linear of A's and B's share of requests within the limits; None where there are none, or others."""
    limits = [tuple(float(study.config.get("serving", {}).get(f"slo_{name}_ms", 0)) for name in ("ttft", "tpot"))
              for study in studies]
    if limits[0] != limits[1] or not any(limits[0]):
        return None
    return [intervals.mean_of([within_limits(phase, *limits[0]) for phase in part]) for part in phases]


def within_limits(phase, ttft_ms, tpot_ms):
    """1.0 of each request within the limits (0: no limit), 0.0 of the others, [R]; as `moevar run` counts them."""
    ttft = _latency_ms(phase, "first_token_s")
    after = phase.array("serving/requests/output_tokens").astype(float) - 1
    rest = 1e3 * (phase.array("serving/requests/finished_s") - phase.array("serving/requests/first_token_s"))
    tpot = np.divide(rest, after, out=np.zeros_like(rest), where=after > 0)
    return ((ttft <= (ttft_ms or math.inf)) & (tpot <= (tpot_ms or math.inf))).astype(float)


def _clipped(change, share) -> Estimate:
    """A share's change, within what leaves a share."""
    if not change.supported:
        return change
    return Estimate(change.value, max(change.low, -share), min(change.high, 1 - share), change.n, change.method)


def _change(a, b, paired, error_of) -> tuple[Estimate, float, float]:
    """b / a - 1 with its interval, standard error and degrees of freedom: those of b - a, in parts of a as it was.

    Not those of a ratio: where a difference grows with the queue, a ratio's influences hide that it came from few
    queues.
    """
    change, error, freedom = _absolute(a, b, paired, error_of)
    ends = (None if end is None else end / a.value for end in (change.low, change.high))
    return Estimate(change.value / a.value, *ends, change.n, change.method), error / a.value, freedom


def _difference(a, b, paired, error_of) -> Estimate:
    """b - a with its interval."""
    return _absolute(a, b, paired, error_of)[0]


def _absolute(a, b, paired, error_of) -> tuple[Estimate, float, float]:
    if paired:
        change = b - a
        error, freedom = error_of(change.influence, change.segments)
    else:
        error, freedom = intervals.combined_error([error_of(part.influence, part.segments) for part in (a, b)])
    if error == 0 and b.value != a.value:   # all or none in every request: nothing to judge the change by
        freedom = 0.0
    method = "paired requests" if paired else "independent"
    return intervals.around(b.value - a.value, error, freedom, min(a.n, b.n), method), error, freedom


# --- rates that were searched -------------------------------------------------------------------------------------


def compare_rates(factors, studies, repeats, threshold) -> RateCell:
    """As compare_requests. A repeat of both gives one ratio; the change is their geometric mean, with Student's t."""
    common = sorted(set(repeats[0]) & set(repeats[1]))
    shown = [common or sorted(part) for part in repeats]
    rates = [[_found(study, part[repeat]) for repeat in here] for study, part, here in zip(studies, repeats, shown)]
    means = tuple(None if None in part else float(np.mean(part)) for part in rates)
    counts = tuple(len(part) for part in rates)
    if None in means:
        change = Estimate(math.nan, None, None, len(common), intervals.NOT_SUPPORTED)
        return RateCell(factors, counts, means, change, None)
    if not common:
        change = Estimate(means[1] / means[0] - 1, None, None, 0, intervals.NOT_SUPPORTED)
        return RateCell(factors, counts, means, change, None)
    logs = np.log(np.divide(rates[1], rates[0]))
    value = float(logs.mean())
    if not logs.any():
        return RateCell(factors, counts, means, Estimate(0.0, 0.0, 0.0, len(logs), "identical"), 1.0)
    if len(logs) < FEWEST_REPEATS:
        change = Estimate(math.expm1(value), None, None, len(logs), intervals.NOT_SUPPORTED)
        return RateCell(factors, counts, means, change, None)
    error, freedom = float(logs.std(ddof=1)) / math.sqrt(len(logs)), len(logs) - 1
    half = intervals.student(freedom, 0.05) * error
    change = Estimate(math.expm1(value), math.expm1(value - half), math.expm1(value + half), len(logs),
                      f"{len(logs)} repeats")
    return RateCell(factors, counts, means, change, p_value(value, error, freedom, math.log1p(threshold)))


def _found(study, phase) -> float | None:
    search = ((study.cell(phase) or {}).get("serving") or {}).get("max_rate")
    if search is None:
        raise StudyError(f"{study.directory / 'summary.json'}: phase {phase.name} has no serving.max_rate; the "
                         "summary.json of this run is needed")
    return search["rate"]
