"""Time to first token and time per output token against the request rate: p50, p90 and p99, a line per policy."""

from moevar import cells, serving, style
from moevar.figures import Drawing, pages

METRICS = {"ttft": "time to first token", "tpot": "time per output token"}
LOG_FROM = 12       # highest ÷ lowest value of a figure from which its axes are logarithmic


def draw(study):
    panels, note = serving.panels(study)
    limits = serving.limits(study)
    drawings = []
    for name in METRICS:
        here = [panel for panel in panels.items() if _has(panel, name)]
        if here:
            drawings += pages(f"{name}-by-rate", here, 1,
                              lambda title, part, name=name: _draw(study, title, name, part[0], limits, note))
    return drawings


def _has(panel, name):
    return all(one.entry[f"{name}_ms"] is not None for found in panel[1].values() for _, repeats in found
               for one in repeats)


def _draw(study, title, name, panel, limits, note):
    (condition, devices), by_policy = panel
    limit = limits.ttft_ms if name == "ttft" else limits.tpot_ms
    searched = any(rate is None for found in by_policy.values() for rate, _ in found)
    rates = sorted({rate for found in by_policy.values() for rate, _ in found if rate is not None})
    entries = [(policy, *style.look(policy), True) for policy in by_policy]
    figure, axes = style.rows(len(serving.QUANTILES), 1.75, entries=entries, sharex=True)
    numbers, values = [], []
    for axis, quantile in zip(axes, serving.QUANTILES):
        for place, (policy, found) in enumerate(by_policy.items()):
            estimates = [serving.latency(repeats, name, quantile) for _, repeats in found]
            places = [(0 if searched else rates.index(rate)) + style.dodge(place, len(by_policy), 0.4)
                      for rate, _ in found]
            style.curve(axis, places, estimates, policy)
            values += [estimate.value for estimate in estimates]
            numbers += [{**repeats[0].phase.factors, "repeat": None, "phase": None, "what": f"{name}_ms.{quantile}",
                         "phases": [one.phase.index for one in repeats], **cells.interval(estimate)}
                        for (_, repeats), estimate in zip(found, estimates)]
        axis.set_ylabel(f"{name.upper()} {quantile}, ms")
    _scale(axes, values, limit)
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    style.categories(axes[-1], ["the rate found for each"] if searched else [f"{rate:g}" for rate in rates])
    axes[0].set_title(f"{devices} devices · {condition.label}")
    axes[-1].set_xlabel("rate, requests/s per device")
    caption = (f"Nearest-rank quantiles of the {METRICS[name]}"
               + (", from the intended arrival" if name == "ttft" else ", after the first, of answers of two or more")
               + (f"; dashed: the limit, {limit:g} ms" if limit else "")
               + ". Means over repeats, with 95 % intervals by ranks at the effective sample size of requests that "
               "queue together; no bar: too few for one. "
               + ("Each policy at the rate that serving.find_rate found for it." if searched else
                  "Rates are categories.") + note)
    return Drawing(title, _title(numbers, name), caption, numbers, figure)


def _scale(axes, values, limit):
    """All panels alike: linear from 0, or logarithmic where saturated rates would flatten the others; the limit where
    it is near what is drawn."""
    wide = max(values) > LOG_FROM * min(values) > 0
    top = max(values)
    for axis in axes:
        if limit and limit <= 2 * top:
            axis.axhline(limit, color=style.GREY, linewidth=0.9, linestyle="--", zorder=1)
        if wide:
            style.logarithmic(axis)
        else:
            style.from_zero(axis)
    if not wide:
        highest = max(axis.get_ylim()[1] for axis in axes)
        for axis in axes:
            axis.set_ylim(0, highest)


def _title(numbers, name):
    """p90 at the highest rate."""
    rows = [row for row in numbers if row["what"].endswith("p90")]
    rate = None if rows[0]["rate"] is None else max(row["rate"] for row in rows)
    rows = [row for row in rows if row["rate"] == rate]
    low, high = (pick(rows, key=lambda row: row["value"]) for pick in (min, max))
    at = "the rate found for each policy" if rate is None else f"{rate:g} requests/s per device"
    text = f"At {at} the p90 {name.upper()} is {_ms(low['value'])} under {low['policy']}"
    return text + ("" if low is high else f", {_ms(high['value'])} under {high['policy']}")


def _ms(value):
    return f"{value / 1e3:.2f} s" if value >= 1e4 else f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"
