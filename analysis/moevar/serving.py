"""What requests saw, by rate and policy: the part `serving` of summary.json's cells, and the tables in study.h5.

Rates are requests/s per device, latencies ms, times of a run s since its start.
"""

import math
from dataclasses import dataclass

import numpy as np

from moevar import cells, intervals
from moevar.figures import NotCarried
from moevar.study import StudyError

QUANTILES = ("p50", "p90", "p99")
TAX_STEPS = 50      # over which `moevar run` averages the straggler tax to judge a change


@dataclass(frozen=True)
class Limits:
    """What a request must keep, ms (None: no limit), and the share of requests that serving.find_rate keeps within."""

    ttft_ms: float | None
    tpot_ms: float | None
    attainment: float

    @property
    def any(self):
        return self.ttft_ms is not None or self.tpot_ms is not None

    @property
    def label(self):
        named = (("TTFT", self.ttft_ms), ("TPOT", self.tpot_ms))
        return " and ".join(f"{name} ≤ {limit:g} ms" for name, limit in named if limit is not None) or "no limit"


def limits(study):
    config = study.config.get("serving", {})
    ttft, tpot = (float(config.get(f"slo_{name}_ms", 0)) or None for name in ("ttft", "tpot"))
    return Limits(ttft, tpot, float(config.get("attainment", 0.9)))


@dataclass(frozen=True)
class Served:
    """A phase that served requests, and what its cell in summary.json has under `serving`."""

    phase: object
    entry: dict

    def latency(self, name, quantile):
        """`ttft`, `tpot` or `e2e` at `p50`, `p90` or `p99`, ms; None where no answer has two tokens."""
        found = self.entry[f"{name}_ms"]
        return None if found is None else _estimate(found, quantile, found["n"])

    @property
    def attainment(self):
        return _estimate(self.entry, "slo_attainment", self.entry["requests"])

    @property
    def moves(self):
        """Rearrangements that moved experts."""
        return [move for move in self.entry["rearrangements"] if move["moved_experts"] > 0]


def _estimate(entry, name, n):
    low, high = entry[f"{name}_interval"] or (None, None)
    supported = low is not None or high is not None
    return intervals.Estimate(entry[name], low, high, n, "effective sample size" if supported else
                              intervals.NOT_SUPPORTED)


def served(study):
    """[Served] of a study's own cells. Raises NotCarried where none serves requests, StudyError where summary.json,
    which holds what became of them, lacks one."""
    phases = [phase for phase in cells.measured(study) if phase.serves]
    if not phases:
        raise NotCarried("No phase serves requests; serving.rates = [1.0, 2.0, 4.0] or serving.find_rate = true makes "
                         "phases do so.")
    entries = [(study.cell(phase) or {}).get("serving") for phase in phases]
    found = [Served(phase, entry) for phase, entry in zip(phases, entries) if entry]
    if not found:
        raise StudyError(f"{study.directory / 'summary.json'}: no cell has `serving`, which phases "
                         f"{phases[0].name} and on need; the summary.json of this run is needed")
    return found


def by_cell(study, found=None):
    """[(condition, devices, policy, [Served])], repeats together, in a table's order."""
    found = served(study) if found is None else found
    of_phase = {one.phase.index: one for one in found}
    return [(condition, devices, policy, [of_phase[phase.index] for phase in repeats])
            for condition, devices, policy, repeats in cells.cells(study, [one.phase for one in found])]


def panels(study):
    """{(condition without its rate, devices): {policy: [(rate, [Served])]}}, rates rising, of the sizes that are shown;
    and the caption's sentence about those."""
    found = served(study)
    sizes, note = cells.shown_sizes([one.phase for one in found])
    grouped = {}
    for condition, devices, policy, repeats in by_cell(study, found):
        if devices in sizes:
            here = grouped.setdefault((condition.at_any_rate, devices), {})
            here.setdefault(policy, []).append((condition.rate, repeats))
    return grouped, note


def over_repeats(estimates, other_devices=False, highest=math.inf):
    """The mean of repeats' values, in [0, highest], with a 95 % interval.

    One repeat: its own. Several on the same devices, which differ by their requests alone and are independent: from
    their own intervals (MOVER; Zou and Donner, Statistics in Medicine 27, 2008). Where one lacks those, or repeats have
    other devices of a pool: Student's t over cells.FEWEST_REPEATS or more.
    """
    if len(estimates) == 1:
        return estimates[0]
    values = np.array([estimate.value for estimate in estimates])
    value, n, count = float(values.mean()), sum(estimate.n for estimate in estimates), len(values)
    if not other_devices and all(estimate.supported for estimate in estimates):
        below, above = (math.sqrt(sum((estimate.value - end) ** 2 for estimate, end in zip(estimates, ends))) / count
                        for ends in zip(*((estimate.low, estimate.high) for estimate in estimates)))
        method = f"{count} repeats' own intervals"
    elif count >= cells.FEWEST_REPEATS:
        below = above = intervals.student(count - 1, 0.05) * float(values.std(ddof=1)) / math.sqrt(count)
        method = f"{count} repeats"
    else:
        return intervals.Estimate(value, None, None, n, intervals.NOT_SUPPORTED)
    return intervals.Estimate(value, max(value - below, 0.0), min(value + above, highest), n, method)


def latency(repeats, name, quantile):
    """Mean over repeats of a latency's quantile, ms; None where no answer has two tokens."""
    found = [one.latency(name, quantile) for one in repeats]
    return None if None in found else over_repeats(found, _other_devices(repeats))


def attainment(repeats):
    """Share of requests within the limits."""
    return over_repeats([one.attainment for one in repeats], _other_devices(repeats), 1.0)


def found_rate(repeats):
    """Mean of the rates that serving.find_rate found, Student's t over repeats; None where a repeat found none."""
    rates = [one.entry["max_rate"]["rate"] for one in repeats]
    if None in rates:
        return None
    bare = [intervals.Estimate(rate, None, None, 1, intervals.NOT_SUPPORTED) for rate in rates]
    return over_repeats(bare)


def _other_devices(repeats):
    return cells.other_devices([one.phase for one in repeats])


def mean(repeats, key):
    """Mean over repeats of a plain number of the entry, such as goodput_rps."""
    return float(np.mean([one.entry[key] for one in repeats]))


# --- the course of a run ------------------------------------------------------------------------------------------


def ttft_course(phase, window):
    """Arrival times, s, and the median TTFT, ms, of each request and the window - 1 that came before it; both [R -
    window + 1], or of all requests where there are fewer."""
    arrived = phase.array("serving/requests/intended_s")
    ttft_ms = 1e3 * (phase.array("serving/requests/first_token_s") - arrived)
    window = min(window, len(ttft_ms))
    rolling = np.median(np.lib.stride_tricks.sliding_window_view(ttft_ms, window), axis=1)
    return arrived[window - 1:], rolling


def tax_course(phase, window=TAX_STEPS):
    """Start times, s, and the straggler tax of each step and the window - 1 before it, up to the last arrival: steps
    become small once nobody comes."""
    start_s = phase.array("serving/steps/start_s")
    within = start_s <= phase.array("serving/requests/intended_s")[-1]
    layers, busy = (np.cumsum(np.concatenate([[0.0], part.sum(axis=1)[within]]))
                    for part in (phase.layer_ns, phase.busy_sum_ns))
    window = min(window, int(within.sum()))
    tax = phase.devices * (layers[window:] - layers[:-window]) / (busy[window:] - busy[:-window]) - 1
    return start_s[within][window - 1:], tax
