"""The straggler tax taken apart into noise, skew, hardware and what the last two do together, per policy and size."""

from moevar import causes, cells, style
from moevar.figures import Drawing, NotCarried, pages
from moevar.study import StudyError

PANELS = 8
PARTS = (("noise", style.GREY, "s", True), ("skew", style.ORANGE, "D", True), ("hardware", style.BLUE, "o", True),
         ("interaction", style.PURPLE, "^", True), ("total", style.BLACK, "|", True))


def draw(study):
    if any(phase.serves for phase in study.phases):
        raise NotCarried("The split of causes is of the same steps in all its cells; requests make others in each.")
    groups = _groups(study)
    if not groups:
        raise NotCarried("The split of causes needs every cell with its own and with even loads, on the fleet as it is "
                         "and on equal GPUs: study.causes = true makes them.")
    panels = list(dict.fromkeys((condition, devices) for condition, devices, _ in groups))
    return pages("causes", panels, PANELS, lambda name, part: _draw(study, groups, name, part))


def _draw(study, groups, name, panels):
    policies = [policy for policy in cells.policies(study, study.phases) if any(key[2] == policy for key in groups)]
    figure, axes = style.rows(len(panels), 0.62 + 0.34 * len(policies), entries=list(PARTS), sharex=True)
    numbers, predicted = [], False
    for axis, (condition, devices) in zip(axes, panels):
        names = [policy for policy in policies if (condition, devices, policy) in groups]
        for place, policy in enumerate(names):
            four, was_predicted = groups[condition, devices, policy]
            predicted |= was_predicted
            numbers += _draw_split(axis, place, condition, devices, policy, four, was_predicted)
        style.names_down(axis, names)
        axis.axvline(0, color=style.GREY, linewidth=0.8)
        axis.set_title(f"{devices} devices · {condition.label}")
    axes[-1].set_xlabel("straggler tax, points of per cent")
    caption = ("Each cell ran its steps four times: with its own or with even loads, on the fleet as it is or on equal "
               "GPUs. Noise: the tax with even loads on equal GPUs; skew and hardware: what own loads or own GPUs "
               "alone add; interaction: what both together add beyond that; the parts sum to the total. 95 % "
               "intervals: over repeats where each has other devices, else of steps that the four have in common.")
    if predicted:
        caption += (" Equal GPUs are predicted here, not measured: every device's time is set to the fleet's mean "
                    "curve.")
    return Drawing(name, _title(numbers), caption, numbers, figure)


def _groups(study):
    """{(condition, devices, policy): ({(even_load, equal_fleet): a phase per repeat}, predicted)} where all four cells
    are there, or can be predicted, for the same repeats."""
    found = {}
    for phase in study.phases:
        if phase.layer_ns.size:
            key = cells.condition_of(phase), phase.devices, phase.policy
            cell = int(phase.even_load), int(phase.equal_fleet)
            found.setdefault(key, {}).setdefault(cell, {})[phase.repeat] = phase
    ordered = {}
    for condition in cells.conditions(study.phases):
        for devices in cells.sizes(study.phases):
            for policy in cells.policies(study, study.phases):
                four = found.get((condition, devices, policy), {})
                complete = _complete(four)
                if complete:
                    ordered[condition, devices, policy] = complete
    return ordered


def _complete(four):
    """The four cells for the repeats that all have; equal fleets predicted where none was run. None: not four cells."""
    needed = causes.CELLS if any(equal for _, equal in four) else ((1, 0), (0, 0))
    if not set(needed) <= set(four):
        return None
    repeats = sorted(set.intersection(*(set(four[cell]) for cell in needed)))
    phases = {cell: [four[cell][repeat] for repeat in repeats] for cell in needed}
    predicted = len(needed) == 2
    if not repeats or predicted and not all(_predictable(phase) for part in phases.values() for phase in part):
        return None
    return phases, predicted


def _predictable(phase):
    return phase.has_timelines and phase.has("speed_model/tokens") and phase.speed_tokens.shape[1] > 0


def _series(phase):
    return causes.LayerSeries(phase.layer_ns, phase.busy_sum_ns, phase.devices)


def _equal(phase):
    return causes.predicted_equal_fleet(phase.array("tokens"), phase.speed_tokens, phase.speed_time_us,
                                        phase.array("expert_ns"), phase.array("dispatch_ns"), phase.array("combine_ns"))


def _split(four, predicted):
    series = {cell: [_series(phase) for phase in phases] for cell, phases in four.items()}
    if predicted:
        for even in (0, 1):
            series[even, 1] = [_equal(phase) for phase in four[even, 0]]
    return causes.split(series, unit="repeat" if cells.other_devices(four[0, 0]) else "step")


def _draw_split(axis, place, condition, devices, policy, four, predicted):
    try:
        split = _split(four, predicted)
    except ValueError as error:     # four cells that did not run the same steps
        raise StudyError(f"phases {[phase.name for part in four.values() for phase in part]}: {error}; "
                         "a study with study.causes = true is needed") from None
    rows = []
    for i, (name, colour, marker, _) in enumerate(PARTS):
        estimate = getattr(split, name)
        y = place + style.dodge(i, len(PARTS), 0.62)
        style.error_bar(axis, 100 * estimate.value, y, *cells.ends(estimate, 100), colour, horizontal=True)
        axis.plot([100 * estimate.value], [y], marker=marker, color=colour, markersize=5, markeredgewidth=1.5)
        rows.append({**condition.factors, "devices": devices, "policy": policy, "what": name,
                     "equal_fleet_predicted": predicted, "phases": [phase.index for phase in four[0, 0]],
                     "cells": {f"even_load={even} equal_fleet={equal}": [phase.index for phase in phases]
                               for (even, equal), phases in four.items()}, **cells.interval(estimate)})
    return rows


def _title(numbers):
    totals = [row for row in numbers if row["what"] == "total"]
    row = max(totals, key=lambda row: (row["devices"], row["value"]))
    factors = ("devices", "policy", "power_cap_w", "heat", "scaling")
    same = [other for other in numbers if all(other[key] == row[key] for key in factors)]
    parts = {other["what"]: other for other in same}
    largest = max(("noise", "skew", "hardware", "interaction"), key=lambda name: parts[name]["value"])

    def said(name):
        part = parts[name]
        if part["low"] is None:
            return f"{100 * part['value']:.1f}"
        return f"{100 * part['value']:.1f} ({100 * part['low']:.1f} to {100 * part['high']:.1f})"
    text = (f"Of the {said('total')} % that {row['policy']} pays on {row['devices']} devices, {said(largest)} points "
            f"are {largest}")
    return text if largest == "hardware" else f"{text}; hardware alone is {said('hardware')}"
