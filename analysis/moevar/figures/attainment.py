"""Share of requests within their limits against the request rate, a line per policy."""

from moevar import cells, serving, style
from moevar.figures import Drawing, NotCarried, pages, percent

PANELS = 4


def draw(study):
    panels, note = serving.panels(study)
    limits = serving.limits(study)
    if not limits.any:
        raise NotCarried("Requests had no limit to keep; serving.slo_ttft_ms and serving.slo_tpot_ms set one.")
    if any(rate is None for policies in panels.values() for rates in policies.values() for rate, _ in rates):
        raise NotCarried("Attainment against given rates needs serving.rates; here serving.find_rate looked for one.")
    return pages("attainment", list(panels.items()), PANELS, lambda name, part: _draw(study, name, part, limits, note))


def _draw(study, name, panels, limits, note):
    policies = cells.policies(study, study.phases)
    entries = [(policy, *style.look(policy), True) for policy in policies if any(policy in here for _, here in panels)]
    figure, axes = style.rows(len(panels), 2.3, entries=entries, sharey=True)
    numbers = []
    for axis, ((condition, devices), by_policy) in zip(axes, panels):
        rates = sorted({rate for found in by_policy.values() for rate, _ in found})
        axis.axhline(100 * limits.attainment, color=style.GREY, linewidth=0.9, linestyle="--")
        axis.annotate(f"{100 * limits.attainment:g} %", (1, 100 * limits.attainment), ha="right", va="bottom",
                      xycoords=("axes fraction", "data"), fontsize=7.5, color=style.GREY)
        for place, (policy, found) in enumerate(by_policy.items()):
            estimates = [serving.attainment(repeats) for _, repeats in found]
            places = [rates.index(rate) + style.dodge(place, len(by_policy), 0.4) for rate, _ in found]
            style.curve(axis, places, [cells.shifted(estimate, 0.0, 100) for estimate in estimates], policy)
            numbers += [{**repeats[0].phase.factors, "repeat": None, "phase": None, "what": "slo_attainment",
                         "phases": [one.phase.index for one in repeats], "per_repeat": [
                             one.entry["slo_attainment"] for one in repeats], **cells.interval(estimate)}
                        for (_, repeats), estimate in zip(found, estimates)]
        style.categories(axis, [f"{rate:g}" for rate in rates])
        axis.set_title(f"{devices} devices · {condition.label}")
        axis.set_ylabel("within the limits, %")
        axis.set_ylim(0, 105)
    axes[-1].set_xlabel("rate, requests/s per device")
    caption = (f"Share of requests that keep {limits.label}, mean over repeats; dashed: {100 * limits.attainment:g} %. "
               "TTFT counts from the intended arrival. Bars: 95 % intervals for the effective sample size of requests "
               "that queue together, over repeats where there are several; no bar: too few for one. Rates are "
               "categories." + note)
    return Drawing(name, _title(numbers, limits), caption, numbers, figure)


def _title(numbers, limits):
    """The rate at which policies differ most."""
    groups = {}
    for row in numbers:
        key = (row["devices"], row["rate"], row["power_cap_w"], row["heat"], row["workload"], row["scaling"])
        groups.setdefault(key, []).append(row)

    def spread(rows):
        return max(row["value"] for row in rows) - min(row["value"] for row in rows)
    rows = max(groups.values(), key=spread)
    best, worst = (pick(rows, key=lambda row: row["value"]) for pick in (max, min))
    where = f"at {best['rate']:g} requests/s per device on {best['devices']} devices"
    if spread(rows) == 0:
        return f"{percent(best['value'])} of requests keep their limits {where}, under every policy"
    return (f"{percent(best['value'])} of requests keep their limits under {best['policy']}, {percent(worst['value'])} "
            f"under {worst['policy']}, {where}")
