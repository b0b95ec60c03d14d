"""Two runs compared, cell by cell and GPU by GPU: how much slower is B than A, and is that more than chance?

A cell is a combination of factors; its repeats are taken together. What decides is the mean layer time, the cost of a
step; the median and the straggler tax stand beside it. Where both ran the same steps (same study, same first step)
step s of A is paired with step s of B, so that the workload cancels; else the runs are independent. Errors are those
of autocorrelated steps (moevar.intervals). Where three or more repeats disagree by more than their steps explain (F
test of the two variances, 10 %), the repeats are the unit.

Of phases that serve requests what decides is the mean time to first token, or the highest rate that was found
(moevar.request_comparison): their steps, and so their layer times, are not each other's.

Many cells give many chances to be wrong, so verdicts hold jointly: by Holm's method (Scand. J. Statistics 6, 1979) the
probability of any wrong verdict over all cells of a comparison is at most ALPHA. Intervals are of each cell by itself.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from moevar import intervals, request_comparison
from moevar.intervals import Estimate, Linear
from moevar.verdicts import ALPHA, give_verdicts, p_value, steps_or_repeats
from scipy import stats

MIN_PHASES = 3  # of a GPU, for an interval of its change
FACTORS = ("devices", "power_cap_w", "heat", "workload", "policy", "scaling", "experts", "even_load", "equal_fleet",
           "rate")
FOUND = "found"     # in place of a rate that each phase's search has found


@dataclass
class Cell:
    """A cell of both runs. Times in µs; changes relative (0.01 is 1 %), of the tax absolute. p and p_holm are None
    where the sample supports no verdict; verdict: slower, faster, same (identical), no difference shown, or not
    supported by n."""

    factors: dict
    paired: bool
    repeats: tuple[int, int]
    mean_us: tuple[float, float]
    mean: Estimate
    median: Estimate
    tax_values: tuple[float, float]
    tax: Estimate
    p: float | None
    p_holm: float | None = None
    verdict: str = ""


@dataclass
class Device:
    """A GPU of both runs, by UUID: change of its expert time per token, over the phases that both ran."""

    uuid: str
    name: str
    phases: int
    change: Estimate
    p: float | None
    p_holm: float | None = None
    verdict: str = ""


@dataclass
class Comparison:
    """cells, of layers, of requests and of rates that were searched, and devices of both; same_devices: some UUID is in
    both fleets (that of a GPU, or of what stands in for one); only_a, only_b: factors of the cells that the other run
    lacks."""

    cells: list[Cell]
    requests: list[request_comparison.RequestCell]
    rates: list[request_comparison.RateCell]
    devices: list[Device]
    same_devices: bool
    only_a: list[dict] = field(default_factory=list)
    only_b: list[dict] = field(default_factory=list)

    @property
    def slower(self) -> bool:
        return any(cell.verdict == "slower" for cell in self.every_cell)

    @property
    def every_cell(self) -> list:
        return [*self.cells, *self.requests, *self.rates]


def compare(a, b, threshold: float = 0.0) -> Comparison:
    """Compares two StudyFiles. threshold: relative change of the mean up to which B counts as equal (0.005 is 0.5
    %)."""
    cells_a, cells_b = _cells(a), _cells(b)
    same_study = a.sha256 == b.sha256
    cells, requests, rates = [], [], []
    for key in sorted(set(cells_a) & set(cells_b), key=_in_order(a)):
        factors, repeats = dict(zip(FACTORS, key)), (cells_a[key], cells_b[key])
        if factors["rate"] is None:
            cells.append(_compare_cell(factors, *repeats, same_study, threshold))
        elif factors["rate"] == FOUND:
            rates.append(request_comparison.compare_rates(factors, (a, b), repeats, threshold))
        else:
            requests.append(request_comparison.compare_requests(factors, (a, b), repeats, threshold))
    give_verdicts([*cells, *requests, *rates], [*(cell.mean for cell in (*cells, *requests)),
                                                *(cell.slowdown for cell in rates)], threshold)
    same_devices = bool(set(a.fleet.get("uuid", ())) & set(b.fleet.get("uuid", ())))
    return Comparison(cells, requests, rates, compare_devices(a, b, threshold), same_devices,
                      [dict(zip(FACTORS, key)) for key in cells_a if key not in cells_b],
                      [dict(zip(FACTORS, key)) for key in cells_b if key not in cells_a])


def _cells(study) -> dict[tuple, dict]:
    """{factors: {repeat: phase}} of the phases that have layer calls."""
    cells = {}
    for phase in study.phases:
        if not phase.layer_ns.any():
            continue
        cells.setdefault(_key(phase), {})[phase.repeat] = phase
    return cells


def _key(phase) -> tuple:
    """FACTORS of a phase."""
    found = phase.serves and phase.rate is None
    return tuple(FOUND if name == "rate" and found else getattr(phase, name) for name in FACTORS)


def _in_order(study):
    """Sorting key of cells: fleet size, caps falling, then the rest; policies as the study lists them."""
    policies = study.config.get("placement", {}).get("policies", [])

    def order(key):
        factors = dict(zip(FACTORS, key))
        cap = factors["power_cap_w"]
        rest = [str(factors[name]) for name in ("heat", "workload", "scaling", "experts", "even_load", "equal_fleet")]
        policy = factors["policy"]
        place = policies.index(policy) if policy in policies else len(policies)
        rate = factors["rate"] if isinstance(factors["rate"], float) else -math.inf
        return factors["devices"], -math.inf if cap is None else -cap, *rest, rate, place, policy

    return order


def _compare_cell(factors, repeats_a, repeats_b, same_study, threshold) -> Cell:
    common = sorted(set(repeats_a) & set(repeats_b))
    paired = same_study and bool(common) and all(
        repeats_a[r].first_step == repeats_b[r].first_step
        and repeats_a[r].layer_ns.shape == repeats_b[r].layer_ns.shape for r in common)
    phases = ([repeats[r] for r in (common if paired else sorted(repeats))] for repeats in (repeats_a, repeats_b))
    (layer_a, busy_a), (layer_b, busy_b) = (
        ([np.asarray(phase.layer_ns, dtype=float) for phase in part],
         [np.asarray(phase.busy_sum_ns, dtype=float) for phase in part]) for part in phases)
    means = [intervals.mean_of(part) for part in (layer_a, layer_b)]
    taxes = [intervals.tax_of(layer, busy, factors["devices"])
             for layer, busy in ((layer_a, busy_a), (layer_b, busy_b))]
    mean, error, freedom = intervals.interval_of_difference(*means, paired=paired, error_of=steps_or_repeats)
    median, _, _ = intervals.interval_of_difference(
        *(intervals.quantile_of(part, intervals.MEDIAN) for part in (layer_a, layer_b)), paired=paired,
        error_of=steps_or_repeats)
    return Cell(factors, paired, (len(layer_a), len(layer_b)), tuple(part.value / 1e3 for part in means), mean, median,
                tuple(part.value for part in taxes), _tax_difference(*taxes, paired),
                p_value(mean.value, error, freedom, threshold))


def _tax_difference(a: Linear, b: Linear, paired: bool) -> Estimate:
    if paired:
        difference = b - a
        error, freedom = steps_or_repeats(difference.influence, difference.segments)
    else:
        error, freedom = intervals.combined_error([steps_or_repeats(part.influence, part.segments) for part in (a, b)])
    return intervals.around(b.value - a.value, error, freedom, min(a.n, b.n), "steps")


# --- GPU by GPU ---------------------------------------------------------------------------------------------------


def compare_devices(a, b, threshold: float = 0.0) -> list[Device]:
    """GPUs that both runs have, most slowed first, over phases of steps alike: not those that serve requests. A phase
    of both gives each GPU one ratio of expert time per token; a GPU's change is their geometric mean, with Student's t
    interval over three phases or more. Verdicts hold jointly (Holm).

    Tokens may be placed otherwise in B; where time does not grow with tokens (few tokens an expert), that moves the
    ratio.
    """
    if not {"uuid", "name"} <= set(a.fleet) & set(b.fleet):
        return []
    uuids = a.fleet["uuid"].to_numpy()
    row_in_a = {uuid: row for row, uuid in enumerate(uuids)}
    a_row_of_b = np.array([row_in_a.get(uuid, -1) for uuid in b.fleet["uuid"]], dtype=int)
    sums, squares, counts = np.zeros(len(uuids)), np.zeros(len(uuids)), np.zeros(len(uuids), dtype=int)
    other = {_phase_key(phase): phase for phase in b.phases}
    for phase in a.phases:
        if _phase_key(phase) in other and not phase.serves:
            rows, logs = _device_changes(phase, other[_phase_key(phase)], a_row_of_b, len(uuids))
            sums[rows] += logs
            squares[rows] += logs**2
            counts[rows] += 1
    return _devices(a.fleet, sums, squares, counts, threshold)


def _devices(fleet, sums, squares, counts, threshold) -> list[Device]:
    """From each GPU's sum, sum of squares and number of log ratios [F]."""
    rows = np.flatnonzero(counts)
    n = counts[rows]
    mean, degrees = sums[rows] / n, np.maximum(n - 1, 1)
    error = np.sqrt(np.maximum(squares[rows] / n - mean**2, 0) / degrees)
    error[error <= 1e-9] = 0.0  # what subtracting squares leaves of equal ratios
    half = stats.t.ppf(1 - ALPHA / 2, degrees) * error
    beyond = np.abs(mean) - math.log1p(threshold)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(beyond <= 0, 1.0, np.where(error > 0, 2 * stats.t.sf(beyond / error, degrees), 0.0))
    values, low, high = np.expm1(mean), np.expm1(mean - half), np.expm1(mean + half)
    devices = []
    for i, row in enumerate(rows):
        ends = (float(low[i]), float(high[i]), int(n[i]), f"{n[i]} phases") if n[i] >= MIN_PHASES else \
            (None, None, int(n[i]), intervals.NOT_SUPPORTED)
        devices.append(Device(str(fleet["uuid"].iat[row]), str(fleet["name"].iat[row]), int(n[i]),
                              Estimate(float(values[i]), *ends), float(p[i]) if n[i] >= MIN_PHASES else None))
    give_verdicts(devices, [device.change for device in devices], threshold)
    return sorted(devices, key=lambda device: -device.change.value)


def _phase_key(phase) -> tuple:
    return (*_key(phase), phase.repeat)


def _device_changes(phase_a, phase_b, a_row_of_b, size) -> tuple[np.ndarray, np.ndarray]:
    """Rows of A's fleet that both phases ran on, and the log ratio of their expert times per token, B over A."""
    speeds = []
    for phase in (phase_a, phase_b):
        time, tokens = phase.device_sum("expert_sum_ns"), phase.device_sum("tokens_sum")
        if time is None or tokens is None:
            return np.array([], dtype=int), np.array([])
        with np.errstate(divide="ignore", invalid="ignore"):
            speeds.append(np.log(np.asarray(time, dtype=float) / np.asarray(tokens, dtype=float)))
    in_b = np.full(size, np.nan)
    listed = phase_b.device_rows < a_row_of_b.size  # a damaged fleet has fewer rows
    rows_b, speeds_b = a_row_of_b[phase_b.device_rows[listed]], speeds[1][listed]
    in_b[rows_b[rows_b >= 0]] = speeds_b[rows_b >= 0]
    listed = phase_a.device_rows < size
    rows = phase_a.device_rows[listed]
    logs = in_b[rows] - speeds[0][listed]
    known = np.isfinite(logs)
    return rows[known], logs[known]
