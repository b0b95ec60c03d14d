#!/usr/bin/env python3
"""How far the devices of a run differ, as a Markdown table, from its study.h5.

    spread.py DIR

A row per fleet size, power cap and heat: the median of the devices' clocks, their coefficient of variation (CV), and,
for one expert at the most and at the fewest tokens that speed models were measured at, the CV of the devices' times
and the slowest device's time over the median. Many tokens are bound by arithmetic. Few are bound by memory, unless a
low cap slows arithmetic below it: where the median time at the fewest tokens depends on the cap, it is marked *.
"""

import pathlib
import sys

try:
    import h5py
    import numpy
except ImportError as error:
    sys.exit(f"spread.py: {error}; Debian: python3-h5py")


def cv_percent(values):
    return 100 * values.std(ddof=1) / values.mean() if values.size > 1 else 0.0


def rows_of(study):
    """{(devices, cap, heat): (clocks [D], tokens [P], times [D, P])}: the first phase of each condition whose devices
    differ as they do: where a study splits causes, it makes them equal in others."""
    rows = {}
    for phase in study["phases"].values():
        if phase.attrs.get("equal_fleet", 0):
            continue
        cap = float(phase.attrs["power_cap_w"])
        key = (int(phase.attrs["devices"]), None if numpy.isnan(cap) else cap, phase.attrs["heat"])
        model = phase["speed_model"]
        if key not in rows and model["tokens"].shape[1] > 0:
            rows[key] = (phase["telemetry/sm_clock_mhz"][...], model["tokens"][0], model["time_us"][...])
    return rows


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = pathlib.Path(sys.argv[1]) / "study.h5"
    try:
        with h5py.File(path) as study:
            rows = rows_of(study)
    except (OSError, KeyError) as error:
        sys.exit(f"spread.py: {path}: {error}; a folder that `moevar run` has written is needed")
    if not rows:
        sys.exit(f"spread.py: {path}: no phase has a speed model")

    columns = ["devices", "cap W", "heat", "median MHz", "CV of clock %", "most tokens", "CV of time %", "max ÷ median",
               "fewest tokens", "CV of time %", "max ÷ median"]
    print("| " + " | ".join(columns) + " |")
    print("|---:|---:|---|" + "---:|" * (len(columns) - 3))
    for (devices, cap, heat), (clocks, tokens, times) in rows.items():
        row = [str(devices), "own" if cap is None else f"{cap:g}", heat, f"{numpy.median(clocks):.0f}",
               f"{cv_percent(clocks):.2f}"]
        fastest = min(numpy.median(other[2][:, 0]) for key, other in rows.items() if key[0] == devices)
        for point in (-1, 0):
            time = times[:, point]
            median = numpy.median(time)
            mark = " *" if point == 0 and median > 1.005 * fastest else ""
            row += [f"{tokens[point]:g}", f"{cv_percent(time):.2f}{mark}", f"{time.max() / median:.3f}"]
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
