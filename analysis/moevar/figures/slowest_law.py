"""The law behind the tax: how slow the slowest of N devices is by the single devices' distribution, and as observed."""

import numpy as np
from scipy import stats

from moevar import cells, extremes, style
from moevar.figures import Drawing, NotCarried, generator, pages

CONDITIONS = 3  # in one figure
BEYOND = 2      # sizes past the largest observed one, each twice as large
LAWS = (("exact", "exact order statistics", style.BLACK, "x", True),
        ("mixture", "bulk and outliers, fitted", style.PURPLE, "h", False),
        ("tail", "extreme-value tail, fitted", style.GREEN, "P", False))


def draw(study):
    if any(phase.serves for phase in study.phases):
        raise NotCarried("The law of the slowest device is set beside steps of one size; requests make steps of every "
                         "size.")
    phases = _observed_phases(study)
    panels = {}
    for condition in cells.conditions(phases):
        fleet = cells.fleet_times(study, condition)
        here = [phase for phase in cells.select(phases, condition) if phase.devices > 1]
        if fleet is not None and len(fleet.rows) > 1 and here:
            panels[condition] = fleet, here
    if not panels:
        raise NotCarried("The law of the slowest device needs speed models of two devices or more: phases.profile, and "
                         "fleet.devices above 1.")
    known = {}
    return pages("slowest-law", list(panels.items()), CONDITIONS,
                 lambda name, part: _draw(study, phases, name, dict(part), known))


def _draw(study, phases, name, panels, known):
    rng = generator(name)
    laws = {condition: _law_once(fleet, _sizes(here), rng, known) for condition, (fleet, here) in panels.items()}
    seen = {condition: _observations(study, here) for condition, (_, here) in panels.items()}
    policies = cells.policies(study, [repeats[0] for rows in seen.values() for _, _, repeats, _ in rows])
    drawn = {row["law"] for rows in laws.values() for row in rows}
    entries = [(label, colour, marker, filled) for law, label, colour, marker, filled in LAWS if law in drawn]
    entries += [(f"observed, {policy}", *style.look(policy), True) for policy in policies]
    each = 2 if policies else 1     # without observations there is no difference to show
    figure, axes = style.rows(each * len(panels), style.ladder_height(cells.sizes(phases)) - 0.15, entries=entries)
    numbers = []
    for i, (condition, (fleet, here)) in enumerate(panels.items()):
        panel = axes[each * i:each * (i + 1)]
        sizes = sorted({*cells.sizes(here), *(row["devices"] for row in laws[condition])})
        exact = _draw_laws(panel[0], laws[condition], sizes)
        numbers += [{**condition.factors, "what": "law", "devices_known": len(fleet.rows),
                     "fleet_phases": [phase.index for phase in fleet.phases], **row} for row in laws[condition]]
        numbers += [_draw_observed(panel, condition, row, exact, sizes, policies) for row in seen[condition]]
        _label(panel, condition, sizes)
    axes[-1].set_xlabel("devices")
    return Drawing(name, _title(numbers), _caption(numbers, bool(policies), phases[0].even_load), numbers, figure)


def _caption(numbers, observed, even_load):
    text = ("Expert time of the slowest device over the mean of all − 1. Exact: of N devices drawn without replacement "
            "from those known; fitted: a Gaussian bulk with outliers (bars: 95 % intervals) and a generalised Pareto "
            "tail, also for fleets larger than any run. ")
    if observed:
        text += "Observed with all experts equally popular (even_load = 1). " if even_load else (
            "Observed with the study's own loads as the policies that look at loads balance them: what skew they "
            "leave, and run noise, are in the difference. ")
        text += ("Lower panels: observed − exact order statistics in points of per cent, with the observation's 95 % "
                 "interval: what devices' lasting differences alone do not explain.")
    else:
        text += "Nothing observed stands beside it, for no sums of expert times per device were kept."
    warnings = list(dict.fromkeys(row["warning"] for row in numbers if row.get("warning")))
    return text + "".join(f" Beware: {warning}." for warning in warnings[-1:])


def _observed_phases(study):
    """Where the study ran with even loads, those phases show hardware and noise alone; else its own cells under
    policies that look at loads, if it has any: without balance, skew hides the law."""
    even = [phase for phase in study.phases if phase.even_load and not phase.equal_fleet and phase.layer_ns.size]
    own = cells.measured(study)
    return even or [phase for phase in own if phase.policy not in cells.BLIND] or own


def _law_once(fleet, sizes, rng, known):
    """law_of(), once for fleets that are the same under several conditions, as under strong and weak scaling: a large
    one takes seconds. `known` holds what was found, over all pages of a figure."""
    key = np.round(fleet.relative, 9).tobytes(), tuple(sizes)   # times of other work, divided, round differently
    if key not in known:
        known[key] = law_of(fleet, sizes, rng)
    return known[key]


def law_of(fleet, sizes, rng):
    """Rows of the laws at these sizes: value is E[slowest of N] ÷ mean − 1 by each law that the sample supports."""
    to_mean = float(np.median(fleet.relative) / fleet.relative.mean())
    rows = []
    known = [n for n in sizes if n <= len(fleet.rows)]
    for n in known:
        rows.append({"law": "exact", "devices": n, "low": None, "high": None,
                     "value": extremes.expected_slowest(fleet.relative, n) * to_mean - 1})
    for projection in _projected(fleet.relative, sizes, rng):
        low, high = (None if end is None else end * to_mean - 1 for end in (projection.low, projection.high))
        rows.append({"law": "mixture", "devices": projection.n, "value": projection.value * to_mean - 1, "low": low,
                     "high": high, "warning": projection.warning})
    for n, value in _tail(fleet.relative, sizes):
        rows.append({"law": "tail", "devices": n, "value": value * to_mean - 1, "low": None, "high": None})
    return rows


def _projected(relative, sizes, rng):
    """The projection of extremes; none where the sample is too small for one or has no spread."""
    try:
        return extremes.project(relative, sizes, rng=rng)
    except ValueError:
        return []


def _tail(relative, sizes):
    """(n, E[slowest of n] ÷ median) by the fitted tail above its threshold and the sample below it."""
    try:
        tail = extremes.fit_tail(relative)
    except ValueError:
        return
    if tail.shape.value >= 1:   # such a tail has no mean
        return
    u = (np.arange(4000) + 0.5) / 4000
    ordered, median = np.sort(relative), np.median(relative)
    for n in sizes:
        v = u ** (1 / n)        # the slowest of n is at quantile u where one device is at u^(1/n)
        rank = np.minimum(np.ceil(v * ordered.size).astype(int), ordered.size) - 1
        beyond = tail.threshold + stats.genpareto.isf(np.minimum((1 - v) / tail.rate, 1), tail.shape.value,
                                                      scale=tail.scale.value)
        yield n, float(np.where(v >= 1 - tail.rate, beyond, ordered[rank]).mean() / median)


def _sizes(phases):
    """The observed sizes, and BEYOND larger ones, each twice as large."""
    observed = cells.sizes(phases)
    return observed + [observed[-1] * 2 ** (i + 1) for i in range(BEYOND)]


def _draw_laws(axis, laws, sizes):
    """The laws' values with their intervals; those of the exact one by size."""
    for row in laws:
        place = [name for name, *_ in LAWS].index(row["law"])
        _, _, colour, marker, filled = LAWS[place]
        x, value = sizes.index(row["devices"]) - 0.36 + 0.11 * place, 100 * row["value"]
        low, high = (None if row[end] is None else 100 * row[end] for end in ("low", "high"))
        style.error_bar(axis, x, value, low, high, colour)
        axis.plot([x], [value], marker=marker, color=colour, markersize=style.marker_size(len(sizes)),
                  markerfacecolor=colour if filled else "white")
    return {row["devices"]: row["value"] for row in laws if row["law"] == "exact"}


def _label(panel, condition, sizes):
    for axis, label in zip(panel, ("slowest ÷ mean − 1, %", "observed − law, points")):
        style.categories(axis, [str(size) for size in sizes])
        axis.set_ylabel(label)
    panel[0].set_title(condition.label)
    style.from_zero(panel[0])
    for axis in panel[1:]:
        axis.axhline(0, color=style.GREY, linewidth=0.8)


def _observations(study, phases):
    """(devices, policy, repeats, estimate) of every cell whose sums were kept."""
    rows = [(devices, policy, repeats, _observed(repeats))
            for _, devices, policy, repeats in cells.cells(study, phases)]
    return [row for row in rows if row[3] is not None]


def _observed(repeats):
    """Σ slowest device's expert time x devices ÷ Σ expert time over devices − 1; None where sums were not kept."""
    sums = [cells.expert_sum_ns(phase) for phase in repeats]
    if any(part is None for part in sums):
        return None
    found = cells.ratio_interval(repeats, [p.expert_max_ns * float(p.devices) for p in repeats], sums)
    return cells.shifted(found, -1.0)


def _draw_observed(panel, condition, row, exact, sizes, policies):
    """What was observed, above; and its difference from the law, below, where there is one. The row of numbers."""
    upper, lower = panel
    devices, policy, repeats, estimate = row
    colour, marker = style.look(policy)
    x = sizes.index(devices) + 0.17 + style.dodge(policies.index(policy), len(policies), 0.28)
    style.error_bar(upper, x, 100 * estimate.value, *cells.ends(estimate, 100), colour)
    upper.plot([x], [100 * estimate.value], marker=marker, color=colour, markersize=style.marker_size(len(sizes), 4.5))
    left = cells.shifted(estimate, -exact[devices]) if devices in exact else None
    if left:
        style.error_bar(lower, x, 100 * left.value, *cells.ends(left, 100), colour)
        lower.plot([x], [100 * left.value], marker=marker, color=colour, markersize=style.marker_size(len(sizes), 4.5))
    return {**condition.factors, "what": "observed", "devices": devices, "policy": policy,
            "even_load": repeats[0].even_load, "phases": [phase.index for phase in repeats],
            **cells.interval(estimate), "minus_law": left.value if left else None}


def _title(numbers):
    laws = [row for row in numbers if row["what"] == "law" and row["law"] == "exact"]
    if not laws:
        return "How slow the slowest of N devices is"
    row = max(laws, key=lambda row: (row["devices"], row["value"]))
    seen = [other for other in numbers if other["what"] == "observed" and other["devices"] == row["devices"]
            and other["power_cap_w"] == row["power_cap_w"] and other["heat"] == row["heat"]]
    text = (f"By the devices' lasting differences alone the slowest of {row['devices']} takes "
            f"{100 * row['value']:.1f} % over the mean")
    if seen:
        least = min(seen, key=lambda other: other["value"])
        span = "" if least["low"] is None else f" ({100 * least['low']:.1f} to {100 * least['high']:.1f} %)"
        text += f"; observed under {least['policy']}: {100 * least['value']:.1f} %{span}"
    return text
