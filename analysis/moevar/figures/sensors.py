"""Clock, temperature and power of the devices in time, through one phase of each condition."""

import numpy as np

from moevar import cells, style
from moevar.figures import Drawing, NotCarried

PANELS = (("sm_clock_mhz", "SM clock, MHz"), ("temperature_c", "temperature, °C"), ("power_w", "power, W"))
LINES = 16


def draw(study):
    phases = [phase for phase in study.phases if phase.has("telemetry/series/time_ns")
              and phase.array("telemetry/series/time_ns").shape[1] > 1]
    if not phases:
        raise NotCarried("Sensors were not sampled in time; record.telemetry_hz above 0 does that.")
    chosen = [cells.select(phases, condition)[0] for condition in cells.conditions(phases)]
    looks = [style.condition_look(i) for i in range(len(chosen))]
    entries = [(cells.condition_of(phase).label, colour, None, True) for phase, (colour, _) in zip(chosen, looks)]
    figure, axes = style.rows(len(PANELS), 1.5, entries=entries, sharex=True)
    numbers = []
    for axis, (name, label) in zip(axes, PANELS):
        for phase, (colour, _) in zip(chosen, looks):
            numbers.append(_series(axis, phase, name, colour))
        axis.set_ylabel(label)
    axes[-1].set_xlabel("time on the clock of the timelines, s")
    title = _title(numbers)
    caption = (f"The first phase of each condition. Up to {LINES} devices: a line each between samples at "
               f"{study.config.get('record', {}).get('telemetry_hz', 0):g} Hz; more: the median, and the 5th to 95th "
               "percentile shaded. The power sensor averages and lags.")
    return [Drawing("sensors", title, caption, numbers, figure)]


def _series(axis, phase, name, colour):
    readings = phase.array("telemetry/series/readings")
    times = phase.array("telemetry/series/time_ns") / 1e9
    values = phase.array(f"telemetry/series/{name}")
    if len(readings) <= LINES:
        for device, count in enumerate(readings):
            axis.plot(times[device, :count], values[device, :count], color=colour, linewidth=0.7, alpha=0.8)
    else:
        shared = int(readings.min())
        low, median, high = np.nanquantile(values[:, :shared], [0.05, 0.5, 0.95], axis=0)
        axis.fill_between(times[0, :shared], low, high, color=colour, alpha=0.25, linewidth=0)
        axis.plot(times[0, :shared], median, color=colour, linewidth=1)
    filled = [device for device, count in enumerate(readings) if count]
    starts = [values[device, 0] for device in filled]
    ends = [values[device, readings[device] - 1] for device in filled]
    return {**phase.factors, "what": name, "readings": int(readings.sum()), "first_median": float(np.median(starts)),
            "last_median": float(np.median(ends)), "lowest": float(np.nanmin(values)),
            "highest": float(np.nanmax(values))}


def _title(numbers):
    heat = [row for row in numbers if row["what"] == "temperature_c"]
    row = max(heat, key=lambda row: abs(row["last_median"] - row["first_median"]))
    return (f"Through a phase the median temperature goes from {row['first_median']:.1f} to {row['last_median']:.1f} "
            f"°C ({row['heat']}, "
            f"{'own limit' if row['power_cap_w'] is None else format(row['power_cap_w'], 'g') + ' W'})")
