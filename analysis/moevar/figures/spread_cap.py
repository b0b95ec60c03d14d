"""How far GPUs differ against their power cap: CV and slowest ÷ median."""

import numpy as np

from moevar import cells, style
from moevar.figures import Drawing, NotCarried, percent


def draw(study):
    fleets = [fleet for fleet in cells.fleets(study)
              if fleet.condition.power_cap_w is not None and len(fleet.rows) > 1]
    if len({condition.power_cap_w for condition in cells.conditions(study.phases)} - {None}) < 2:
        raise NotCarried("The spread against the power cap needs two caps or more: conditions.power_cap_w = [700, 500, "
                         "300], as in jobs/studies/spread-vs-cap.toml.")
    if not fleets:
        raise NotCarried("No phase has speed models of two devices or more, which phases.profile makes of every fleet.")
    caps = sorted({fleet.condition.power_cap_w for fleet in fleets}, reverse=True)
    others = list(dict.fromkeys((f.condition.heat, f.condition.workload, f.condition.scaling) for f in fleets))
    entries = [(_name(other), *style.condition_look(i), True) for i, other in enumerate(others)]
    entries += [("CV of SM clocks", style.GREY, "x", True)]
    figure, axes = style.rows(2, 1.9, entries=entries)
    numbers = []
    for fleet in fleets:
        key = (fleet.condition.heat, fleet.condition.workload, fleet.condition.scaling)
        x = caps.index(fleet.condition.power_cap_w) + style.dodge(others.index(key), len(others), 0.4)
        colour, marker = style.condition_look(others.index(key))
        clocks = fleet.state["sm_clock_mhz"]
        row = {**fleet.condition.factors, "devices": fleet.devices, "devices_known": len(fleet.rows),
               "phases": [phase.index for phase in fleet.phases], "reference_tokens": fleet.tokens,
               "cv_of_time": cells.cv(fleet.time_us), "max_over_median": float(fleet.relative.max()),
               "cv_of_clock": cells.cv(clocks) if np.isfinite(clocks).all() else None}
        numbers.append(row)
        if row["cv_of_clock"] is not None:
            axes[0].plot([x + 0.12], [100 * row["cv_of_clock"]], marker="x", color=style.GREY, markersize=5)
        axes[0].plot([x], [100 * row["cv_of_time"]], marker=marker, color=colour, markersize=6)
        axes[1].plot([x], [row["max_over_median"]], marker=marker, color=colour, markersize=6)
    for axis, label in zip(axes, ("CV of device times, %", "slowest ÷ median, 1")):
        style.categories(axis, [f"{cap:g}" for cap in caps])
        axis.set_ylabel(label)
    style.from_zero(axes[0])
    axes[1].set_ylim(1.0, 1 + 1.12 * max(max(row["max_over_median"] for row in numbers) - 1, 1e-3))
    axes[1].set_xlabel("power cap, W")
    first, last = (next(row for row in numbers if row["power_cap_w"] == cap) for cap in (caps[0], caps[-1]))
    title = (f"From {caps[0]:g} to {caps[-1]:g} W the devices' times go from a CV of {percent(first['cv_of_time'], 2)} "
             f"to {percent(last['cv_of_time'], 2)}, the slowest from {first['max_over_median']:.3f} to "
             f"{last['max_over_median']:.3f} × the median")
    caption = (f"{max(row['devices_known'] for row in numbers)} devices; expert time at {fleets[0].tokens:.0f} tokens "
               "by the speed model of each condition. CV: sample standard deviation ÷ mean over devices.")
    return [Drawing("spread-cap", title, caption, numbers, figure)]


def _name(other):
    heat, _, scaling = other
    return f"times, {heat}" + (", weak scaling" if scaling == "weak" else "")
