"""Expert time of every layer as the policy predicted it, and as it came."""

import numpy as np

from moevar import cells, style
from moevar.figures import Drawing, NotCarried


def draw(study):
    if any(phase.serves for phase in study.phases):
        raise NotCarried("Placements are predicted for steps of workload.tokens_per_device; requests make steps of "
                         "every size.")
    phases = [phase for phase in cells.measured(study) if np.isfinite(phase.predicted_us).any()]
    if not phases:
        raise NotCarried("No placement was predicted a time: that needs a speed model, which phases.profile makes.")
    sizes, note = cells.shown_sizes(phases)
    policies = cells.policies(study, phases)
    entries = [(policy, *style.look(policy), True) for policy in policies]
    figure, axes = style.rows(len(sizes), 2.9, entries=entries)
    numbers = []
    for axis, devices in zip(axes, sizes):
        for policy in policies:
            colour, marker = style.look(policy)
            here = cells.select(phases, devices=devices, policy=policy)
            if not here:
                continue
            achieved = [phase.expert_max_ns.mean(axis=0) / 1e3 for phase in here]
            predicted = np.concatenate([phase.predicted_us for phase in here])
            axis.scatter(predicted / 1e3, np.concatenate(achieved) / 1e3, s=9, color=colour, marker=marker, alpha=0.45,
                         linewidths=0, rasterized=True)
            numbers += [_row(phase, times) for phase, times in zip(here, achieved)]
        _diagonal(axis)
        axis.set_title(f"{devices} devices")
        axis.set_ylabel("achieved, ms")
    axes[-1].set_xlabel("predicted expert time of the slowest device, ms")
    errors = {policy: np.concatenate([row["errors"] for row in numbers if row["policy"] == policy])
              for policy in policies}
    worst = max(errors, key=lambda policy: abs(np.median(errors[policy])))
    best = min(errors, key=lambda policy: abs(np.median(errors[policy])))
    title = f"Layers under {worst} took {100 * np.median(errors[worst]):+.1f} % against their prediction in the median"
    if best != worst:
        title += f", under {best} {100 * np.median(errors[best]):+.1f} %"
    for row in numbers:
        del row["errors"]
    caption = ("One point per layer and phase: the slowest device's expert time as the speed models predicted it for "
               "the loads that the policy planned with, and its mean over the phase's steps (other steps, of the same "
               "workload). On the diagonal both agree; above it the loads or the devices had moved." + note)
    return [Drawing("prediction", title, caption, numbers, figure)]


def _row(phase, achieved):
    return {**phase.factors, "predicted_layer_us": float(phase.predicted_us.mean()),
            "lower_bound_layer_us": float(phase.lower_bound_us.mean()), "achieved_layer_us": float(achieved.mean()),
            "median_error": float(np.median(achieved / phase.predicted_us - 1)),
            "errors": achieved / phase.predicted_us - 1}


def _diagonal(axis):
    low = min(axis.get_xlim()[0], axis.get_ylim()[0])
    high = max(axis.get_xlim()[1], axis.get_ylim()[1])
    axis.plot([low, high], [low, high], color=style.GREY, linewidth=0.8, zorder=0)
    axis.set_xlim(low, high)
    axis.set_ylim(low, high)
