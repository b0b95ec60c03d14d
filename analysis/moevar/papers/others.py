"""Claims of other sources: rearranging and replicas, per-step scheduling, variation over clusters; and what the suite
cannot test."""

import numpy as np

from moevar.papers import estimates
from moevar.papers.vibe_kernels import LOADS, equal_tokens, of_nodes
from moevar.papers.vibe_layers import layer_mean, of_cells, of_phases, waits
from moevar.papers.verdicts import FAILS, HOLDS, IN_PART, Claim, Direction, Figure, Measure


def throughput(policy, base, run_name, base_name, label, paper, text):
    """Tokens a second of policy over base's − 1, at as many tokens a step: base's layer time over policy's."""

    def measure(runs):
        gain = estimates.change(
            of_cells(runs.get(base_name), base, layer_mean), of_cells(runs.get(run_name), policy, layer_mean)
        )
        return Measure(label, text, gain, Figure(*paper), runs=tuple(dict.fromkeys((run_name, base_name))))

    return measure


def rearranging():
    plain = [
        throughput(
            "eplb", "contiguous", name, name, f"throughput, eplb without replicas ({loads})", (0.167, 0.167), "+16.7 %"
        )
        for name, loads in LOADS
    ]
    return (
        *plain,
        throughput(
            "eplb",
            "contiguous",
            "vibe-layers-redundant",
            "vibe-layers",
            "throughput, eplb with 64 replicas (drawn loads)",
            (0.24, 0.34),
            "+24 to 34 %",
        ),
    )


def by_steps(runs):
    run = runs.get("replicas")
    change = estimates.change(of_cells(run, "eplb_steps", layer_mean), of_cells(run, "eplb", layer_mean))
    return Measure(
        "mean layer time, eplb_steps against eplb, 64 replicas each",
        "a gain, no number",
        change,
        Direction(-1),
        runs=("replicas",),
    )


def idle(base):
    def measure(runs):
        run = runs.get("harmoeny")
        change = estimates.change(of_phases(run, "harmoeny", waits), of_phases(run, base, waits))
        return Measure(f"sum of waits, harmoeny against {base}", "−84 %", change, Figure.of(-0.84), runs=("harmoeny",))

    return measure


def whiskers(phase):
    """Range of a box plot's whiskers over the median: values within 1.5 quartile ranges of the box."""
    times = equal_tokens(phase)
    low, middle, high = np.percentile(times, (25, 50, 75))
    inside = times[(times >= low - 1.5 * (high - low)) & (times <= high + 1.5 * (high - low))]
    return float((inside.max() - inside.min()) / middle)


def furthest(phase):
    times = equal_tokens(phase)
    return float(np.abs(times / np.median(times) - 1).max())


def variation(runs):
    run = runs.get("longhorn")
    return [
        Measure(
            "range of the whiskers ÷ median, 384 GPUs",
            "8 % (mean over clusters)",
            of_nodes(run, whiskers),
            Figure.of(0.08),
            runs=("longhorn",),
        ),
        Measure(
            "largest deviation from the median",
            "22 % (maximum)",
            of_nodes(run, furthest),
            Figure.of(0.22),
            runs=("longhorn",),
        ),
    ]


E1_WHY = {
    HOLDS: "Skewed loads in order cost what rearranging wins.",
    IN_PART: (
        "Rearranging wins what the loads' skew costs in their order: more under recorded loads, whose hot "
        "experts lie side by side, than under drawn ones. Replicas add little on eight devices once every expert "
        "is small beside a device's share. The source's throughput is end to end, these are layers."
    ),
    FAILS: "Layers alone, and loads that are skewed in another way than the source's.",
}
E2_WHY = {
    HOLDS: "Replicas of what is hottest step by step serve bursts.",
    IN_PART: "Replicas of what is hottest step by step serve bursts; beside the interval the gain is small.",
    FAILS: (
        "eplb_steps chooses replicas by steps but deals copies out in snake order of their means, which balances "
        "eight devices worse than eplb's packing; what it gains in replicas it loses there."
    ),
}
H1_WHY = {
    HOLDS: "A schedule that sees the step leaves nobody waiting; moving weights takes no time here.",
    IN_PART: (
        "A schedule that sees the step leaves hardly anybody waiting; moving weights takes no time here, and how "
        "much throughput that is depends on the skew, which is set, not theirs."
    ),
    FAILS: "How much is won depends on the skew, which is set here, not theirs.",
}
S1_WHY = {
    HOLDS: "The model's spreads were fitted to a cluster of that study, so this is no independent test.",
    IN_PART: (
        "The model's spreads were fitted to one cluster of that study; its tail of badly cooled GPUs reaches "
        "further than the 22 % that the source saw, or less far, as fleets are drawn."
    ),
    FAILS: "The model's spreads were fitted to one cluster of that study, not to all of them.",
}
NO_NOISE = "A study has no key that adds noise to the loads or speeds a policy plans with."
NO_TRACE = "The recorded expert counts at hand have no time axis, and drawn loads fluctuate as they are told to."


CLAIMS = (
    Claim(
        "E1",
        "Rearranging experts alone gives 16.7 % throughput, 64 replicas 24 to 34 %",
        "ROCm/ATOM PR 1210 (second-hand)",
        "8 modelled MI300X, prefill, DeepSeek-V3; the source has 8 MI355 and DeepSeek-V4-Pro",
        rearranging(),
        E1_WHY,
    ),
    Claim(
        "E2",
        "Replicas chosen by steps beat replicas chosen by means",
        "SGLang's deepseek_vec (no number)",
        "DeepSeek-V3 on 8 modelled MI300X, a quarter of the experts bursting",
        (by_steps,),
        E2_WHY,
    ),
    Claim(
        "H1",
        "Scheduling every step gives 37 to 70 % throughput and 84 % less idle time",
        "HarMoEny, arXiv 2506.12417 (second-hand)",
        "Qwen3-30B with skew 1.0 on 8 modelled H100; transfers take no time",
        (
            throughput(
                "harmoeny",
                "contiguous",
                "harmoeny",
                "harmoeny",
                "throughput, harmoeny against contiguous",
                (0.37, 0.70),
                "+37 to 70 %",
            ),
            idle("contiguous"),
        ),
        H1_WHY,
    ),
    Claim(
        "S1",
        "GPUs of large clusters vary by 8 % on average and 22 % at most",
        "arXiv 2208.11035",
        "8 fleets of 384 modelled V100",
        (variation,),
        S1_WHY,
    ),
    Claim(
        "A1", "75 % noise in what a placement is planned with costs 15.8 %", "Aurora, arXiv 2410.17043", cannot=NO_NOISE
    ),
    Claim(
        "M1", "Prefill loads fluctuate, decode loads are steady", "MegaScale-Infer, arXiv 2504.02263", cannot=NO_TRACE
    ),
)
