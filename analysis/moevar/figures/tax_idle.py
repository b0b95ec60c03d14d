"""Straggler tax and idle share of the policies side by side."""

from moevar import cells, style
from moevar.figures import Drawing, NotCarried, percent


def draw(study):
    phases = cells.measured(study)
    if not phases:
        raise NotCarried("No phase has measured steps (phases.steps > 0).")
    panels, numbers = {}, []
    for condition, devices, policy, repeats in cells.cells(study, phases):
        tax, idle = cells.tax_interval(repeats), cells.idle_interval(repeats)
        panels.setdefault((condition, devices), []).append((policy, tax, idle))
        for name, estimate in (("straggler_tax", tax), ("idle_fraction", idle)):
            numbers.append({**condition.factors, "devices": devices, "policy": policy, "what": name,
                            "phases": [phase.index for phase in repeats], **cells.interval(estimate)})
    entries = [("straggler tax", style.BLUE, "o", True), ("idle share of device time", style.ORANGE, "D", False)]
    highest = max(len(rows) for rows in panels.values())
    figure, axes = style.rows(len(panels), 0.62 + 0.17 * highest, entries=entries, sharex=True)
    for axis, ((condition, devices), rows) in zip(axes, panels.items()):
        for place, (_, *estimates) in enumerate(rows):
            for i, (estimate, (_, colour, marker, filled)) in enumerate(zip(estimates, entries)):
                y = place + style.dodge(i, 2, 0.26)
                low, high = (None if end is None else 100 * end for end in (estimate.low, estimate.high))
                style.error_bar(axis, 100 * estimate.value, y, low, high, colour, horizontal=True)
                axis.plot([100 * estimate.value], [y], marker=marker, color=colour, markersize=4.5,
                          markerfacecolor=colour if filled else "white")
        style.names_down(axis, [policy for policy, *_ in rows])
        axis.set_title(f"{devices} devices · {condition.label}")
    axes[-1].set_xlabel("%")
    style.from_zero(axes[0], "x", 1.03)
    (condition, devices), rows = next(iter(panels.items()))
    worst, least = max(rows, key=lambda row: row[2].value), min(rows, key=lambda row: row[2].value)
    title = (f"Devices idle {percent(worst[2].value)} of the time under {worst[0]}, {percent(least[2].value)} under "
             f"{least[0]} ({devices} devices, {condition.label})")
    caption = ("Tax: Σ layer time × devices ÷ Σ busy time − 1. Idle: Σ wait ÷ (devices × Σ layer time). Both over all layer "
               "calls and repeats, with 95 % intervals, as in the figure of taxes by size.")
    return [Drawing("tax-idle", title, caption, numbers, figure)]
