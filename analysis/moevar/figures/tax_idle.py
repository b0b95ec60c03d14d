"""Straggler tax and idle share of the policies side by side."""

from moevar import cells, style
from moevar.figures import Drawing, pages, percent, policy_panels

PANELS = 8
ENTRIES = [("straggler tax", style.BLUE, "o", True), ("idle share of device time", style.ORANGE, "D", False)]


def draw(study):
    panels, note = policy_panels(study)
    rows = [(panel, [(policy, repeats, (cells.tax_interval(repeats), cells.idle_interval(repeats)))
                     for policy, repeats in cells_here]) for panel, cells_here in panels.items()]
    return pages("tax-idle", rows, PANELS, lambda name, part: _draw(name, part, note))


def _draw(name, panels, note):
    highest = max(len(rows) for _, rows in panels)
    figure, axes = style.rows(len(panels), 0.62 + 0.17 * highest, entries=ENTRIES, sharex=True)
    numbers = []
    for axis, ((condition, devices), rows) in zip(axes, panels):
        for place, (policy, repeats, estimates) in enumerate(rows):
            _draw_cell(axis, place, estimates)
            numbers += [{**condition.factors, "devices": devices, "policy": policy, "what": what,
                         "phases": [phase.index for phase in repeats], **cells.interval(estimate)}
                        for what, estimate in zip(("straggler_tax", "idle_fraction"), estimates)]
        style.names_down(axis, [policy for policy, *_ in rows])
        axis.set_title(f"{devices} devices · {condition.label}")
    axes[-1].set_xlabel("%")
    style.from_zero(axes[0], "x", 1.03)
    caption = ("Tax: Σ layer time × devices ÷ Σ busy time − 1. Idle: Σ wait ÷ (devices × Σ layer time). Both over all "
               "layer calls and repeats, with 95 % intervals, as in the figure of taxes by size." + note)
    return Drawing(name, _title(*panels[0]), caption, numbers, figure)


def _draw_cell(axis, place, estimates):
    for i, (estimate, (_, colour, marker, filled)) in enumerate(zip(estimates, ENTRIES)):
        y = place + style.dodge(i, 2, 0.26)
        style.error_bar(axis, 100 * estimate.value, y, *cells.ends(estimate, 100), colour, horizontal=True)
        axis.plot([100 * estimate.value], [y], marker=marker, color=colour, markersize=4.5,
                  markerfacecolor=colour if filled else "white")


def _title(panel, rows):
    """What the first panel shows."""
    condition, devices = panel
    idle = {policy: estimates[1].value for policy, _, estimates in rows}
    worst, least = max(idle, key=idle.get), min(idle, key=idle.get)
    text = f"Devices idle {percent(idle[worst])} of the time under {worst}"
    if least != worst:
        text += f", {percent(idle[least])} under {least}"
    return f"{text} ({devices} devices, {condition.label})"
