"""Why devices differ: each device's time beside its clock, temperature and power."""

import numpy as np
from scipy import stats

from moevar import cells, style
from moevar.figures import Drawing, NotCarried

PANELS = (("sm_clock_mhz", "SM clock, MHz"), ("temperature_c", "temperature, °C"), ("power_w", "power, W"))
POINTS_IN_SVG = 3000


def draw(study):
    fleets = cells.fleets(study)
    panels = [(name, label) for name, label in PANELS
              if any(np.isfinite(fleet.state[name]).any() for fleet in fleets)]
    if not panels:
        raise NotCarried("No clock, temperature or power of a device was read; kinds model and cuda read them, and cpu "
                         "with a library in NVML's place (MOEVAR_NVML).")
    looks = [style.condition_look(place) for place in range(len(fleets))]
    entries = [(fleet.condition.label, *look, True) for fleet, look in zip(fleets, looks)]
    figure, axes = style.rows(len(panels), 1.55, entries=entries, sharey=True)
    numbers, correlations = [], []
    for axis, (name, label) in zip(axes, panels):
        for fleet, (colour, marker) in zip(fleets, looks):
            values = fleet.state[name]
            many = len(values) > 64
            size = 16 if not many else 12 if len(values) <= POINTS_IN_SVG else 2
            axis.scatter(values, fleet.relative, s=size, c=colour, marker="." if many else marker, linewidths=0,
                         alpha=0.5 if many else 1)
            correlation = _rank_correlation(values, fleet.relative)
            numbers.append({**fleet.condition.factors, "devices": fleet.devices, "what": name,
                            "phases": [phase.index for phase in fleet.phases],
                            "rank_correlation_with_time": correlation,
                            "median": float(np.nanmedian(values)) if np.isfinite(values).any() else None,
                            "cv": cells.cv(values[np.isfinite(values)]) if np.isfinite(values).sum() > 1 else None})
            if name == "sm_clock_mhz" and correlation is not None:
                correlations.append(correlation)
        axis.set_xlabel(label)
        axis.set_ylabel("time ÷ median")
    title = "Devices' time beside their clock, temperature and power"
    if correlations:
        finding = "Slow devices are those with low clocks" if max(correlations) < -0.5 else (
            "Clock alone does not explain time")
        title = (f"{finding}: rank correlation of time and clock {_span(correlations)}")
    caption = ("One point per device and condition: relative expert time (previous figure) against what its sensors "
               "showed before the phase's steps. Of kind model, clock and power are those under a dense GEMM.")
    return [Drawing("fleet-state", title, caption, numbers, figure,
                    raster=max(len(fleet.rows) for fleet in fleets) > POINTS_IN_SVG)]


def _span(values):
    low, high = min(values), max(values)
    return f"{low:+.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:+.2f} to {high:+.2f}"


def _rank_correlation(values, times):
    """Spearman's; None where fewer than 3 devices are known or one of both does not vary."""
    known = np.isfinite(values)
    if known.sum() < 3 or np.ptp(values[known]) == 0 or np.ptp(times[known]) == 0:
        return None
    return float(stats.spearmanr(values[known], times[known]).correlation)
