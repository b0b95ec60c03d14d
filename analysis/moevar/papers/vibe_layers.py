"""ViBE's claims about layers in lock-step: gaps, times, waits, moves, differing nodes, larger groups."""

import math

from moevar.papers import estimates, serving
from moevar.papers.vibe_kernels import LOADS, equal_tokens, of_nodes, spread
from moevar.papers.verdicts import FAILS, HOLDS, IN_PART, Claim, Direction, Figure, Measure

# arXiv 2606.00735, figure 15: median layer time over vLLM's (contiguous) of the same size; 80 measured curves.
PROJECTION = {
    "eplb": {8: 0.91, 16: 0.83, 32: 0.72, 64: 0.78, 128: 0.91},
    "vibe": {8: 0.87, 16: 0.78, 32: 0.67, 64: 0.71, 128: 0.85},
}
READING = 0.02  # 2 % of an axis that ends at about 1


def layer_mean(cell):
    return cell["layer_us"]["mean"]


def layer_median(cell):
    return cell["layer_us"]["median"]


def of_cells(run, policy, what, **factors):
    """{repeat: value}"""
    return {repeat: what(cell) for repeat, cell in run.by_repeat(policy, **factors).items()}


def of_phases(run, policy, what, **factors):
    return {repeat: what(phase) for repeat, phase in run.phases(policy, **factors).items()}


def slowest_experts(phase):
    """Mean over layer calls of the slowest device's expert time, ns: the layer without its exchange."""
    return float(phase.expert_max_ns.mean())


def waits(phase):
    return float(phase.wait_sum_ns.sum())


def gap(policy, base, paper, text):
    def of(run_name, loads):
        def measure(runs):
            run = runs.get(run_name)
            tops, bottoms = (of_cells(run, which, lambda cell: cell["gap_us"]["median"]) for which in (policy, base))
            return Measure(
                f"median gap, {policy} ÷ {base} ({loads})",
                text,
                estimates.ratio(tops, bottoms),
                Figure.of(paper, null=1),
                "ratio",
                (run_name,),
            )

        return measure

    return [of(*loads) for loads in LOADS]


def phase_change(name, what, policy, base, paper, text):
    """A change of what(phase) from base to policy, under each of the loads."""

    def of(run_name, loads):
        def measure(runs):
            run = runs.get(run_name)
            change = estimates.change(of_phases(run, policy, what), of_phases(run, base, what))
            rule = None if paper is None else Figure.of(paper)
            return Measure(f"{name}, {policy} against {base} ({loads})", text, change, rule, runs=(run_name,))

        return measure

    return [of(*loads) for loads in LOADS]


def layer_time(phase):
    return float(phase.layer_ns.mean())


def busy_time(phase):
    """Mean over devices of their expert time: the work itself, which no placement changes much."""
    return float(phase.device_sum("expert_sum_ns").mean())


def swaps(runs):
    run = runs.get("vibe-swaps")
    layers = run.config["model"]["layers"]
    fired = [cell["moved_experts"] / 2 / layers for cell in run.cells if cell["solved_because"].startswith("cosine")]
    if not fired:
        return []
    return Measure(
        "swaps a layer when the detector fires (two experts each)",
        "5 to 30",
        estimates.over(fired),
        Figure(5, 30),
        "number",
        ("vibe-swaps",),
    )


def solved_anew(runs):
    run = runs.get("vibe-anew")
    layers = run.config["model"]["layers"]
    moved = [cell["moved_experts"] / layers for cell in run.cells if cell["repeat"] > 0]
    return Measure(
        "experts a layer that change device when solved anew",
        "more than 200 of 256",
        estimates.over(moved),
        Figure(200, 256),
        "number",
        ("vibe-anew",),
    )


NODES = (("vibe-node-b", "node B", "2.8 %"), ("vibe-node-a-skewed", "node A′", "12.5 %"))


def node_spreads(runs):
    return [
        Measure(
            f"{node}: spread of the nodes drawn (an input)",
            f"{paper}, the target",
            of_nodes(runs.get(name), lambda phase: float(spread(equal_tokens(phase)))),
            runs=(name,),
        )
        for name, node, paper in NODES
    ]


def node_gain(name, node):
    def measure(runs):
        run = runs.get(name)
        gain = estimates.change(of_cells(run, "vibe", layer_mean), of_cells(run, "eplb", layer_mean))
        return Measure(
            f"{node}: layer time, vibe against eplb", "a benefit, no number", gain, Direction(-1), runs=(name,)
        )

    return measure


def larger_gain(runs):
    """Relative gains differ as log times do, to first order; nodes of one number are the same draw in both runs."""
    gains = []
    for name, *_ in NODES:
        run = runs.get(name)
        vibe, eplb = (of_cells(run, policy, layer_mean) for policy in ("vibe", "eplb"))
        gains.append({repeat: vibe[repeat] / eplb[repeat] - 1 for repeat in vibe if repeat in eplb})
    return Measure(
        "change on A′ − change on B",
        "more on A′",
        estimates.difference(gains[1], gains[0]),
        Direction(-1),
        runs=tuple(name for name, *_ in NODES),
    )


def projected(devices, policy, base, paper, reading):
    def measure(runs):
        run = runs.get("vibe-scale")
        ratio = estimates.ratio(
            of_cells(run, policy, layer_median, devices=devices), of_cells(run, base, layer_median, devices=devices)
        )
        name = f"{devices} devices: median layer time, {policy} ÷ {base}"
        rule = Figure.of(paper, null=1, reading=reading)
        return Measure(name, f"{paper:.2f}", ratio, rule, "ratio", ("vibe-scale",))

    return measure


def best_range(small, large, text):
    """vibe ÷ contiguous at the range's edge less that beyond it, per fleet."""

    def measure(runs):
        run = runs.get("vibe-scale")
        ratios = []
        for devices in (small, large):
            vibe, base = (of_cells(run, policy, layer_median, devices=devices) for policy in ("vibe", "contiguous"))
            ratios.append({repeat: vibe[repeat] / base[repeat] for repeat in vibe if repeat in base})
        return Measure(
            f"vibe ÷ contiguous on {large} devices less that on {small}",
            text,
            estimates.difference(ratios[1], ratios[0]),
            Direction(1 if large > 32 else -1),
            "ratio",
            ("vibe-scale",),
        )

    return measure


def projection():
    vibe, eplb = PROJECTION["vibe"], PROJECTION["eplb"]
    return (
        best_range(8, 16, "below 0: 16 is better"),
        best_range(32, 128, "above 0: 128 is worse"),
        *[projected(n, "vibe", "contiguous", vibe[n], READING) for n in vibe],
        *[projected(n, "vibe", "eplb", vibe[n] / eplb[n], math.sqrt(2) * READING) for n in vibe],
    )


MORE_THAN_SPREAD = (
    "The paper's figure exceeds what a spread of 7 % can give once mean loads are balanced: a layer "
    "waits for a device that is 7 % slow, no more. Bursts of routing and queueing of requests must be "
    "in it, and both are left out of a closed loop over layers."
)
V5_WHY = {
    HOLDS: "Balanced tokens close most of the gap, speeds some of the rest.",
    IN_PART: (
        "Balanced tokens close most of the gap and speeds more of it, in the paper's order. How much is left "
        "depends on how skewed and how steady the loads are: steps here are drawn around a popularity that the "
        "solver knows well, so less is left than after a profile of real requests."
    ),
    FAILS: "Steps here are drawn around a popularity that the solver knows well; less is left than in serving.",
}
V6_WHY = {
    HOLDS: "Skew is most of what experts in order pay for.",
    IN_PART: (
        "Against experts in order the gain is that of balancing, and as large as the loads are skewed. Against eplb: "
        + MORE_THAN_SPREAD
    ),
    FAILS: MORE_THAN_SPREAD,
}
V7_WHY = {
    HOLDS: "Waiting for the slowest is what speeds are for.",
    IN_PART: "Waiting is cut about as the paper says, or more. The layer's time is not: " + MORE_THAN_SPREAD,
    FAILS: MORE_THAN_SPREAD,
}
V12_WHY = {
    HOLDS: (
        "An old placement needs little to fit drifted loads; a greedy solved anew shares hardly anything with the "
        "old one."
    ),
    IN_PART: (
        "A greedy solved anew shares hardly anything with the old placement; how many swaps an update takes "
        "depends on how far popularity had drifted when the detector fired, and its tolerance of 3 % stops it "
        "early."
    ),
    FAILS: "How many experts move depends on how far popularity had drifted, which no source gives.",
}
V14_WHY = {
    HOLDS: "The more GPUs differ, the more there is for a placement that knows it.",
    IN_PART: (
        "The more GPUs differ, the more there is for a placement that knows it. Where they hardly do, vibe's "
        "greedy packs no better than eplb's, and coarser where speeds ask for unequal tokens."
    ),
    FAILS: "Where GPUs hardly differ vibe packs no better than eplb.",
}
V15_WHY = {
    HOLDS: "The shape is that of the hottest expert: from some size on it decides alone.",
    IN_PART: (
        "The shape is the paper's: most is gained at 16 to 32 devices, and less from there, for without replicas "
        "the hottest expert decides. Levels differ with loads and machine, and the layer here includes the "
        "exchange, which ends with whoever holds most tokens and which speeds do not change."
    ),
    FAILS: "The layer here includes the exchange, loads are drawn instead of recorded, and GPUs are not duplicated.",
}

CLAIMS = (
    Claim(
        "V5",
        "Median gap between slowest and fastest device: 1, 0.36, 0.29 for vLLM, EPLB, ViBE",
        "ViBE, figure 10a",
        "every layer call of prefill steps in a closed loop; ratios of medians",
        tuple(
            gap("eplb", "contiguous", 0.36, "0.36 (−63.9 %)")
            + gap("vibe", "contiguous", 0.29, "0.29")
            + gap("vibe", "eplb", 1 - 0.196, "0.80 (−19.6 %)")
        ),
        V5_WHY,
    ),
    Claim(
        "V6",
        "Mean MoE latency falls by 49.3 % against vLLM and 27.9 % against EPLB",
        "ViBE, section 5.3",
        "mean layer time; mean device time is shown beside, for the paper does not say which",
        tuple(
            phase_change("mean layer time", layer_time, "vibe", "contiguous", -0.493, "−49.3 %")
            + phase_change("mean layer time", layer_time, "vibe", "eplb", -0.279, "−27.9 %")
            + phase_change("mean device expert time", busy_time, "vibe", "eplb", None, "–")
        ),
        V6_WHY,
    ),
    Claim(
        "V7",
        "Barrier idle falls by 41 %, synchronised MoE latency by 35 % against EPLB",
        "ViBE, section 5.2",
        "sum of waits; slowest device's experts, mean over layer calls",
        tuple(
            phase_change("sum of waits", waits, "vibe", "eplb", -0.41, "−41 %")
            + phase_change("slowest device's expert time", slowest_experts, "vibe", "eplb", -0.35, "−35 %")
        ),
        V7_WHY,
    ),
    Claim(
        "V12",
        "An update swaps 5 to 30 experts a layer where solving anew moves over 200 of 256",
        "ViBE, section 4.2.4",
        "DeepSeek-V3 on 8 devices while popularity drifts; ViBE's detector",
        (swaps, solved_anew),
        V12_WHY,
    ),
    Claim(
        "V14",
        "Speeds help on a node with 2.8 % spread, and more on one with 12.5 %",
        "ViBE, figures 13 and 14",
        "nodes drawn with the spread that has these means; 1,000 layer runs of 4,096 tokens an expert",
        (node_spreads, *(node_gain(name, node) for name, node, _ in NODES), larger_gain, serving.skewed_node_tail),
        V14_WHY,
    ),
    Claim(
        "V15",
        "Gains are best at 16 to 32 devices and shrink beyond 64",
        "ViBE, figure 15 (simulated)",
        "every fleet size drawn from 2,048 devices, none duplicated; median layer time",
        projection(),
        V15_WHY,
    ),
)
