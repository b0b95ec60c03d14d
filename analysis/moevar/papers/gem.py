"""GEM's claims; the algorithm is GEM as reconstructed (policy gem_like), never GEM itself."""

import math

import numpy as np

from moevar.intervals import P90, nearest_rank
from moevar.papers import estimates, serving
from moevar.papers.vibe_kernels import equal_tokens, of_nodes, spread
from moevar.papers.vibe_layers import layer_mean, of_cells, of_phases
from moevar.papers.verdicts import FAILS, HOLDS, IN_PART, Claim, Direction, Figure, Measure
from moevar.study import curves_at

MODELS = ("mixtral-8x7b", "mixtral-8x22b", "llama4-scout", "hunyuan-a13b", "qwen3-30b")
SPREADS = ("7.7", "14", "27.7")
SET_UPS = tuple(f"gem-{model}-{spread_}" for model in MODELS for spread_ in SPREADS)
BASES = ("contiguous", "eplb")  # the paper's baseline is not known
REQUESTS = tuple(f"gem-requests-{model}" for model in MODELS)
EVEN = tuple(f"gem-qwen3-30b-even-{spread_}" for spread_ in SPREADS)


def step_p90(phase):
    """p90 of the steps' times, ns: all layers of a step."""
    steps = np.sort(phase.layer_ns.sum(axis=1))
    return float(steps[nearest_rank(P90, steps.size) - 1])


def changes(runs, names, base, of, policy="gem_like"):
    """{set-up: {repeat: change}}"""
    every = {}
    for name in names:
        run = runs.get(name)
        top, bottom = of(run, policy), of(run, base)
        every[name] = {repeat: top[repeat] / bottom[repeat] - 1 for repeat in top if repeat in bottom}
    return every


def means_of_cells(run, policy):
    return of_cells(run, policy, layer_mean)


def p90_of_steps(run, policy):
    return of_phases(run, policy, step_p90)


def mean_change(every):
    """A repeat's mean over the set-ups, over repeats: the papers' kind of mean, of relative changes."""
    repeats = set.intersection(*(set(change) for change in every.values()))
    return estimates.over([sum(change[repeat] for change in every.values()) / len(every) for repeat in sorted(repeats)])


def best_change(every):
    """The set-up with the largest reduction, which it is and its estimate."""
    found = {name: estimates.over(change.values()) for name, change in every.items()}
    best = min(found, key=lambda name: found[name].value)
    return best, found[best]


def against(base, of, what, mean, best, texts):
    def measure(runs):
        every = changes(runs, SET_UPS, base, of)
        name, estimate = best_change(every)
        return [
            Measure(
                f"{what}, gem_like against {base}, mean of 15 set-ups",
                texts[0],
                mean_change(every),
                Figure.of(mean),
                runs=SET_UPS,
            ),
            Measure(
                f"{what}, gem_like against {base}, best set-up ({name.removeprefix('gem-')} %)",
                texts[1],
                estimate,
                Figure(*best),
                runs=(name,),
            ),
        ]

    return measure


def as_served(base, times, quantile, name, paper, text):
    """A quantile of requests' times, mean of the models: decode steps beside prompts, as they come."""

    def measure(runs):
        def of(run, policy):
            return serving.at_rate(run, policy, serving.rates_of(run)[0], times, quantile)

        change = mean_change(changes(runs, REQUESTS, base, of))
        return Measure(
            f"{name} of requests, gem_like against {base}, 14 % spread, mean of 5 models",
            text,
            change,
            Figure.of(paper),
            runs=REQUESTS,
        )

    return measure


def even_routing(base):
    def measure(runs):
        return Measure(
            f"Qwen3-30B with even routing, layer time against {base}, mean of 3 spreads",
            "about −1.5 %",
            mean_change(changes(runs, EVEN, base, means_of_cells)),
            Figure.of(-0.015),
            runs=EVEN,
        )

    return measure


def spread_by_size(runs):
    run = runs.get("gem-fleet")
    return [
        Measure(
            f"{devices} GPUs: throughput max ÷ min − 1",
            f"{100 * paper:.1f} %",
            of_nodes(run, lambda phase: float(spread(equal_tokens(phase))), devices=devices),
            Figure.of(paper),
            runs=("gem-fleet",),
        )
        for devices, paper in ((8, 0.077), (128, 0.277))
    ]


def tokens_at_equal_latency(runs):
    name = "gem-mixtral-8x7b-7.7"

    def of(phase):
        times = equal_tokens(phase)
        fastest, slowest = int(np.argmin(times)), int(np.argmax(times))
        curve = phase.array("speed_model/tokens")[fastest], phase.array("speed_model/time_us")[fastest]
        return _tokens_within(*curve, times[slowest]) / phase.reference_tokens - 1

    return Measure(
        "tokens of the fastest GPU over the slowest's in the slowest's time",
        "+14 %",
        of_nodes(runs.get(name), of),
        Figure.of(0.14),
        runs=(name,),
    )


def _tokens_within(tokens, times, limit):
    """The most tokens that a curve does in that time; on from its end with the last slope."""
    known = ~np.isnan(tokens)
    xs, ys = np.concatenate([[0], tokens[known]]), np.concatenate([[0], times[known]])
    right = int(np.clip(np.searchsorted(ys, limit, side="right"), 1, len(xs) - 1))
    slope = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
    return float(xs[right - 1] + (limit - ys[right - 1]) / slope) if slope > 0 else math.inf


def gap_at_batch(batch, paper):
    def measure(runs):
        name = "gem-fleet"
        run = runs.get(name)

        def of(phase):
            tokens = batch * run.config["model"]["top_k"] / phase.devices
            return float(
                spread(curves_at(phase.array("speed_model/tokens"), phase.array("speed_model/time_us"), tokens))
            )

        return Measure(
            f"batch {batch}: time max ÷ min − 1 of 8 GPUs",
            f"{100 * paper:.1f} %",
            of_nodes(run, of, devices=8),
            Figure.of(paper),
            runs=(name,),
        )

    return measure


def trace_against_mean(runs):
    every = changes(runs, SET_UPS, "vibe_swap", means_of_cells)
    return Measure(
        "layer time, search on step traces (gem_like) against search on mean loads (vibe_swap), 15 set-ups",
        "a gain",
        mean_change(every),
        Direction(-1),
        runs=SET_UPS,
    )


G1_WHY = {
    HOLDS: "What a placement by steps and speeds gains over the baseline is about what the paper reports end to end.",
    IN_PART: (
        "The baseline is not known. In layers bound by arithmetic the gain over experts in order is mostly that of"
        " balancing skewed loads, over eplb that of speeds and of the step trace, and the paper's figure lies there."
        " Requests as served here see less: their answers come out of steps of few tokens, bound by memory, in which"
        " the model's GPUs do not differ (G6)."
    ),
    FAILS: (
        "Loads are drawn, and the spreads need not be the paper's; requests' answers come out of steps of few tokens,"
        " bound by memory, in which the model's GPUs do not differ (G6)."
    ),
}
G2_WHY = {
    HOLDS: "The slow steps are those in which experts burst together, which the step trace is for.",
    IN_PART: (
        "In steps of 2,048 tokens a device, bound by arithmetic, the slow ones are those in which experts burst"
        " together, which the step trace is for. Requests as served here see less: their answers come out of steps of"
        " few tokens, bound by memory, in which the model's GPUs do not differ (G6)."
    ),
    FAILS: "Steps of few tokens are bound by memory in the model, and its GPUs do not differ there (G6).",
}
G3_WHY = {
    HOLDS: (
        "With even routing nothing but the GPUs' spread is left to win, and many small experts pay for it in small "
        "change."
    ),
    IN_PART: (
        "With even routing nothing but the GPUs' spread is left to win. How much depends on the spread, for "
        "which the paper's is not known, and on bursts, which are here as in the other set-ups."
    ),
    FAILS: (
        "Layers here gain what the GPUs' spread and the bursts give, which is more than the paper's: its routing "
        "is even in time too, or its spread small, and its figure is end to end."
    ),
}
G4_WHY = {
    HOLDS: "The slowest of N falls further behind as N grows.",
    IN_PART: (
        "The slowest of N falls further behind as N grows, here as there; how far depends on the tail of cooling "
        "and chips, which is fitted to another fleet."
    ),
    FAILS: "The tail of the fleet is fitted to V100 and its level to no L40.",
}
G5_WHY = {
    HOLDS: "A fixed cost in f(n) makes tokens differ by more than times do.",
    IN_PART: (
        "In the model f(n) has hardly any fixed cost where arithmetic binds, so tokens differ as times do. The "
        "paper's ratio needs a fixed part of about 0.8 of the variable one: launches, routing, a partly filled "
        "machine."
    ),
    FAILS: "In the model f(n) has hardly any fixed cost where arithmetic binds.",
}
G6_WHY = {
    HOLDS: "More tokens, more arithmetic, more power.",
    IN_PART: (
        "Part of these steps is bound by arithmetic, and differs as clocks do; what is bound by memory does not differ "
        "in the model."
    ),
    FAILS: (
        "Steps of so few tokens are bound by memory in the model, and memory is as fast on every GPU. That L40 "
        "differ there by 5 % means that something else than the clock of the arithmetic differs, or that the power "
        "limit slows more than arithmetic: the model lacks it."
    ),
}
G7_WHY = {
    HOLDS: "Experts that burst together must be kept apart, which mean loads do not show.",
    IN_PART: (
        "Experts that burst together must be kept apart, which mean loads do not show; the gain is small beside "
        "the noise."
    ),
    FAILS: "The bursts drawn here leave nothing to a search that sees them.",
}

CLAIMS = (
    Claim(
        "G1",
        "Latency falls by 7.9 % on average and by 16.5 % at best",
        "GEM, abstract",
        "five models × three spreads on 4 modelled H100 at 400 W, prefill layers; and requests served at 2 a second and"
        " device. The best set-up is picked after the fact",
        (
            *(
                against(base, means_of_cells, "mean layer time", -0.079, (-0.165, -0.165), ("−7.9 %", "−16.5 %"))
                for base in BASES
            ),
            *(as_served(base, "e2e_ms", "p50", "median latency", -0.079, "−7.9 %") for base in BASES),
        ),
        G1_WHY,
    ),
    Claim(
        "G2",
        "P90 of the time per output token falls by 9.1 % on average",
        "GEM (second-hand)",
        "as G1; p90 of 64 prefill steps; and of requests",
        (
            *(
                against(
                    base, p90_of_steps, "p90 of step time", -0.091, (-0.169, -0.168), ("−9.1 %", "−16.8 or −16.9 %")
                )
                for base in BASES
            ),
            *(as_served(base, "tpot_ms", "p90", "P90 time per output token", -0.091, "−9.1 %") for base in BASES),
        ),
        G2_WHY,
    ),
    Claim(
        "G3",
        "Even routing leaves about 1.5 %",
        "GEM (second-hand)",
        "Qwen3-30B with skew 0.1; the other inputs as G1",
        (even_routing("contiguous"), even_routing("eplb")),
        G3_WHY,
    ),
    Claim(
        "G4",
        "Throughput spreads by 7.7 % over 8 GPUs and by 27.7 % over 128",
        "GEM (second-hand)",
        "modelled H100 at 400 W with the model's own spread, not the emulated ones",
        (spread_by_size,),
        G4_WHY,
    ),
    Claim(
        "G5",
        "At equal latency the fastest GPU takes 14 % more tokens",
        "GEM (second-hand)",
        "4 GPUs of 7.7 % spread, Mixtral-8x7B, at the slowest's time for 4,096 tokens",
        (tokens_at_equal_latency,),
        G5_WHY,
    ),
    Claim(
        "G6",
        "The gap between GPUs grows with the batch: 5, 7.1, 7.3 %",
        "GEM (second-hand)",
        "speed models at batch × top_k ÷ 8 tokens a device, Mixtral-8x7B",
        tuple(gap_at_batch(batch, paper) for batch, paper in ((32, 0.05), (64, 0.071), (128, 0.073))),
        G6_WHY,
    ),
    Claim(
        "G7",
        "A trace of steps beats mean loads",
        "GEM's idea",
        "15 set-ups of G1, a quarter of the experts bursting",
        (trace_against_mean,),
        G7_WHY,
    ),
)
