"""The straggler tax against the number of devices, per policy and condition."""

from moevar import cells, style
from moevar.figures import Drawing, NotCarried, pages, percent, with_interval


PANELS = 4


def draw(study):
    phases = cells.measured(study)
    if not phases:
        raise NotCarried("No phase has measured steps (phases.steps > 0).")
    return pages("tax-by-size", cells.conditions(phases), PANELS, lambda name, part: _draw(study, phases, name, part))


def _draw(study, phases, name, conditions):
    policies, sizes = cells.policies(study, phases), cells.sizes(phases)
    entries = [(policy, *style.look(policy), True) for policy in policies]
    height = style.ladder_height(sizes) if len(sizes) > 1 else 1.4
    figure, axes = style.rows(len(conditions), height, entries=entries, sharey=True)
    numbers, rows = [], []
    for axis, condition in zip(axes, conditions):
        for _, devices, policy, repeats in cells.cells(study, cells.select(phases, condition)):
            x = sizes.index(devices) + style.dodge(policies.index(policy), len(policies))
            estimate, taxes = cells.tax_interval(repeats), [_tax(phase) for phase in repeats]
            _draw_cell(axis, x, policy, estimate, taxes, len(policies), len(sizes))
            numbers += [{**phase.factors, "straggler_tax": tax} for phase, tax in zip(repeats, taxes)]
            numbers.append({**condition.factors, "devices": devices, "policy": policy, "what": "tax over repeats",
                            "phases": [phase.index for phase in repeats], **cells.interval(estimate)})
            rows.append((condition, devices, policy, estimate))
        style.categories(axis, [str(size) for size in sizes])
        axis.set_title(condition.label)
        axis.set_ylabel("straggler tax, %")
    axes[-1].set_xlabel("devices")
    style.from_zero(axes[0])
    caption = ("Straggler tax: Σ layer time × devices ÷ Σ busy time − 1, over all layer calls and repeats. Bars: 95 % "
               "intervals: from the autocorrelated steps where repeats have the same devices, over the repeats where "
               "each has a random subset of a pool; no bar: too few for one. Small points: single repeats; boxes from "
               "five on: quartiles. The number of devices is a category.")
    return Drawing(name, _title(rows), caption, numbers, figure)


def _draw_cell(axis, x, policy, estimate, taxes, policies, places):
    """A cell's tax with its interval, the taxes of its repeats, and from five of them on a box."""
    colour, marker = style.look(policy)
    if len(taxes) >= 5:
        axis.boxplot([[100 * tax for tax in taxes]], positions=[x], widths=0.6 / policies, showfliers=False,
                     manage_ticks=False, boxprops={"color": colour, "linewidth": 0.7},
                     whiskerprops={"color": colour, "linewidth": 0.7}, capprops={"linewidth": 0},
                     medianprops={"color": colour})
    if len(taxes) > 1:
        axis.scatter([x] * len(taxes), [100 * tax for tax in taxes], s=5, color=colour, alpha=0.5, linewidths=0)
    style.error_bar(axis, x, 100 * estimate.value, *cells.ends(estimate, 100), colour)
    axis.plot([x], [100 * estimate.value], marker=marker, color=colour, markersize=style.marker_size(places))


def _tax(phase):
    return float(phase.layer_ns.sum() * phase.devices / phase.busy_sum_ns.sum() - 1)


def _title(rows):
    """rows: (condition, devices, policy, estimate)."""
    sizes = sorted({devices for _, devices, _, _ in rows})
    at_largest = [row for row in rows if row[1] == sizes[-1]]
    high = max(at_largest, key=lambda row: row[3].value)
    low = min((row for row in at_largest if row[0] == high[0]), key=lambda row: row[3].value)
    text = f"On {sizes[-1]} devices lock-step costs {with_interval(high[3], 100, 1, ' %')} under {high[2]}"
    if low[2] != high[2]:
        text += f" and {with_interval(low[3], 100, 1, ' %')} under {low[2]}"
    first = next((row for row in rows if row[0] == high[0] and row[1] == sizes[0] and row[2] == low[2]), None)
    if len(sizes) > 1 and first:
        text += f", where {low[2]} on {sizes[0]} pays {percent(first[3].value)}"
    return f"{text} ({high[0].label})"
