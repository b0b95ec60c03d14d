"""The straggler tax against the number of devices, per policy and condition."""

from moevar import cells, style
from moevar.figures import Drawing, NotCarried, percent, with_interval


def draw(study):
    phases = cells.measured(study)
    if not phases:
        raise NotCarried("No phase has measured steps (phases.steps > 0).")
    conditions, policies, sizes = cells.conditions(phases), cells.policies(study, phases), cells.sizes(phases)
    entries = [(policy, *style.look(policy), True) for policy in policies]
    figure, axes = style.rows(len(conditions), 1.9 if len(sizes) > 1 else 1.4, entries=entries, sharey=True)
    numbers, cell_rows = [], []
    for condition, devices, policy, repeats in cells.cells(study, phases):
        axis = axes[conditions.index(condition)]
        x = sizes.index(devices) + style.dodge(policies.index(policy), len(policies))
        estimate = cells.tax_interval(repeats)
        colour, marker = style.look(policy)
        taxes = [_tax(phase) for phase in repeats]
        if len(repeats) >= 5:
            axis.boxplot([[100 * tax for tax in taxes]], positions=[x], widths=0.6 / len(policies), showfliers=False,
                         manage_ticks=False, boxprops={"color": colour, "linewidth": 0.7},
                         whiskerprops={"color": colour, "linewidth": 0.7}, capprops={"linewidth": 0},
                         medianprops={"color": colour})
        if len(repeats) > 1:
            axis.scatter([x] * len(taxes), [100 * tax for tax in taxes], s=5, color=colour, alpha=0.5, linewidths=0)
        style.error_bar(axis, x, 100 * estimate.value, _hundred(estimate.low), _hundred(estimate.high), colour)
        axis.plot([x], [100 * estimate.value], marker=marker, color=colour, markersize=5)
        numbers += [{**phase.factors, "straggler_tax": tax} for phase, tax in zip(repeats, taxes)]
        cell_rows.append((condition, devices, policy, estimate))
        numbers.append({**condition.factors, "devices": devices, "policy": policy, "what": "tax over repeats",
                        "phases": [phase.index for phase in repeats], **cells.interval(estimate)})
    for axis, condition in zip(axes, conditions):
        style.categories(axis, [str(size) for size in sizes])
        axis.set_title(condition.label)
        axis.set_ylabel("straggler tax, %")
    axes[-1].set_xlabel("devices")
    style.from_zero(axes[0])
    title = _title(cell_rows, sizes)
    caption = ("Straggler tax: Σ layer time × devices ÷ Σ busy time − 1, over all layer calls and repeats. Bars: 95 % "
               "intervals: from the autocorrelated steps where repeats have the same devices, over the repeats where each has "
               "a random subset of a pool; no bar: too few for one. Small points: single repeats; boxes from five on: "
               "quartiles. "
               "The number of devices is a category.")
    return [Drawing("tax-by-size", title, caption, numbers, figure)]


def _tax(phase):
    return float(phase.layer_ns.sum() * phase.devices / phase.busy_sum_ns.sum() - 1)


def _hundred(value):
    return None if value is None else 100 * value


def _title(rows, sizes):
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
