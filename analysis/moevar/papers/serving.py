"""ViBE's claims about requests: frontier, tails, low load, drift; and GEM's about latencies, where requests are served.

A request's times are those of moevar's serving loop, an open-loop replay over layer work, not of a serving engine. The
rate of a crossing is the highest that keeps 90 % of the requests within both limits, searched anew in every repeat.
"""

from moevar.papers import estimates
from moevar.papers.runs import NotRun
from moevar.papers.verdicts import FAILS, HOLDS, IN_PART, Claim, Equivalent, Figure, Measure

# arXiv 2606.00735, figure 8: 90 % crossings, requests/s per GPU, read off the figure.
CASES = {
    "deepseek-sonnet": ("DeepSeek-V3, Sonnet", {"contiguous": 1.54, "eplb": 1.77, "vibe": 1.99}),
    "qwen-sonnet": ("Qwen3-235B, Sonnet", {"contiguous": 2.50, "eplb": 3.06, "vibe": 3.45}),
    "deepseek-sharegpt": ("DeepSeek-V3, ShareGPT", {"contiguous": 6.23, "eplb": 6.49, "vibe": 7.14}),
    "qwen-sharegpt": ("Qwen3-235B, ShareGPT", {"contiguous": 9.2, "eplb": 10.9, "vibe": 12.8}),
}
FRONTIER, SWEEP = "vibe-frontier-", "vibe-sweep-"
READING = 0.03  # of a ratio of two of these: each is exact to about 2 % of an axis that ends a little above it
LOW_LOAD_MARGIN = 0.02


def crossings(run, policy):
    """{repeat: rate found}, requests/s per device, of the repeats whose search found one."""
    found = {}
    for repeat, cell in run.by_repeat(policy).items():
        rate = (cell.get("serving", {}).get("max_rate") or {}).get("rate")
        if rate is not None:
            found[repeat] = rate
    return found


def at_rate(run, policy, rate, what, quantile):
    """{repeat: ms}: a quantile of ttft_ms, tpot_ms or e2e_ms at a rate of the study."""
    times = {}
    for repeat, cell in run.by_repeat(policy, rate=rate).items():
        value = (cell["serving"].get(what) or {}).get(quantile)
        if value is not None:
            times[repeat] = value
    return times


def rates_of(run):
    return sorted({cell["rate"] for cell in run.cells if cell.get("rate") is not None})


def frontier_ratio(case, policy, base):
    label, paper = CASES[case]

    def measure(runs):
        name = FRONTIER + case
        run = runs.get(name)
        ratio = estimates.ratio(crossings(run, policy), crossings(run, base))
        published = paper[policy] / paper[base]
        rule = Figure.of(published, null=1, reading=READING)
        return Measure(f"{label}: 90 % crossing, {policy} ÷ {base}", f"{published:.2f}", ratio, rule, "ratio", (name,))

    return measure


def frontier_level(case):
    label, paper = CASES[case]

    def measure(runs):
        name = FRONTIER + case
        run = runs.get(name)
        return [
            Measure(
                f"{label}: crossing of {policy}, requests/s per device",
                f"{published:g}",
                estimates.over(crossings(run, policy).values()),
                None,
                "number",
                (name,),
            )
            for policy, published in paper.items()
        ]

    return measure


def tail_at_top(quantile, paper, text):
    def measure(runs):
        name = SWEEP + "deepseek-sonnet"
        run = runs.get(name)
        rate = rates_of(run)[-1]
        change = estimates.change(
            at_rate(run, "vibe", rate, "ttft_ms", quantile), at_rate(run, "eplb", rate, "ttft_ms", quantile)
        )
        return Measure(
            f"{quantile.upper()} TTFT at {rate:g} requests/s per device, vibe against eplb",
            text,
            change,
            Figure.of(paper),
            runs=(name,),
        )

    return measure


def at_low_load(what, name_of):
    def measure(runs):
        name = SWEEP + "qwen-sonnet"
        run = runs.get(name)
        rate = rates_of(run)[0]
        change = estimates.change(at_rate(run, "vibe", rate, what, "p50"), at_rate(run, "eplb", rate, what, "p50"))
        return Measure(
            f"median {name_of} at {rate:g} requests/s per device, vibe against eplb",
            f"no gain (taken as within {100 * LOW_LOAD_MARGIN:g} %)",
            change,
            Equivalent(LOW_LOAD_MARGIN),
            runs=(name,),
        )

    return measure


def regained(policy, paper):
    def measure(runs):
        names = ("vibe-drift-once", "vibe-drift-adaptive")
        once, adaptive = (crossings(runs.get(name), policy) for name in names)
        return Measure(
            f"ShareGPT → Sonnet: crossing with on-drift ÷ with once, {policy}",
            f"{paper:.2f}",
            estimates.ratio(adaptive, once),
            Figure.of(paper, null=1),
            "ratio",
            names,
        )

    return measure


CHANGE_FIELDS = (
    ("noticed_after_s", "first rearrangement after the change, s", "–"),
    ("recovered_after_s", "straggler tax back after, s", "–"),
    ("moved_experts", "experts a layer that changed device", "19.4, then 0.5"),
    ("stopped_ms", "time that steps stood still for moves, ms", "–"),
    ("ttft_peak_ms", "highest TTFT after it, ms", "spikes for seconds"),
)


def first_change(policy):
    """What a drift run's first change came to: of the repeats that noticed or recovered."""

    def measure(runs):
        name = "vibe-drift-run"
        run = runs.get(name)
        layers = run.config["model"]["layers"]
        served = [cell["serving"]["changes"] for cell in run.by_repeat(policy).values()]
        made = []
        for field, label, paper in CHANGE_FIELDS:
            values = [changes[0][field] for changes in served if changes and changes[0][field] is not None]
            if values:
                per = layers if field == "moved_experts" else 1
                ours = estimates.over([value / per for value in values])
                made.append(Measure(f"{policy}: {label}", paper, ours, None, "number", (name,)))
        return made

    return measure


def skewed_node_tail(runs):
    name = SWEEP + "node-a-skewed"
    run = runs.get(name)
    rate = rates_of(run)[-1]
    ratio = estimates.ratio(at_rate(run, "vibe", rate, "ttft_ms", "p90"), at_rate(run, "eplb", rate, "ttft_ms", "p90"))
    return Measure(
        f"node A′: P90 TTFT at {rate:g} requests/s per device, vibe ÷ eplb",
        "0.42 (4.0 of 9.6)",
        ratio,
        Figure.of(4.0 / 9.6, null=1),
        "ratio",
        (name,),
    )


def frontier_rows(runs):
    """Beyond: [(set-up, policy, Estimate of the crossing, Estimate of its ratio to eplb's with as many slots)]."""
    rows = []
    for case, (label, _) in CASES.items():
        for name, of in ((FRONTIER + case, label), (f"{FRONTIER}{case}-redundant", f"{label}, with replicas")):
            try:
                run = runs.get(name)
            except NotRun:
                continue
            eplb = crossings(run, "eplb")
            for policy in run.policies():
                found = crossings(run, policy)
                if set(found) & set(eplb):
                    rows.append((of, policy, estimates.over(found.values()), estimates.ratio(found, eplb)))
    return rows


SEARCHED = (
    "highest rate that keeps 90 % within TTFT and TPOT limits, searched in every repeat; ratios paired by repeat. No"
    " policy that plans every step can serve: oracle's frontier does not exist"
)
V8_WHY = {
    HOLDS: "What speeds save in every step is capacity, and near the frontier capacity is attainment.",
    IN_PART: (
        "What speeds save in every step is capacity, and near the frontier capacity is attainment. They save what they"
        " save in layer times (V6, V14), diluted by attention and the rest of the step."
    ),
    FAILS: (
        "No frontier can move by more than its steps get shorter. Once tokens are balanced, speeds save little of a"
        " layer here (V6), nothing of steps bound by memory, and attention and the rest of the step dilute it. Unlike"
        " the paper's, steps of the replay have no noise of scheduling, and loads are drawn around a popularity that"
        " the solver knows."
    ),
}
V8B_WHY = {
    HOLDS: "Balancing tokens saves a part of every step, and near the frontier capacity is attainment.",
    IN_PART: (
        "Balancing tokens saves a part of every step, and near the frontier capacity is attainment: more with long"
        " prompts, which fill steps with arithmetic, than with short ones. How much depends on the loads' skew, which"
        " is one for both models here and not the paper's."
    ),
    FAILS: "The loads' skew is set here, and not the paper's.",
}
V9_WHY = {
    HOLDS: (
        "Beyond the frontier queues grow with the missing capacity, so a small gain in steps is a large one in the"
        " tail."
    ),
    IN_PART: (
        "Beyond the frontier queues grow with the missing capacity, so a small gain in steps is a larger one in the"
        " tail; how much larger depends on how far beyond it the rate lies, and on which limit makes the frontier."
    ),
    FAILS: (
        "A tail shows missing capacity many times over once requests queue for their first token. Here the limit on the"
        " time per output token makes the frontier; at a rate as far beyond it as the paper's, prompts still find room"
        " in every step, and steps gain little from speeds (V6)."
    ),
}
V10_WHY = {
    HOLDS: (
        "At low load nobody queues, steps are short and bound by memory and by what is not MoE: nothing for speeds "
        "to win."
    ),
    IN_PART: (
        "At low load nobody queues, steps are short and bound by memory and by what is not MoE: little for "
        "speeds to win. The loss that the paper blames on contention between hot experts on one GPU is not in "
        "the model."
    ),
    FAILS: (
        "Steps still carry prompts, whose arithmetic is power-bound at any load; the contention between hot "
        "experts that the paper blames for the loss is not in the model."
    ),
}
V13_WHY = {
    HOLDS: (
        "Once popularity has changed, a placement for the old one is no better than chance; a new one pays for its"
        " moves."
    ),
    IN_PART: (
        "Once popularity has changed, a placement for the old one is no better than chance. What a new one is worth"
        " hangs on its moves, which here stop the steps: swaps stop them for milliseconds, solving anew moves most"
        " experts of every layer, three times while the detector's window passes the change, and near the frontier"
        " nobody can wait that long. How the paper's EPLB moves is not said, nor how alike two data sets' popularity"
        " is; here it is drawn independently."
    ),
    FAILS: (
        "How alike two data sets' popularity is no source says; here they are drawn independently, so a stale placement"
        " loses more than the paper's, or the moves cost what they win."
    ),
}


CLAIMS = (
    Claim(
        "V8",
        "At 90 % attainment ViBE serves 12 to 15 % more requests than EPLB",
        "ViBE, figure 8",
        SEARCHED,
        tuple([frontier_ratio(case, "vibe", "eplb") for case in CASES] + [frontier_level(case) for case in CASES]),
        V8_WHY,
    ),
    Claim(
        "V8b",
        "At 90 % attainment EPLB serves 4 to 22 % more requests than experts in order",
        "ViBE, figure 8",
        SEARCHED,
        tuple(frontier_ratio(case, "eplb", "contiguous") for case in CASES),
        V8B_WHY,
    ),
    Claim(
        "V9",
        "P90 and P99 TTFT fall by up to 45 and 30 % at the top rate",
        "ViBE, figure 9",
        "DeepSeek-V3, Sonnet, at a rate beyond eplb's crossing",
        (tail_at_top("p90", -0.45, "−45 %"), tail_at_top("p99", -0.30, "−30 %")),
        V9_WHY,
    ),
    Claim(
        "V10",
        "At low load there is no gain, or a slight loss",
        "ViBE, figure 9b",
        "Qwen3-235B, Sonnet, at a rate far below the crossing",
        (at_low_load("ttft_ms", "TTFT"), at_low_load("tpot_ms", "TPOT")),
        V10_WHY,
    ),
    Claim(
        "V13",
        "Adapting regains what drift costs: 1.68 → 1.80, 6.7 → 7.4",
        "ViBE, figures 11 and 12",
        "popularity changes halfway through the run; placement kept against solved anew on drift, its moves on the "
        "critical path. The way back (Sonnet → ShareGPT) is not searched: at a rate that ShareGPT bears, the Sonnet "
        "half cannot be served",
        (
            regained("vibe_swap", round(1.80 / 1.68, 2)),
            regained("eplb", round(1.63 / 1.51, 2)),
            *map(first_change, ("vibe", "vibe_swap")),
        ),
        V13_WHY,
    ),
    Claim(
        "V16",
        "A trigger on the cosine alone misses changes in magnitude",
        "inferred from ViBE",
        cannot=(
            "A layer study's steps all have as many tokens, so nothing can fire on their number; while requests are"
            " served the number changes from step to step, and the trigger on magnitude is off. No study has both."
        ),
    ),
)
