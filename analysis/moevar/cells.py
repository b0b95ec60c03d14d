"""A study's phases by their factors, and what several figures compute of them. Times in ns unless a name says else."""

import functools
from dataclasses import dataclass, replace

import numpy as np

from moevar import intervals
from moevar.study import StudyError

# Devices slower than median + OUTLIER_MADS scaled median absolute deviations are named (Iglewicz and Hoaglin, 1993);
# MAD_SCALE makes the deviation an estimate of a normal distribution's sigma.
OUTLIER_MADS = 3.5
MAD_SCALE = 1.4826

# Repeats on other devices that an interval needs: two leave their difference's size open by a factor of thirty.
FEWEST_REPEATS = 3

# Policies that place experts without a look at loads or speeds.
BLIND = ("contiguous", "round_robin", "random")


@dataclass(frozen=True, order=True)
class Condition:
    """What a fleet stood under, and what it worked on.

    rate: requests/s per device; None: no requests, or each cell at the rate that was found for it.
    """

    power_cap_w: float | None
    heat: str
    workload: str
    scaling: str
    rate: float | None = None

    @property
    def label(self):
        rate = "" if self.rate is None else f" · {self.rate:g} requests/s per device"
        return self.standing + rate

    @property
    def standing(self):
        """Its label without the rate."""
        cap = "own limit" if self.power_cap_w is None else f"{self.power_cap_w:g} W"
        return f"{cap} · {self.heat}" + (" · weak scaling" if self.scaling == "weak" else "")

    @property
    def factors(self):
        rate = {} if self.rate is None else {"rate": self.rate}
        return {"power_cap_w": self.power_cap_w, "heat": self.heat, "workload": self.workload, "scaling": self.scaling,
                **rate}

    @property
    def at_any_rate(self):
        """The condition without its rate, which the devices don't know."""
        return replace(self, rate=None)


def nouns(study):
    """What a study's devices are called, in the plural."""
    return {"cuda": "GPUs", "model": "modelled GPUs", "cpu": "CPU cores"}.get(study.device, "devices")


def condition_of(phase):
    return Condition(phase.power_cap_w, phase.heat, phase.workload, phase.scaling, phase.rate)


def conditions(phases):
    """The conditions of these phases: strong scaling first, then by heat, caps falling, rates rising."""
    def place(condition):
        cap = np.inf if condition.power_cap_w is None else condition.power_cap_w
        return condition.scaling, condition.workload, condition.heat, -cap, condition.rate or 0.0
    return sorted({condition_of(phase) for phase in phases}, key=place)


def sizes(phases):
    return sorted({phase.devices for phase in phases})


def shown_sizes(phases, most=5):
    """Fleet sizes that a figure with panels per size shows: all, or of more than `most` the first, the last and an even
    choice between; and the sentence that says so."""
    every = sizes(phases)
    if len(every) <= most:
        return every, ""
    places = np.unique(np.linspace(0, len(every) - 1, most).round().astype(int))
    return [every[place] for place in places], f" Of {len(every)} fleet sizes {len(places)} are shown."


def policies(study, phases):
    """Policies of these phases in the study file's order; others behind."""
    listed = study.config.get("placement", {}).get("policies", [])
    there = {phase.policy for phase in phases}
    return [policy for policy in listed if policy in there] + sorted(there - set(listed))


def measured(study):
    """The phases with layer calls that are the study's own cells (not those that split causes)."""
    return [phase for phase in study.phases if phase.natural and phase.layer_ns.size]


def select(phases, condition=None, devices=None, policy=None):
    return [phase for phase in phases
            if (condition is None or condition_of(phase) == condition)
            and (devices is None or phase.devices == devices) and (policy is None or phase.policy == policy)]


def cells(study, phases):
    """(condition, devices, policy, its repeats) of every cell that is there, in a table's order."""
    for condition in conditions(phases):
        for devices in sizes(select(phases, condition)):
            here = select(phases, condition, devices)
            for policy in policies(study, here):
                yield condition, devices, policy, select(here, policy=policy)


def interval(estimate):
    """An Estimate as part of a row of numbers."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n,
            "interval": estimate.method}


def other_devices(repeats):
    """Whether a cell's repeats ran on different devices of a pool."""
    first, *others = repeats
    return any(not np.array_equal(first.device_rows, phase.device_rows) for phase in others)


def ratio_interval(repeats, numerator, denominator):
    """Σ of a series over Σ of another, [S, L] of each repeat, with a 95 % interval for what the repeats stand for.

    Repeats on the same devices: their steps vary, and the interval is of these devices. Repeats on other devices of a
    pool: the repeats vary, and it is of the pool (a ratio estimator's, Student's t with a repeat as unit; Cochran,
    Sampling Techniques, 6.3).
    """
    if not other_devices(repeats):
        return intervals.interval_of(intervals.ratio_of(numerator, denominator))
    top, bottom = (np.array([float(part.sum()) for part in parts]) for parts in (numerator, denominator))
    value, count = float(top.sum() / bottom.sum()), len(repeats)
    if count < FEWEST_REPEATS:
        return intervals.Estimate(value, None, None, count, intervals.NOT_SUPPORTED)
    error = float(np.std((top - value * bottom) / bottom.mean(), ddof=1)) / np.sqrt(count)
    half = intervals.student(count - 1, 0.05) * error
    return intervals.Estimate(value, value - half, value + half, count, f"{count} repeats on other devices")


def layer_quantile(repeats, p):
    """Quantile p (a Fraction, nearest rank) of a cell's layer times over its repeats, ns, with a 95 % interval."""
    series = [phase.layer_ns.astype(float) for phase in repeats]
    if not other_devices(repeats):
        return intervals.quantile_series(series, p)

    def pooled(kept):
        ordered = np.sort(np.concatenate([series[i].ravel() for i in kept]))
        return float(ordered[intervals.nearest_rank(p, ordered.size) - 1])
    return _jackknife(len(repeats), pooled)


def layer_change(base, repeats, statistic="mean"):
    """Relative difference of the mean or median layer time from a base cell's, with a 95 % interval.

    Paired by steps where both took the same, which requests never see to; by repeats where those have other devices of
    a pool.
    """
    series = [[phase.layer_ns.astype(float) for phase in part] for part in (base, repeats)]
    same = [[(phase.repeat, phase.first_step, phase.steps) for phase in part] for part in (base, repeats)]
    if not other_devices(repeats):
        return intervals.relative_difference(*series, statistic=statistic,
                                             paired=same[0] == same[1] and not repeats[0].serves)

    def change(kept):
        before, after = (intervals.linear([part[i] for i in kept], statistic).value for part in series)
        return after / before - 1
    if [phase.repeat for phase in base] != [phase.repeat for phase in repeats]:
        value = intervals.relative_difference(*series, statistic=statistic).value
        return intervals.Estimate(value, None, None, len(repeats), intervals.NOT_SUPPORTED)
    return _jackknife(len(repeats), change)


def comparable(base, repeats):
    """Whether two cells' layer times can be set against each other: not where each had a request rate of its own."""
    return {phase.offered_rate for phase in base} == {phase.offered_rate for phase in repeats}


def _jackknife(count, statistic):
    """A statistic of repeats 0 .. count - 1, with Student's t interval from leaving out each once (Efron and
    Tibshirani, An Introduction to the Bootstrap, 11)."""
    every = list(range(count))
    value = statistic(every)
    if count < FEWEST_REPEATS:
        return intervals.Estimate(value, None, None, count, intervals.NOT_SUPPORTED)
    left = np.array([statistic(every[:i] + every[i + 1:]) for i in every])
    error = float(np.sqrt((count - 1) / count * ((left - left.mean()) ** 2).sum()))
    half = intervals.student(count - 1, 0.05) * error
    return intervals.Estimate(value, value - half, value + half, count, f"{count} repeats on other devices")


def ends(estimate, scale=1.0):
    """(low, high) of an Estimate, scaled; (None, None) where it has no interval."""
    return tuple(None if end is None else scale * end for end in (estimate.low, estimate.high))


def shifted(estimate, by, scale=1.0):
    """scale x estimate + by, with its interval."""
    ends = (None if end is None else scale * end + by for end in (estimate.low, estimate.high))
    return intervals.Estimate(scale * estimate.value + by, *ends, estimate.n, estimate.method)


def tax_interval(repeats):
    """The straggler tax of a cell over its repeats: a ratio of sums."""
    found = ratio_interval(repeats, [phase.layer_ns for phase in repeats], [phase.busy_sum_ns for phase in repeats])
    return shifted(found, -1.0, repeats[0].devices)


def idle_interval(repeats):
    """Idle share of all device time, over a cell's repeats."""
    return ratio_interval(repeats, [phase.wait_sum_ns for phase in repeats],
                          [phase.layer_ns * phase.devices for phase in repeats])


def expert_sum_ns(phase):
    """Σ over devices of expert time, [S, L] f8; None where neither timelines nor sums per device were kept.

    Without timelines the phase's total is dealt over its layer calls by their tokens: the sum is exact.
    """
    if phase.has_timelines:
        return phase.array("expert_ns").sum(axis=0, dtype=np.int64).astype(float)
    total, tokens = phase.device_sum("expert_sum_ns"), phase.tokens_sum
    return None if total is None or not tokens.sum() else tokens * (float(total.sum()) / float(tokens.sum()))


@dataclass(frozen=True)
class FleetTimes:
    """Each known device's time for the same work under one condition.

    rows [K] rows of /fleet; relative [K]: time ÷ the median of its phase's devices; time_us [K]; interval [2, K]: of
    relative, as measured, NaN for computed times; tokens: the work; phases: where they were read; state: by name of a
    sensor, [K].
    """

    condition: Condition
    devices: int
    rows: np.ndarray
    time_us: np.ndarray
    relative: np.ndarray
    interval: np.ndarray
    tokens: float
    phases: list
    state: dict


def fleet_times(study, condition):
    """FleetTimes of a condition, at any rate: of the fleet size that shows most devices, each device as its first phase
    has it.

    Speed models at the tokens that every device would get if all got alike. Phases of an equal fleet do not count.
    None where no phase has a speed model.
    """
    return _fleet_times(study, condition.at_any_rate)


@functools.lru_cache(maxsize=64)
def _fleet_times(study, condition):
    best = None
    phases = [phase for phase in study.phases if not phase.equal_fleet and condition_of(phase).at_any_rate == condition
              and phase.has("speed_model/tokens") and phase.tokens_sum.size]
    for devices in sizes(phases):
        found = _first_seen(select(phases, devices=devices))
        if found is not None and (best is None or len(found[0]) >= len(best.rows)):
            best = FleetTimes(condition, devices, *found)
    return best


def fleets(study):
    """FleetTimes of every cap, heat and workload that has them. Weak and strong scaling have the same devices: of both,
    strong scaling's are taken."""
    found = {}
    for condition in conditions(study.phases):
        key = condition.power_cap_w, condition.heat, condition.workload
        fleet = None if key in found else fleet_times(study, condition)
        if fleet is not None:
            found[key] = fleet
    return list(found.values())


def _first_seen(phases):
    seen, parts = None, []
    for phase in phases:
        rows = phase.device_rows
        fresh = np.ones(len(rows), bool) if seen is None else ~np.isin(rows, seen)
        if not fresh.any():
            continue
        try:
            if not phase.array("speed_model/tokens").shape[1]:
                continue
        except StudyError:
            continue
        times = phase.reference_time_us(phase.reference_tokens)
        state = {name: _or_nan(phase.telemetry(name), fresh)
                 for name in ("sm_clock_mhz", "temperature_c", "power_w")}
        interval = phase.reference_interval_us(phase.reference_tokens) / np.median(times)
        parts.append((rows[fresh], times[fresh], (times / np.median(times))[fresh], phase, state, interval[:, fresh]))
        seen = rows if seen is None else np.concatenate([seen, rows[fresh]])
    if not parts:
        return None
    joined = [np.concatenate([part[i] for part in parts]) for i in range(3)]
    state = {name: np.concatenate([part[4][name] for part in parts]) for name in parts[0][4]}
    return (*joined, np.concatenate([part[5] for part in parts], axis=1), parts[0][3].reference_tokens, [part[3] for part in parts], state)


def _or_nan(values, fresh):
    return np.full(int(fresh.sum()), np.nan) if values is None else np.asarray(values, float)[fresh]


def outliers(relative):
    """Which devices are slower than median + OUTLIER_MADS x scaled MAD, slowest first; and that limit."""
    median = float(np.median(relative))
    limit = median + OUTLIER_MADS * MAD_SCALE * float(np.median(np.abs(relative - median)))
    # equal devices have no spread, and rounding is no difference
    found = np.flatnonzero((relative > limit) & (relative > median * (1 + 1e-9)))
    return found[np.argsort(-relative[found], kind="stable")], limit


def cv(values):
    """Coefficient of variation, sample standard deviation ÷ mean."""
    return float(values.std(ddof=1) / values.mean()) if values.size > 1 else 0.0
