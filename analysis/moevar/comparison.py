"""Two runs compared, cell by cell and GPU by GPU: how much slower is B than A, and is that more than chance?

A cell is a combination of factors; its repeats are taken together. What decides is the mean layer time, the cost of a
step; the median and the straggler tax stand beside it. Where both ran the same steps (same study, same first step)
step s of A is paired with step s of B, so that the workload cancels; else the runs are independent. Errors are those
of autocorrelated steps (moevar.intervals). Where three or more repeats disagree by more than their steps explain (F
test of the two variances, 10 %), the repeats are the unit.

Many cells give many chances to be wrong, so verdicts hold jointly: by Holm's method (Scand. J. Statistics 6, 1979) the
probability of any wrong verdict over all cells of a comparison is at most ALPHA. Intervals are of each cell by itself.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from moevar import intervals
from moevar.intervals import Estimate, Linear
from scipy import stats

ALPHA = 0.05
DISAGREEMENT = 0.1
MIN_PHASES = 3  # of a GPU, for an interval of its change
FACTORS = ("devices", "power_cap_w", "heat", "workload", "policy", "scaling", "experts", "even_load", "equal_fleet")


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
    """cells and devices of both; same_devices: some UUID is in both fleets (that of a GPU, or of what stands in for
    one); only_a, only_b: factors of the cells that the other run lacks."""

    cells: list[Cell]
    devices: list[Device]
    same_devices: bool
    only_a: list[dict] = field(default_factory=list)
    only_b: list[dict] = field(default_factory=list)

    @property
    def slower(self) -> bool:
        return any(cell.verdict == "slower" for cell in self.cells)


def compare(a, b, threshold: float = 0.0) -> Comparison:
    """Compares two StudyFiles. threshold: relative change of the mean up to which B counts as equal (0.005 is 0.5
    %)."""
    cells_a, cells_b = _cells(a), _cells(b)
    same_study = a.sha256 == b.sha256
    cells = [_compare_cell(dict(zip(FACTORS, key)), cells_a[key], cells_b[key], same_study, threshold)
             for key in sorted(set(cells_a) & set(cells_b), key=_in_order(a))]
    give_verdicts(cells, [cell.mean for cell in cells], threshold)
    same_devices = bool(set(a.fleet.get("uuid", ())) & set(b.fleet.get("uuid", ())))
    return Comparison(cells, compare_devices(a, b, threshold), same_devices,
                      [dict(zip(FACTORS, key)) for key in cells_a if key not in cells_b],
                      [dict(zip(FACTORS, key)) for key in cells_b if key not in cells_a])


def _cells(study) -> dict[tuple, dict]:
    """{factors: {repeat: phase}} of the phases that have layer calls."""
    cells = {}
    for phase in study.phases:
        if not phase.layer_ns.any():
            continue
        cells.setdefault(tuple(getattr(phase, name) for name in FACTORS), {})[phase.repeat] = phase
    return cells


def _in_order(study):
    """Sorting key of cells: fleet size, caps falling, then the rest; policies as the study lists them."""
    policies = study.config.get("placement", {}).get("policies", [])

    def order(key):
        factors = dict(zip(FACTORS, key))
        cap = factors["power_cap_w"]
        rest = [str(factors[name]) for name in ("heat", "workload", "scaling", "experts", "even_load", "equal_fleet")]
        policy = factors["policy"]
        place = policies.index(policy) if policy in policies else len(policies)
        return factors["devices"], -math.inf if cap is None else -cap, *rest, place, policy

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


def steps_or_repeats(influence, segments) -> tuple[float, float]:
    """Standard error of a mean of influences [S] and its degrees of freedom: from the steps, or, where three or more
    segments (repeats) differ by more than that, or are too short for it, from the segments' sums."""
    error, freedom = intervals.long_run_error(influence, segments)
    count = len(segments)
    if count < 3:
        return error, freedom
    starts = np.cumsum([0, *segments[:-1]])
    sums = np.add.reduceat(influence, starts) * (count / influence.size)
    between = float(sums.std(ddof=1)) / math.sqrt(count)
    # identical runs differ by rounding alone: less than the last digits of a sum
    if between <= 1e-14:
        return error, freedom
    steps_say = 0.0 if freedom <= 0 or error == 0 else stats.f.sf((between / error) ** 2, count - 1, min(freedom, 1e9))
    return (error, freedom) if steps_say >= DISAGREEMENT else (between, count - 1)


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


# --- GPU by GPU ---------------------------------------------------------------------------------------------------


def compare_devices(a, b, threshold: float = 0.0) -> list[Device]:
    """GPUs that both runs have, most slowed first. A phase of both gives each GPU one ratio of expert time per token;
    a GPU's change is their geometric mean, with Student's t interval over three phases or more. Verdicts hold jointly
    (Holm).

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
        if _phase_key(phase) in other:
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
    return (*(getattr(phase, name) for name in FACTORS), phase.repeat)


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
