"""Latencies as speed models predicted them against those really timed, quantile by quantile."""

from moevar import cells, serving, style
from moevar.figures import Drawing, NotCarried, pages, percent

MARKS = {"p50": "o", "p90": "D", "p99": "s"}
BAND = 0.15     # shaded about the diagonal
PANELS = 4


def draw(study):
    found = [one for one in serving.served(study) if "predicted" in one.entry]
    if not found:
        raise NotCarried("Predicted against measured latencies need real devices: modelled ones take what their model "
                         "says.")
    panels = {}
    for condition, devices, policy, repeats in serving.by_cell(study, found):
        panels.setdefault((condition, devices), {})[policy] = repeats
    return pages("serving-prediction", list(panels.items()), PANELS, _draw)


def _draw(name, panels):
    policies = list(dict.fromkeys(policy for _, by_policy in panels for policy in by_policy))
    entries = [(policy, style.look(policy)[0], None, True) for policy in policies]
    entries += [(quantile, style.BLACK, marker, True) for quantile, marker in MARKS.items()]
    figure, axes = style.rows(len(panels), 2.9, entries=entries)
    numbers = []
    for axis, ((condition, devices), by_policy) in zip(axes, panels):
        rows = [_row(one, quantile) for repeats in by_policy.values() for one in repeats for quantile in MARKS]
        for row in rows:
            colour, marker = style.look(row["policy"])[0], MARKS[row["quantile"]]
            style.error_bar(axis, row["predicted_ms"], row["value"], row["low"], row["high"], colour)
            axis.plot([row["predicted_ms"]], [row["value"]], marker=marker, color=colour, markersize=5, linestyle="")
        numbers += rows
        _diagonal(axis, [end for row in rows for end in (row["predicted_ms"], row["value"], row["low"], row["high"])
                         if end is not None])
        axis.set_title(f"{devices} devices · {condition.label}")
        axis.set_ylabel("measured TTFT, ms")
    axes[-1].set_xlabel("predicted TTFT, ms")
    caption = ("Quantiles of the time to first token: the same requests served in virtual time, with steps that take "
               "what the profiled speed models say, and as they were really timed; a mark per repeat. On the line both "
               f"agree; shaded: within {100 * BAND:g} %. Bars: the measured quantile's 95 % interval, where requests "
               "that queue together are enough for one.")
    return Drawing(name, _title(numbers), caption, numbers, figure)


def _row(one, quantile):
    measured, predicted = one.latency("ttft", quantile), one.entry["predicted"]["ttft_ms"][quantile]
    return {**one.phase.factors, "what": f"ttft_ms.{quantile}", "quantile": quantile, "predicted_ms": predicted,
            "error": measured.value / predicted - 1, **cells.interval(measured)}


def _diagonal(axis, ends):
    low, high = 0.8 * min(ends), 1.15 * max(ends)
    axis.plot([low, high], [low, high], color=style.GREY, linewidth=0.8, zorder=0)
    axis.fill_between([low, high], [(1 - BAND) * low, (1 - BAND) * high], [(1 + BAND) * low, (1 + BAND) * high],
                      color=style.FAINT, linewidth=0, alpha=0.6, zorder=0)
    for set_scale, set_limits, side in ((axis.set_xscale, axis.set_xlim, axis.xaxis),
                                        (axis.set_yscale, axis.set_ylim, axis.yaxis)):
        if high > 6 * low:
            set_scale("log")
            style.name_decades(side)
        set_limits(low, high)


def _title(numbers):
    def furthest(quantile):
        return max((row["error"] for row in numbers if row["quantile"] == quantile), key=abs)
    within = [row for row in numbers if row["quantile"] != "p99"]
    kept = sum(abs(row["error"]) <= BAND for row in within)
    return (f"Measured TTFT leaves its prediction by up to {percent(abs(furthest('p50')))} in the median and "
            f"{percent(abs(furthest('p90')))} at p90; {kept} of {len(within)} are within {100 * BAND:g} %")
