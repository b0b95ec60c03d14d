"""The highest request rate that keeps the attainment, per policy, with every rate that the search tried."""

import numpy as np

from moevar import cells, serving, style
from moevar.figures import Drawing, NotCarried, pages

PANELS = 2


def draw(study):
    panels, note = serving.panels(study)
    panels = {key: {policy: [one for _, repeats in found for one in repeats if "max_rate" in one.entry]
                    for policy, found in by_policy.items()} for key, by_policy in panels.items()}
    panels = {key: by_policy for key, by_policy in panels.items() if all(by_policy.values())}
    if not panels:
        raise NotCarried("The highest rate that keeps the attainment is looked for with serving.find_rate = true.")
    return pages("max-rate", list(panels.items()), PANELS, lambda name, part: _draw(study, name, part, note))


def _draw(study, name, panels, note):
    limits = serving.limits(study)
    policies = list(dict.fromkeys(policy for _, by_policy in panels for policy in by_policy))
    entries = [(policy, *style.look(policy), True) for policy in policies]
    figure, axes = style.rows(2 * len(panels), 1.75, entries=entries)
    numbers = []
    for (tried, found), ((condition, devices), by_policy) in zip(zip(axes[::2], axes[1::2]), panels):
        _tried(tried, by_policy, limits)
        tried.set_title(f"{devices} devices · {condition.label}")
        for place, (policy, repeats) in enumerate(by_policy.items()):
            numbers += _found(found, place, policy, repeats)
        style.names_down(found, list(by_policy))
        low, high = found.get_xlim()
        found.set_xlim(max(0.0, low - 0.1 * (high - low)), high + 0.1 * (high - low))
        found.set_xlabel("rate found, requests/s per device")
    caption = (f"Above: every rate that the search tried, and the share of requests that keep {limits.label}; dashed: "
               f"{100 * limits.attainment:g} %. Below: where each repeat crosses it (small marks, in the search's "
               "bracket; an arrow: beyond all rates that were tried), and the mean of the repeats with its 95 % "
               f"interval, from {cells.FEWEST_REPEATS} repeats on." + note)
    return Drawing(name, _title(numbers), caption, numbers, figure)


def _tried(axis, by_policy, limits):
    axis.axhline(100 * limits.attainment, color=style.GREY, linewidth=0.9, linestyle="--")
    for policy, repeats in by_policy.items():
        colour, marker = style.look(policy)
        for one in repeats:
            rates, shares = np.array(one.entry["max_rate"]["evaluations"]).T
            axis.scatter(rates, 100 * shares, s=14, color=colour, marker=marker, alpha=0.55, linewidths=0)
    rates = [rate for repeats in by_policy.values() for one in repeats
             for rate, _ in one.entry["max_rate"]["evaluations"]]
    if max(rates) > 8 * min(rates):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylim(0, 105)
    axis.set_ylabel("within the limits, %")
    axis.set_xlabel("rate tried, requests/s per device")


def _found(axis, place, policy, repeats):
    colour, marker = style.look(policy)
    rows = []
    for i, one in enumerate(repeats):
        up = style.dodge(i, len(repeats), 0.5)
        search = one.entry["max_rate"]
        rate, low, high = search["rate"], search["low"], search["high"]
        if rate is None:    # kept at all rates, or at none
            axis.plot([low if high is None else high], [place + up], marker=">" if high is None else "<", color=colour,
                      markersize=5)
        else:
            style.error_bar(axis, rate, place + up, low, high, colour, horizontal=True, cap=0)
            axis.plot([rate], [place + up], marker=marker, color=colour, markersize=3.2, alpha=0.6)
        rows.append({**one.phase.factors, "what": "found rate", "value": rate, "kept": low, "missed": high,
                     "evaluations": search["evaluations"]})
    estimate = serving.found_rate(repeats)
    if estimate is not None and len(repeats) > 1:
        style.error_bar(axis, estimate.value, place, estimate.low, estimate.high, colour, horizontal=True)
        axis.plot([estimate.value], [place], marker=marker, color=colour, markersize=6.5)
    if estimate is not None:
        rows.append({**repeats[0].phase.factors, "repeat": None, "phase": None, "what": "found rate over repeats",
                     "phases": [one.phase.index for one in repeats], **cells.interval(estimate)})
    return rows


def _title(numbers):
    rows = [row for row in numbers if row["what"] == "found rate over repeats"]
    if not rows:
        return "No policy's attainment crosses its target within the rates that were tried"
    first = rows[0]
    same = [row for row in rows if all(row[key] == first[key] for key in ("devices", "power_cap_w", "heat", "workload",
                                                                          "scaling"))]
    best = max(same, key=lambda row: row["value"])
    text = f"{best['policy']} keeps the attainment up to {best['value']:.3g} requests/s per device"
    if best is not first:
        text += f", {100 * (best['value'] / first['value'] - 1):+.1f} % against {first['policy']}"
    return f"{text} ({best['devices']} devices)"
