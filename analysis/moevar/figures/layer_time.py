"""Layer times of the policies side by side: median, 90th and 99th percentile."""

from moevar import cells, intervals, style
from moevar.figures import Drawing, pages, policy_panels

QUANTILES = (("median", intervals.MEDIAN), ("p90", intervals.P90), ("p99", intervals.P99))
PANELS = 8
ENTRIES = [("median", style.BLUE, "o", True), ("90th percentile", style.ORANGE, "D", True),
           ("99th percentile", style.VERMILION, "s", False)]


def draw(study):
    panels, note = policy_panels(study)
    return pages("layer-time", list(panels.items()), PANELS, lambda name, part: _draw(name, part, note))


def _draw(name, panels, note):
    highest = max(len(rows) for _, rows in panels)
    figure, axes = style.rows(len(panels), 0.62 + 0.2 * highest, entries=ENTRIES)
    numbers, best = [], None
    for axis, ((condition, devices), rows) in zip(axes, panels):
        for place, (policy, repeats) in enumerate(rows):
            for kind, estimate in _draw_cell(axis, place, repeats).items():
                numbers.append({**condition.factors, "devices": devices, "policy": policy, "what": f"layer_us.{kind}",
                                "phases": [phase.index for phase in repeats], **cells.interval(estimate)})
        style.names_down(axis, [policy for policy, _ in rows])
        axis.set_title(f"{devices} devices · {condition.label}")
        style.from_zero(axis, "x", 1.03)
        best = best or _ratio(condition, devices, rows)
    axes[-1].set_xlabel("layer time, ms")
    caption = ("Nearest-rank quantiles over all layer calls of all repeats, with 95 % intervals by ranks at the "
               "effective sample size of the autocorrelated steps, or from leaving out repeats where each has other "
               "devices of a pool; a quantile without a bar has an interval that so few steps do not support."
               + note + _of_requests(panels))
    return Drawing(name, best or "How long a layer takes under each policy", caption, numbers, figure)


def _of_requests(panels):
    """What the caption adds where requests made the steps."""
    phases = [phase for _, rows in panels for _, repeats in rows for phase in repeats]
    if not phases[0].serves:
        return ""
    return " Requests made the steps: a policy that falls behind has more tokens in each."


def _draw_cell(axis, place, repeats):
    estimates = {}
    for i, ((name, p), (_, colour, marker, filled)) in enumerate(zip(QUANTILES, ENTRIES)):
        estimate = estimates[name] = cells.shifted(cells.layer_quantile(repeats, p), 0.0, 1e-3)
        y = place + style.dodge(i, 3, 0.36)
        style.error_bar(axis, estimate.value / 1e3, y, *cells.ends(estimate, 1e-3), colour, horizontal=True)
        axis.plot([estimate.value / 1e3], [y], marker=marker, color=colour, markersize=4.5,
                  markerfacecolor=colour if filled else "white")
    return estimates


def _ratio(condition, devices, rows):
    """A title from the first panel: the policy with the lowest mean beside the first one."""
    base, base_repeats = rows[0]
    rows = [row for row in rows if cells.comparable(base_repeats, row[1])]
    if len(rows) < 2:
        return None

    def mean(repeats):
        return sum(phase.layer_ns.sum() for phase in repeats) / sum(phase.layer_ns.size for phase in repeats)

    policy, repeats = min(rows[1:], key=lambda row: mean(row[1]))
    change = cells.layer_change(base_repeats, repeats)
    span = "" if change.low is None else f" ({100 * change.low:+.1f} to {100 * change.high:+.1f} %)"
    return (f"{policy} changes the mean layer time of {base} by {100 * change.value:+.1f} %{span} on {devices} devices "
            f"({condition.label})")
