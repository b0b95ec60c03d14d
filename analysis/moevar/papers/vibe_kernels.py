"""ViBE's claims about single GPUs: how far they differ at equal tokens, when, and what clocks tell of it."""

import functools

import numpy as np
from scipy import stats

from moevar.papers import estimates
from moevar.papers.verdicts import FAILS, HOLDS, IN_PART, Claim, Equivalent, Figure, Measure
from moevar.study import curves_at

# arXiv 2606.00735, figures 5 and 6: prefill clocks of GPU 0-7 in % of 2100 MHz, and their times at equal tokens.
CLOCKS = (76.3, 76.3, 77.7, 73.7, 76.9, 73.3, 73.8, 76.0)
TIMES = (1.025, 0.978, 0.975, 0.987, 0.993, 0.982, 1.028, 1.033)
LAYERS = "vibe-layers"
# Effects of policies are looked at under drawn loads and, where the run was asked for, under recorded ones.
LOADS = ((LAYERS, "drawn loads"), ("vibe-recorded", "recorded loads"))


def spread(times):
    """max / min - 1 over devices, axis 0."""
    return times.max(axis=0) / times.min(axis=0) - 1


def equal_tokens(phase):
    """[D] µs: every device's time for the mean number of tokens."""
    return phase.reference_time_us(phase.reference_tokens)


def by_speed(phase):
    """[D] µs: the same tokens dealt out in proportion to 1 / f_d(mean), as ViBE's targets are."""
    tokens, speed = phase.reference_tokens, 1 / equal_tokens(phase)
    share = tokens * len(speed) * speed / speed.sum()
    curves = phase.array("speed_model/tokens"), phase.array("speed_model/time_us")
    return np.array([curves_at(curves[0][d : d + 1], curves[1][d : d + 1], share[d])[0] for d in range(len(speed))])


def layer_means(phase, name):
    """[D, L]: mean over the steps of what every device had."""
    return phase.array(name).mean(axis=1)


def of_nodes(run, what, policy=None, **factors):
    """what(phase) of each repeat's node, as an estimate over nodes."""
    return estimates.over([what(phase) for phase in run.phases(policy, **factors).values()])


def spread_at_equal_tokens(runs):
    run = runs.get(LAYERS)
    return Measure(
        "time max ÷ min − 1 over the 8 GPUs of a node, equal tokens",
        "5.9 % (fig. 6), up to 7 %",
        of_nodes(run, lambda phase: float(spread(equal_tokens(phase)))),
        Figure(0.059, 0.07),
        runs=(LAYERS,),
    )


def spread_by_speed(runs):
    phases = runs.get(LAYERS).phases()
    after = {repeat: float(spread(by_speed(phase))) for repeat, phase in phases.items()}
    before = {repeat: float(spread(equal_tokens(phase))) for repeat, phase in phases.items()}
    return [
        Measure(
            "spread left by tokens in proportion to speed", "1.4 %", estimates.over(after.values()), runs=(LAYERS,)
        ),
        Measure(
            "that spread ÷ spread at equal tokens",
            "0.24 (1.4 of 5.9 %)",
            estimates.ratio(after, before),
            Figure.of(1.4 / 5.9, null=1),
            "ratio",
            (LAYERS,),
        ),
    ]


def spread_of_whole_experts(runs):
    run = runs.get(LAYERS)
    left = {
        policy: {
            repeat: float(np.mean(spread(layer_means(phase, "expert_ns"))))
            for repeat, phase in run.phases(policy).items()
        }
        for policy in ("vibe", "eplb")
    }
    return Measure(
        "spread as run, whole experts: vibe ÷ eplb",
        "0.24 (1.4 of 5.9 %)",
        estimates.ratio(left["vibe"], left["eplb"]),
        Figure.of(1.4 / 5.9, null=1),
        "ratio",
        (LAYERS,),
    )


def decode_spread(runs):
    run = runs.get("vibe-decode")

    def of(phase):
        per_token = layer_means(phase, "expert_ns").sum(axis=1)
        return float(spread(per_token))

    return Measure(
        "decode, 32 tokens a device: time max ÷ min − 1 as run (eplb)",
        "clocks 99 to 100 % on all: none",
        of_nodes(run, of, "eplb"),
        Equivalent(0.01),
        runs=("vibe-decode",),
    )


def prefill_clocks(runs):
    run = runs.get(LAYERS)
    return Measure(
        "prefill: clock max ÷ min − 1",
        "6.0 % (77.7 and 73.3 % of 2100 MHz)",
        of_nodes(run, lambda phase: float(spread(phase.telemetry("sm_clock_mhz")))),
        Figure.of(max(CLOCKS) / min(CLOCKS) - 1),
        runs=(LAYERS,),
    )


def caps(runs):
    run = runs.get("vibe-caps")
    return [
        Measure(
            f"prefill under {cap:g} W: time max ÷ min − 1",
            "–",
            of_nodes(run, lambda phase: float(spread(equal_tokens(phase))), power_cap_w=cap),
            runs=("vibe-caps",),
        )
        for cap in run.config["conditions"]["power_cap_w"]
    ]


def clock_against_time(runs):
    def of(phase):
        return float(stats.spearmanr(phase.telemetry("sm_clock_mhz"), equal_tokens(phase)).statistic)

    paper = float(stats.spearmanr(CLOCKS, TIMES).statistic)
    return Measure(
        "rank correlation of clock and time over a node (−1: a perfect proxy)",
        f"{paper:.2f} (computed from figs. 5 and 6)",
        of_nodes(runs.get(LAYERS), of),
        Figure.of(paper),
        "number",
        (LAYERS,),
    )


def imbalance(run_name, loads, policy, name, array, paper, rule):
    def measure(runs):
        of = of_nodes(runs.get(run_name), lambda phase: float(np.median(spread(layer_means(phase, array)))), policy)
        return Measure(f"{name}, median of layers ({loads})", paper, of, rule, runs=(run_name,))

    return measure


def imbalances():
    every = []
    for run, loads in LOADS:
        every += [
            imbalance(run, loads, "eplb", "eplb: tokens max ÷ min − 1", "tokens", "0.15 to 15 %", Figure(0.0015, 0.15)),
            imbalance(
                run, loads, "eplb", "eplb: time max ÷ min − 1", "expert_ns", "mostly 2 to 6 %", Figure(0.02, 0.06)
            ),
            imbalance(
                run,
                loads,
                "contiguous",
                "contiguous: time max ÷ min − 1",
                "expert_ns",
                "15 to 100 %",
                Figure(0.15, 1.0),
            ),
        ]
    return tuple(every)


def hottest_clock(runs):
    def of(phase):
        clocks, heat = phase.telemetry("sm_clock_mhz"), phase.telemetry("temperature_c")
        hottest = int(np.argmax(heat))
        return float(clocks[hottest] / np.median(np.delete(clocks, hottest)) - 1)

    return Measure(
        "clock of a node's hottest GPU against the median of the others",
        "−6.2 %",
        of_nodes(runs.get(LAYERS), of),
        Figure.of(-0.062),
        runs=(LAYERS,),
    )


@functools.lru_cache(maxsize=None)
def _knee(tokens, times):
    """Where two straight lines that meet, flat(ter) before and steeper after, fit a curve best: relative errors."""
    x, y = np.array(tokens), np.array(times)
    best = (np.inf, np.nan)
    for knee in np.geomspace(x[1], x[-2], 400):
        columns = np.stack([np.ones_like(x), np.minimum(x, knee), np.maximum(x - knee, 0)], axis=1) / y[:, None]
        solution = np.linalg.lstsq(columns, np.ones_like(y), rcond=None)[0]
        error = float(((columns @ solution - 1) ** 2).sum())
        best = min(best, (error, float(knee)))
    return best[1]


def knee(run_name, model):
    def measure(runs):
        def of(phase):
            slots = int(phase.group["placement"].attrs["slots_per_device"])
            curves = phase.array("speed_model/tokens") / slots, phase.array("speed_model/time_us")
            return float(np.mean([_knee(tuple(x), tuple(y)) for x, y in zip(*curves)]))

        return Measure(
            f"{model}: tokens an expert at the knee of f(n)",
            "156 to 168",
            of_nodes(runs.get(run_name), of),
            Figure(156, 168),
            "number",
            (run_name,),
        )

    return measure


V1_WHY = {
    HOLDS: (
        "Chips, power sensors and cooling that differ as on a published V100 fleet make about the spread that the "
        "paper measured, at a limit that binds."
    ),
    IN_PART: (
        "The model's spreads were fitted to another machine (392 V100), not to this one; a node of eight is also "
        "a small sample, so single nodes scatter widely about the mean given here."
    ),
    FAILS: (
        "The model's spreads were fitted to another machine (392 V100) and carried over to MI300X; the paper's is "
        "MI325X at 1000 W, of which the model knows nothing."
    ),
}
V2_WHY = {
    HOLDS: "Tokens in proportion to speed leave what the curve's fixed part and whole experts leave.",
    IN_PART: (
        "In the model the time of many tokens is all but proportional to them, so speed-informed tokens leave "
        "less than the paper's kernels do; whole experts are coarser than single tokens and leave more."
    ),
    FAILS: (
        "In the model the time of many tokens is all but proportional to them: proportional tokens leave almost "
        "nothing where the paper's kernels kept 1.4 %, or whole experts are too coarse."
    ),
}
V3_WHY = {
    HOLDS: (
        "Arithmetic under a power limit runs at each GPU's own clock; memory-bound work does not, in the model by "
        "design."
    ),
    IN_PART: (
        "That memory-bound work shows no spread is the model's premise, not a finding. Clocks in prefill differ, "
        "if not by the paper's figure: its spread was fitted elsewhere."
    ),
    FAILS: "The model's clocks do not spread as the paper's do.",
}
V4_WHY = {
    HOLDS: "With tokens balanced the GPUs' own speeds are what is left.",
    IN_PART: (
        "With tokens balanced the GPUs' own speeds are what is left, here as there. How far experts in order are "
        "out of balance depends on the loads: drawn ones lie in random order, recorded ones have their hot "
        "experts side by side."
    ),
    FAILS: "Loads and spread are not the paper's.",
}
V11_WHY = {
    HOLDS: "Time and clock have come apart in the model as they do in the paper.",
    IN_PART: "Part of what makes GPUs differ here does not show in the clock.",
    FAILS: (
        "In the model a GPU's arithmetic is as fast as its clock, so a clock read at the same moment orders GPUs "
        "rightly but for noise. That the paper's clocks do not (clock medians of a whole prefill, kernel times on "
        "their own) speaks against this premise of the model, or for differences between GPUs that it lacks: "
        "memory, fabric, firmware."
    ),
}
L1_WHY = {
    HOLDS: "Heat costs leakage, leakage costs clock.",
    IN_PART: (
        "Heat costs leakage, leakage costs clock; by how much depends on how far the hottest GPU is above the "
        "others, which the paper's node and the model's need not share."
    ),
    FAILS: (
        "In the model heat is one of six causes of spread and not the largest, so the hottest GPU is seldom the "
        "slowest by far."
    ),
}
T1_WHY = {
    HOLDS: "Below the knee reading weights takes longer than the arithmetic.",
    IN_PART: (
        "The knee lies where arithmetic overtakes the reading of weights: FLOP/s ÷ bytes/s of these GPUs in "
        "BF16, with tiles of 128 rows that blur it."
    ),
    FAILS: (
        "The knee lies where arithmetic overtakes the reading of weights: FLOP/s ÷ bytes/s of these GPUs in BF16 "
        "under their limits. TEMPO's machine and data type are not these."
    ),
}

CLAIMS = (
    Claim(
        "V1",
        "Equal tokens take GPUs of one node up to 7 % longer than others",
        "ViBE, figure 6",
        "16 nodes of 8 modelled MI300X, speed models at 32,768 tokens a device",
        (spread_at_equal_tokens,),
        V1_WHY,
    ),
    Claim(
        "V2",
        "Tokens by speed bring the spread from 5.9 to 1.4 %",
        "ViBE, figure 6",
        "as V1; and vibe against eplb as run",
        (spread_by_speed, spread_of_whole_experts),
        V2_WHY,
    ),
    Claim(
        "V3",
        "GPUs differ only where power limits them",
        "ViBE, figure 5",
        "prefill and decode steps; the same nodes under three caps",
        (prefill_clocks, decode_spread, caps),
        V3_WHY,
    ),
    Claim(
        "V4",
        "With tokens balanced, latency stays unbalanced by 2 to 6 %",
        "ViBE, figure 1",
        "every layer's devices, means over steps; range over devices, median over layers",
        imbalances(),
        V4_WHY,
    ),
    Claim(
        "V11",
        "Clock is a poor proxy of speed",
        "ViBE, figures 5 and 6 (inferred)",
        "clock and time of 8 GPUs, 16 nodes",
        (clock_against_time,),
        V11_WHY,
    ),
    Claim(
        "L1",
        "The hottest of eight MI300X runs a 6.2 % lower clock",
        "Lit Silicon, arXiv 2511.09861",
        "soaked nodes of 8 modelled MI300X",
        (hottest_clock,),
        L1_WHY,
    ),
    Claim(
        "T1",
        "Expert time is flat below 156 to 168 tokens an expert",
        "TEMPO (second-hand)",
        "speed models: 12 points on a geometric grid, two lines that meet",
        (knee("vibe-layers", "DeepSeek-V3, MI300X"), knee("gem-qwen3-30b-7.7", "Qwen3-30B, H100 at 400 W")),
        T1_WHY,
    ),
)
