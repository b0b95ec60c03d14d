"""What is left after the papers: policies beyond theirs, and the bound that no placement beats."""

from dataclasses import dataclass

from moevar.intervals import Estimate
from moevar.papers import estimates
from moevar.papers.runs import NotRun
from moevar.papers.vibe_layers import layer_mean, of_cells, of_phases, slowest_experts

POLICIES = ("eplb", "vibe", "gem_like", "minmax", "oracle")
# run, what it stands for, and the run whose eplb is the base where it is another one (the same fleets and steps)
SET_UPS = (
    ("vibe-layers", "ViBE's layers, drawn loads", "vibe-layers"),
    ("vibe-layers-redundant", "… with 64 replicas", "vibe-layers"),
    ("vibe-recorded", "ViBE's layers, recorded loads", "vibe-recorded"),
    ("vibe-node-b", "ViBE's node B, 2.8 % spread", "vibe-node-b"),
    ("vibe-node-a-skewed", "ViBE's node A′, 12.5 % spread", "vibe-node-a-skewed"),
    ("replicas", "bursts, 64 replicas", "replicas"),
    ("gem-mixtral-8x7b-27.7", "GEM's Mixtral-8x7B, 27.7 % spread", "gem-mixtral-8x7b-27.7"),
    ("gem-hunyuan-a13b-14", "GEM's Hunyuan-A13B, 14 % spread", "gem-hunyuan-a13b-14"),
    ("gem-qwen3-30b-7.7", "GEM's Qwen3-30B, 7.7 % spread", "gem-qwen3-30b-7.7"),
)


@dataclass(frozen=True)
class Row:
    run: str
    label: str
    policy: str
    layer_us: Estimate  # mean layer time
    change: Estimate  # against eplb without replicas
    above_bound: Estimate  # slowest device's expert time ÷ lower bound of the placement planned − 1


def rows(runs):
    """Of the runs that are there."""
    every = []
    for name, label, base_name in SET_UPS:
        try:
            run, base = runs.get(name), runs.get(base_name)
        except NotRun:
            continue
        eplb = of_cells(base, "eplb", layer_mean)
        for policy in POLICIES:
            if policy in run.policies():
                every.append(_row(run, label, policy, eplb))
    return every


def _row(run, label, policy, eplb):
    layer = of_cells(run, policy, layer_mean)
    bound = of_cells(run, policy, lambda cell: cell["lower_bound_layer_us"])
    experts = {repeat: 1e-3 * time for repeat, time in of_phases(run, policy, slowest_experts).items()}
    return Row(
        run.name,
        label,
        policy,
        estimates.over(layer.values()),
        estimates.change(layer, eplb),
        estimates.change(experts, bound),
    )
