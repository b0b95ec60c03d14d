"""How long every device takes for the same work: one point per device, outliers named."""

import numpy as np

from moevar import cells, style
from moevar.figures import Drawing, NotCarried, percent

POINTS_IN_SVG = 3000
NAMED = 3
WITH_INTERVALS = 64
CIRCLED = 50


def draw(study):
    fleets = cells.fleets(study)
    if not fleets:
        raise NotCarried("No phase has a speed model, which every study with phases.profile makes.")
    count = max(len(fleet.rows) for fleet in fleets)
    figure, (axis,) = style.rows(1, 0.75 + 0.62 * len(fleets))
    numbers = []
    for place, fleet in enumerate(fleets):
        late, limit = cells.outliers(fleet.relative)
        colour, marker = style.condition_look(place)
        _strip(axis, place, fleet, late, colour, marker)
        if len(late) <= CIRCLED:
            _name(axis, place, study, fleet, late[:NAMED])
        numbers.append(_row(study, fleet, late, limit))
    style.names_down(axis, [fleet.condition.label for fleet in fleets])
    axis.set_xlabel("time for the same work ÷ median of the fleet, 1")
    worst = max(numbers, key=lambda row: row["max_over_median"])
    spread = max(numbers, key=lambda row: row["cv"])
    title = (f"{count} {cells.nouns(study)} differ by a CV of {percent(spread['cv'], 2)}; the slowest takes "
             f"{worst['max_over_median']:.3f} × the median's time ({worst['label']})")
    caption = (f"One point per device: its expert time at {fleets[0].tokens:.0f} tokens by the speed model, f_d(n), "
               "over the median of the devices. Box: quartiles and median; whiskers: 5th and 95th percentile. Circled: "
               f"slower than median + {cells.OUTLIER_MADS} × {cells.MAD_SCALE} × MAD; the slowest with the end of "
               f"their UUID, none where there are more than {CIRCLED}. Heights within a row have no meaning."
               + intervals_drawn(fleets))
    return [Drawing("fleet-speed", title, caption, numbers, figure, raster=count > POINTS_IN_SVG)]


def _has_intervals(fleet):
    return len(fleet.relative) <= WITH_INTERVALS and np.isfinite(fleet.interval).all()


def intervals_drawn(fleets):
    """What a caption says of the lines through points; nothing where there are none."""
    if not any(map(_has_intervals, fleets)):
        return ""
    return f" Lines through points, of up to {WITH_INTERVALS} devices: the medians' 95 % intervals as measured."


def _strip(axis, place, fleet, late, colour, marker):
    relative = fleet.relative
    size = 14 if len(relative) <= POINTS_IN_SVG else 2
    heights = place + 0.10 + style.jitter(len(relative), 0.36)
    axis.scatter(relative, heights, s=size, c=colour, marker=marker if len(relative) <= 64 else ".",
                 linewidths=0, alpha=1 if len(relative) <= 64 else 0.5)
    if _has_intervals(fleet):
        axis.hlines(heights, *fleet.interval, color=colour, linewidth=0.8, alpha=0.6)
    if len(late) <= CIRCLED:
        axis.scatter(relative[late], heights[late], s=40, facecolors="none", edgecolors=style.VERMILION, linewidths=0.8)
    if len(relative) >= 5:
        low, q1, median, q3, high = np.quantile(relative, [0.05, 0.25, 0.5, 0.75, 0.95], method="inverted_cdf")
        axis.bxp([{"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high}], [place - 0.26], vert=False,
                 widths=0.16, showfliers=False, boxprops={"linewidth": 0.8}, medianprops={"color": style.BLACK},
                 whiskerprops={"linewidth": 0.8}, capprops={"linewidth": 0.8})


def _name(axis, place, study, fleet, late):
    """The end of the UUID above a device, slowest first; none where the one before would be covered."""
    room, last = 0.07 * float(np.ptp(fleet.relative)), np.inf
    for device in late:
        time = float(fleet.relative[device])
        if last - time > room:
            name = str(study.fleet["uuid"].iloc[fleet.rows[device]]).split("-")[-1]
            axis.annotate(name, (time, place), xytext=(0, 8), textcoords="offset points", fontsize=7, ha="center")
            last = time


def _width(interval):
    return float(np.median(interval[1] - interval[0])) if np.isfinite(interval).all() else None


def _row(study, fleet, late, limit):
    state = {name: values[late[:20]] for name, values in fleet.state.items()}
    named = study.fleet.iloc[fleet.rows[late[:20]]]
    return {
        **fleet.condition.factors, "label": fleet.condition.label, "devices": fleet.devices,
        "devices_known": len(fleet.rows), "phases": [phase.index for phase in fleet.phases],
        "median_interval_width": _width(fleet.interval), "reference_tokens": fleet.tokens, "median_us": float(np.median(fleet.time_us)),
        "cv": cells.cv(fleet.relative), "max_over_median": float(fleet.relative.max()), "outlier_limit": limit,
        "outliers": len(late),
        "slowest_outliers": [
            {"host": str(host), "uuid": str(uuid), "relative_time": float(fleet.relative[device]),
             **{name: float(values[i]) if np.isfinite(values[i]) else None for name, values in state.items()}}
            for i, (device, host, uuid) in enumerate(zip(late[:20], named["host"], named["uuid"]))],
    }
