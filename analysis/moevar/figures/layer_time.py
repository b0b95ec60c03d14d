"""Layer times of the policies side by side: median, 90th and 99th percentile."""

from moevar import cells, intervals, style
from moevar.figures import Drawing, NotCarried

QUANTILES = (("median", intervals.MEDIAN, True), ("p90", intervals.P90, True), ("p99", intervals.P99, False))


def draw(study):
    phases = cells.measured(study)
    if not phases:
        raise NotCarried("No phase has measured steps (phases.steps > 0).")
    policies = cells.policies(study, phases)
    panels = {}
    for condition, devices, policy, repeats in cells.cells(study, phases):
        panels.setdefault((condition, devices), []).append((policy, repeats))
    entries = [("median", style.BLUE, "o", True), ("90th percentile", style.ORANGE, "D", True),
               ("99th percentile", style.VERMILION, "s", False)]
    figure, axes = style.rows(len(panels), 0.62 + 0.2 * len(policies), entries=entries)
    numbers, best = [], None
    for axis, ((condition, devices), rows) in zip(axes, panels.items()):
        for place, (policy, repeats) in enumerate(rows):
            estimates = _draw_cell(axis, place, repeats, entries)
            for name, estimate in estimates.items():
                numbers.append({**condition.factors, "devices": devices, "policy": policy, "what": f"layer_us.{name}",
                                "phases": [phase.index for phase in repeats], **cells.interval(estimate)})
        style.names_down(axis, [policy for policy, _ in rows])
        axis.set_title(f"{devices} devices · {condition.label}")
        style.from_zero(axis, "x", 1.03)
        best = best or _ratio(condition, devices, rows)
    axes[-1].set_xlabel("layer time, ms")
    title = best or "How long a layer takes under each policy"
    caption = ("Nearest-rank quantiles over all layer calls of all repeats, with 95 % intervals by ranks at the effective "
               "sample size of the autocorrelated steps; a quantile without a bar has an interval that so few steps do not "
               "support.")
    return [Drawing("layer-time", title, caption, numbers, figure)]


def _draw_cell(axis, place, repeats, entries):
    series = [phase.layer_ns / 1e3 for phase in repeats]
    estimates = {}
    for i, ((name, p, _), (_, colour, marker, filled)) in enumerate(zip(QUANTILES, entries)):
        estimate = estimates[name] = intervals.quantile_series(series, p)
        y = place + style.dodge(i, 3, 0.36)
        style.error_bar(axis, estimate.value / 1e3, y, *(None if end is None else end / 1e3
                                                        for end in (estimate.low, estimate.high)), colour, horizontal=True)
        axis.plot([estimate.value / 1e3], [y], marker=marker, color=colour, markersize=4.5,
                  markerfacecolor=colour if filled else "white")
    return estimates


def _ratio(condition, devices, rows):
    """A title from the first panel: the policy with the lowest mean beside the first one."""
    base, base_repeats = rows[0]
    if len(rows) < 2:
        return None
    def mean(repeats):
        return sum(phase.layer_ns.sum() for phase in repeats) / sum(phase.layer_ns.size for phase in repeats)
    policy, repeats = min(rows[1:], key=lambda row: mean(row[1]))
    change = intervals.relative_difference([p.layer_ns for p in base_repeats], [p.layer_ns for p in repeats],
                                           paired=_same_steps(base_repeats, repeats))
    span = "" if change.low is None else f" ({100 * change.low:+.1f} to {100 * change.high:+.1f} %)"
    return (f"{policy} changes the mean layer time of {base} by {100 * change.value:+.1f} %{span} "
            f"on {devices} devices ({condition.label})")


def _same_steps(one, other):
    """Whether two cells' repeats took the same steps of the workload, so that they can be compared step by step."""
    return [(p.repeat, p.first_step, p.steps) for p in one] == [(p.repeat, p.first_step, p.steps) for p in other]
