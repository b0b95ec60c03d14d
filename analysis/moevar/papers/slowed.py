"""One GPU slows while requests are served: is it named, and what is adapting worth against keeping placements."""

import re
from dataclasses import dataclass

from moevar.intervals import Estimate
from moevar.papers import estimates
from moevar.papers.runs import NotRun
from moevar.papers.verdicts import FAILS, HOLDS, IN_PART, Claim, Direction, Measure

HOW = ("failing", "capped", "hot-aisle")
RECOMPUTE = ("once", "on-drift")
NAMED = re.compile(r"residual: (?:\d+ devices, )?device (\d+) ")


def run_name(how, recompute):
    return f"slowed-{how}-{recompute}"


def named_device(serving):
    """The device that the first rearrangement after the first change gives as its reason; None where there is none."""
    since = serving["changes"][0]["at_s"]
    reasons = [move["because"] for move in serving["rearrangements"] if move["at_s"] >= since]
    found = NAMED.search(reasons[0]) if reasons else None
    return int(found.group(1)) if found else None


def named(how):
    def measure(runs):
        name = run_name(how, "on-drift")
        run = runs.get(name)
        device = run.config["serving"]["disturbed_device"]
        served = [cell["serving"] for cell in run.cells]
        right = estimates.proportion([named_device(serving) == device for serving in served])
        delays = [serving["changes"][0]["noticed_after_s"] for serving in served]
        made = [
            Measure(f"{how}: share of runs that name it first", "–", right, Direction(1, null=0.5), "number", (name,))
        ]
        if any(delay is not None for delay in delays):
            delay = estimates.over([delay for delay in delays if delay is not None])
            made.append(Measure(f"{how}: seconds until then", "–", delay, None, "number", (name,)))
        return made

    return measure


@dataclass(frozen=True)
class Row:
    how: str
    policy: str
    kept: Estimate  # share of requests within limits, placements kept
    adapted: Estimate  # the same, solved anew on drift
    moved: Estimate  # experts a layer
    stopped_ms: Estimate  # steps stood still for moves
    tax_end: Estimate  # straggler tax at the end, solved anew


def rows(runs):
    every = []
    for how in HOW:
        try:
            once, drift = (runs.get(run_name(how, recompute)) for recompute in RECOMPUTE)
        except NotRun:
            continue
        every += [_row(how, policy, once, drift) for policy in drift.policies()]
    return every


def _row(how, policy, once, drift):
    def served(run):
        return [cell["serving"] for cell in run.by_repeat(policy).values()]

    layers = drift.config["model"]["layers"]
    kept, adapted = ([serving["slo_attainment"] for serving in served(run)] for run in (once, drift))
    changes = [serving["changes"][0] for serving in served(drift)]
    return Row(
        how,
        policy,
        estimates.share(kept),
        estimates.share(adapted),
        estimates.over([change["moved_experts"] / layers for change in changes]),
        estimates.over([change["stopped_ms"] for change in changes]),
        estimates.over([change["tax_end"] for change in changes]),
    )


WHY = {
    HOLDS: (
        "A device that takes longer than its speed model says is named by the ratio of the two, whatever tokens it has."
    ),
    IN_PART: (
        "A device that takes longer than its speed model says is named by the ratio of the two, where it exceeds the"
        " detector's 5 %. Warmer air costs a modelled GPU less than that, and nothing fires."
    ),
    FAILS: "What these GPUs lost was within the detector's 5 %, or something else fired first.",
}
CLAIMS = (
    Claim(
        "F1",
        "A GPU that is slow but alive can be named",
        "an opening: no source claims it",
        "a device of one node slows while requests are served; ViBE's detector with moevar's residual test beside it;"
        " all policies' runs",
        tuple(named(how) for how in HOW),
        WHY,
    ),
)
