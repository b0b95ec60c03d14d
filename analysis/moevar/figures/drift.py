"""A run under drifting loads: layer time step after step, and where a placement was solved anew."""

import re

import numpy as np

from moevar import cells, style
from moevar.figures import Drawing, NotCarried

ANEW = {"cosine": (style.VERMILION, "v"), "magnitude": (style.GREEN, "s"), "residual": (style.PURPLE, "D")}
POINTS = 1500


def draw(study):
    if any(phase.serves for phase in study.phases):
        raise NotCarried("Requests make steps of every size, whose times tell of no drift; what changed in a run "
                         "stands under Requests.")
    recompute = study.config.get("placement", {}).get("recompute")
    if recompute != "on-drift":
        raise NotCarried("Drift and recovery need placement.recompute = \"on-drift\" and several phases of a policy "
                         "(repeats or conditions), with workload.drift above 0.")
    phases = cells.measured(study)
    series = {}
    for phase in sorted(phases, key=lambda phase: phase.index):
        series.setdefault((phase.devices, phase.policy), []).append(phase)
    series = {key: found for key, found in series.items() if len(found) > 1}
    if not series:
        raise NotCarried("Drift and recovery need several phases of a policy: study.repeats or more conditions.")
    conditions = cells.conditions(phases)
    looks = {condition: style.condition_look(i) for i, condition in enumerate(conditions)}
    entries = [(condition.label, *look, True) for condition, look in looks.items()]
    entries += [(f"solved anew: {why}", *mark, True) for why, mark in ANEW.items()
                if any(_why(phase) == why for phase in phases)]
    figure, axes = style.rows(len(series), 1.6, entries=entries, sharex=True)
    numbers = []
    for axis, ((devices, policy), found) in zip(axes, series.items()):
        numbers += _draw_series(axis, found, looks)
        axis.set_title(f"{policy} · {devices} devices")
        axis.set_ylabel("layer time, ms")
    axes[-1].set_xlabel("steps in the order in which the policy ran them")
    anew = [row for row in numbers if row["solved_anew_by"]]
    title = (f"Placements were solved anew before {len(anew)} of {len(numbers)} phases"
             + (f", {_most(anew)}" if anew else ""))
    caption = ("One point per step: the mean time of its layers (of many steps an even sample). Dotted lines: phases "
               "of one placement. Marks on top: before that phase the placement no longer fitted and was solved anew, "
               "and what showed it (solved_because).")
    return [Drawing("drift", title, caption, numbers, figure)]


def _why(phase):
    """cosine, magnitude or residual; None where the placement was the first, kept, or solved for every phase."""
    found = re.match(r"cosine|magnitude|residual", phase.solved_because)
    return found.group(0) if found else None


def _most(rows):
    causes = [row["solved_anew_by"] for row in rows]
    most = max(sorted(set(causes)), key=causes.count)
    return f"{causes.count(most)} times for the {most}"


def _draw_series(axis, phases, looks):
    first, rows, tops = 0, [], []
    every = max(1, sum(phase.steps for phase in phases) // POINTS)
    for phase in phases:
        colour, marker = looks[cells.condition_of(phase)]
        steps = phase.layer_ns.mean(axis=1) / 1e6
        shown = np.arange(0, phase.steps, every)
        axis.scatter(first + shown, steps[shown], s=6, color=colour, marker=marker, linewidths=0)
        if first:
            axis.axvline(first - 0.5, color=style.GREY, linewidth=0.6, linestyle=":")
        if _why(phase):
            tops.append((first, _why(phase)))
        rows.append({**phase.factors, "first_place": first, "steps": phase.steps,
                     "layer_us.mean": float(phase.layer_ns.mean() / 1e3), "solved_because": phase.solved_because,
                     "solved_anew_by": _why(phase)})
        first += phase.steps
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.12 * (high - low))
    for x, why in tops:
        colour, marker = ANEW[why]
        axis.plot([x], [high + 0.07 * (high - low)], color=colour, marker=marker, markersize=5, clip_on=False)
    return rows
