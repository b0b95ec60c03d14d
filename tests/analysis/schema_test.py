"""Checks a run directory against results/README.md, with h5py alone.

    schema_test.py RUN_DIRECTORY

Every documented field must be there with its shape, type and unit, and nothing undocumented;
the numbers of summary.json must follow from study.h5.
"""

import hashlib
import json
import math
import pathlib
import re
import sys

import h5py
import numpy as np

TEXT, INTEGER, REAL = "text", "integer", "real"

ROOT_ATTRIBUTES = {
    "schema_version": INTEGER,
    "study": TEXT,
    "device": TEXT,
    "planned_phases": INTEGER,
    "study_toml": TEXT,
    "study_sha256": TEXT,
    "moevar_version": TEXT,
    "complete": INTEGER,
}
PHASE_ATTRIBUTES = {
    "index": INTEGER,
    "repeat": INTEGER,
    "devices": INTEGER,
    "power_cap_w": REAL,
    "heat": TEXT,
    "workload": TEXT,
    "policy": TEXT,
    "first_step": INTEGER,
    "tokens_per_step": INTEGER,
    "timer": TEXT,
    "sync": TEXT,
    "summary": TEXT,
    "quantile": TEXT,
    "clock_residual_ns": INTEGER,
    "reference_error": REAL,
    "clock_step_ns": INTEGER,
    "stamping_share": REAL,
    "moved_experts": INTEGER,
    "moved_bytes": INTEGER,
    "scaling": TEXT,
    "experts": INTEGER,
    "even_load": INTEGER,
    "equal_fleet": INTEGER,
    "stop_reason": TEXT,
    "overlap": TEXT,
}
PLACEMENT_ATTRIBUTES = {"slots_per_device": INTEGER, "solved_because": TEXT, "per_step": INTEGER}
TELEMETRY_ATTRIBUTES = {"caps": TEXT, "cap_changes": TEXT, "sensors": TEXT, "heat_s": REAL, "window_s": REAL}
TIMING_ATTRIBUTES = {"solve_ms": REAL, "migrate_ms": REAL, "polling_s": REAL}

# name: (axes, dtype, unit); D devices, S steps, L layers, P points, X slots
TIMELINES = {
    "tokens": ("DSL", "u4", "tokens"),
    "dispatch_ns": ("DSL", "i8", "ns"),
    "expert_ns": ("DSL", "i8", "ns"),
    "arrival_ns": ("DSL", "i8", "ns"),
    "wait_ns": ("DSL", "i8", "ns"),
    "combine_ns": ("DSL", "i8", "ns"),
}
PHASE_DATASETS = {
    "devices": ("D", "i4", "1"),
    "device/tokens_sum": ("D", "i8", "tokens"),
    "device/busy_sum_ns": ("D", "i8", "ns"),
    "device/expert_sum_ns": ("D", "i8", "ns"),
    "device/wait_sum_ns": ("D", "i8", "ns"),
    "device/last_calls": ("D", "i8", "1"),
    "layer/layer_ns": ("SL", "i8", "ns"),
    "layer/busy_sum_ns": ("SL", "i8", "ns"),
    "layer/wait_sum_ns": ("SL", "i8", "ns"),
    "layer/expert_max_ns": ("SL", "i8", "ns"),
    "layer/expert_min_ns": ("SL", "i8", "ns"),
    "layer/tokens_max": ("SL", "i8", "tokens"),
    "layer/tokens_sum": ("SL", "i8", "tokens"),
    "placement/physical_to_logical_map": ("LX", "i4", "expert"),
    "placement/slot_share": ("LX", "f8", "1"),
    "placement/predicted_us": ("L", "f8", "us"),
    "placement/lower_bound_us": ("L", "f8", "us"),
    "speed_model/tokens": ("DP", "f8", "tokens"),
    "speed_model/time_us": ("DP", "f8", "us"),
    "telemetry/requested_cap_w": ("D", "f8", "W"),
    "telemetry/enforced_cap_w": ("D", "f8", "W"),
    "telemetry/sm_clock_mhz": ("D", "f8", "MHz"),
    "telemetry/power_w": ("D", "f8", "W"),
    "telemetry/temperature_c": ("D", "f8", "degC"),
    "telemetry/throttle_reasons": ("D", "u8", "bitmask"),
    "telemetry/steady": ("D", "u1", "bool"),
    "telemetry/default_cap_w": ("D", "f8", "W"),
    "telemetry/min_cap_w": ("D", "f8", "W"),
    "telemetry/max_cap_w": ("D", "f8", "W"),
    "telemetry/slope_c_min": ("D", "f8", "degC/min"),
}
# Parts that are there together or not at all.
MEASURED_DATASETS = {
    "speed_model/lower_us": ("DP", "f8", "us"),
    "speed_model/upper_us": ("DP", "f8", "us"),
    "speed_model/taken_from": ("D", "S", "text"),
}
COUNTED_DATASETS = {
    "telemetry/energy_mj": ("D", "f8", "mJ"),
    "telemetry/sw_power_cap_ns": ("D", "f8", "ns"),
    "telemetry/sw_thermal_ns": ("D", "f8", "ns"),
    "telemetry/hw_thermal_ns": ("D", "f8", "ns"),
}
STEP_DATASETS = {
    "telemetry/step_sm_clock_mhz": ("DS", "f8", "MHz"),
    "telemetry/step_temperature_c": ("DS", "f8", "degC"),
    "telemetry/step_throttle_reasons": ("DS", "u4", "bitmask"),
}
SERIES_DATASETS = {
    "telemetry/series/readings": ("D", "i4", "1"),
    "telemetry/series/time_ns": ("DN", "i8", "ns"),
    "telemetry/series/sm_clock_mhz": ("DN", "f8", "MHz"),
    "telemetry/series/power_w": ("DN", "f8", "W"),
    "telemetry/series/temperature_c": ("DN", "f8", "degC"),
    "telemetry/series/throttle_reasons": ("DN", "u4", "bitmask"),
}
FLEET_DATASETS = {
    "device": ("F", "i4", "1"),
    "kind": ("F", "S", "text"),
    "uuid": ("F", "S", "text"),
    "name": ("F", "S", "text"),
    "host": ("F", "S", "text"),
    "node": ("F", "i4", "1"),
    "slot": ("F", "i4", "1"),
}
TIMING_DATASETS = {"rank": ("D", "i4", "rank")}
SERVING_DATASETS = {
    "serving/requests/intended_s": ("R", "f8", "s"),
    "serving/requests/started_s": ("R", "f8", "s"),
    "serving/requests/first_token_s": ("R", "f8", "s"),
    "serving/requests/finished_s": ("R", "f8", "s"),
    "serving/requests/input_tokens": ("R", "i4", "tokens"),
    "serving/requests/output_tokens": ("R", "i4", "tokens"),
    "serving/requests/kind": ("R", "i4", "1"),
    "serving/steps/start_s": ("S", "f8", "s"),
    "serving/steps/layers_ns": ("S", "i8", "ns"),
    "serving/steps/rest_ns": ("S", "i8", "ns"),
    "serving/steps/prefill_tokens": ("S", "i8", "tokens"),
    "serving/steps/decode_tokens": ("S", "i8", "tokens"),
    "serving/steps/running": ("S", "i4", "requests"),
    "serving/steps/waiting": ("S", "i4", "requests"),
}
REARRANGEMENT_DATASETS = {
    "serving/rearrangements/at_s": ("M", "f8", "s"),
    "serving/rearrangements/moved_experts": ("M", "i8", "1"),
    "serving/rearrangements/migrate_ms": ("M", "f8", "ms"),
}
OVERLAPS = ("none", "two-batch")
STOP_REASONS = ("requests", "fixed", "precision", "max_n", "time_limit", "no_further_gain")

checks = 0


def check(condition, message):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"schema_test: {message}")


def check_attributes(node, expected):
    check(set(node.attrs) == set(expected),
          f"{node.name}: attributes differ from the documented ones: "
          f"{sorted(set(node.attrs) ^ set(expected))}")
    for name, kind in expected.items():
        value = node.attrs[name]
        fits = {
            TEXT: isinstance(value, str),
            INTEGER: isinstance(value, np.int64),
            REAL: isinstance(value, np.float64),
        }[kind]
        check(fits, f"{node.name}: attribute {name} is {value!r}, not {kind}")


def check_datasets(group, expected, sizes):
    for name, (axes, dtype, unit) in expected.items():
        check(name in group, f"{group.name}: {name} is missing")
        data = group[name]
        shape = tuple(sizes[axis] for axis in axes)
        check(data.shape == shape, f"{data.name}: shape {data.shape}, not {shape} ({axes})")
        fits = data.dtype.kind == "S" if dtype == "S" else data.dtype == np.dtype("<" + dtype)
        check(fits, f"{data.name}: type {data.dtype}, not {dtype}")
        check(data.attrs.get("unit") == unit, f"{data.name}: unit is not {unit}")


def datasets_below(group):
    names = set()
    group.visititems(lambda name, node: names.add(name) if isinstance(node, h5py.Dataset) else None)
    return names


def check_timelines(phase):
    """The arrays agree with each other and with the totals over devices."""
    tokens, dispatch, expert, arrival, wait, combine = (phase[name][...] for name in TIMELINES)
    tokens = tokens.astype(np.int64)
    busy = dispatch + expert + combine
    layer = {name: phase["layer"][name][...] for name in phase["layer"]}
    for name, values in {
        "layer_ns": (busy + wait).max(axis=0),
        "busy_sum_ns": busy.sum(axis=0),
        "wait_sum_ns": wait.sum(axis=0),
        "expert_max_ns": expert.max(axis=0),
        "expert_min_ns": expert.min(axis=0),
        "tokens_max": tokens.max(axis=0),
        "tokens_sum": tokens.sum(axis=0),
    }.items():
        # layer times of real clocks agree with their parts within the clock's residual
        slack = int(phase.attrs["clock_residual_ns"]) if name == "layer_ns" else 0
        check(np.abs(layer[name] - values).max() <= slack,
              f"{phase.name}: layer/{name} does not follow from the devices' timelines")
    check(int(wait.min()) >= 0, f"{phase.name}: a negative wait")
    check(np.array_equal(arrival.max(axis=0)[None] - arrival, wait),
          f"{phase.name}: wait_ns is not last arrival - own arrival")


def check_device_totals(phase):
    """Sums over devices are the totals' sums over layer calls."""
    totals, layer = phase["device"], phase["layer"]
    for name, of_layers in (("tokens_sum", "tokens_sum"), ("busy_sum_ns", "busy_sum_ns"), ("wait_sum_ns", "wait_sum_ns")):
        check(totals[name][...].sum() == layer[of_layers][...].sum(), f"{phase.name}: device/{name} against layer/{of_layers}")
    check(totals["last_calls"][...].sum() >= layer["layer_ns"].size, f"{phase.name}: calls without a last device")
    if "tokens" in phase:
        expert, wait = phase["expert_ns"][...], phase["wait_ns"][...]
        check(np.array_equal(totals["expert_sum_ns"][...], expert.sum(axis=(1, 2))), f"{phase.name}: device/expert_sum_ns")
        check(np.array_equal(totals["last_calls"][...], (wait == 0).sum(axis=(1, 2))), f"{phase.name}: device/last_calls")


def check_series(phase):
    """Readings rise in time; what is behind a device's last one is padding."""
    series = phase["telemetry/series"]
    readings = series["readings"][...]
    check(int(readings.max()) == series["time_ns"].shape[1], f"{series.name}: longer than its longest")
    for device, count in enumerate(readings):
        times = series["time_ns"][device]
        check((np.diff(times[:count]) > 0).all(), f"{series.name}: device {device}: times do not rise")
        check((times[count:] == 0).all(), f"{series.name}: device {device}: padding is not 0")


def check_serving(phase):
    """Requests pass in order, steps don't overlap, and no token is lost."""
    requests = {name: data[...] for name, data in phase["serving/requests"].items()}
    steps = {name: data[...] for name, data in phase["serving/steps"].items()}
    times = [requests[name] for name in ("intended_s", "started_s", "first_token_s", "finished_s")]
    for before, after in zip(times, times[1:]):
        check((before <= after).all(), f"{phase.name}: a request's times are out of order")
    check((np.diff(requests["intended_s"]) >= 0).all(), f"{phase.name}: requests out of order")
    check((np.diff(steps["start_s"]) > 0).all(), f"{phase.name}: steps overlap")
    prefill, decode = steps["prefill_tokens"].sum(), steps["decode_tokens"].sum()
    check(decode == (requests["output_tokens"] - 1).sum(), f"{phase.name}: {decode} tokens decoded")
    # of a cached prompt a part is not computed
    check(prefill <= requests["input_tokens"].sum(), f"{phase.name}: {prefill} prompt tokens")
    if phase.attrs["timer"] == "virtual":
        layers = phase["layer/layer_ns"][...].sum(axis=1)
        check(np.array_equal(steps["layers_ns"], layers), f"{phase.name}: layers_ns is not the layers' time")
        ends = steps["start_s"] + 1e-9 * (steps["layers_ns"] + steps["rest_ns"])
        check((steps["start_s"][1:] - ends[:-1] > -1e-6).all(), f"{phase.name}: a step begins before the last one ends")


def check_phase(name, phase):
    serves = "serving" in phase
    check_attributes(phase, PHASE_ATTRIBUTES | ({"rate": REAL} if serves else {}))
    check((phase.attrs["stop_reason"] == "requests") == serves, f"{phase.name}: stop_reason")
    check(phase.attrs["index"] == int(name), f"{phase.name}: index {phase.attrs['index']}")
    check(phase.attrs["quantile"] == "nearest_rank", f"{phase.name}: quantile")
    check_attributes(phase["placement"], PLACEMENT_ATTRIBUTES)
    check(phase["placement"].attrs["per_step"] in (0, 1), f"{phase.name}: per_step")
    slots_per_device = phase["placement"].attrs["slots_per_device"]
    steps, layers = phase["layer/layer_ns"].shape
    sizes = {
        "D": int(phase.attrs["devices"]),
        "S": steps,
        "L": layers,
        "P": phase["speed_model/tokens"].shape[1],
        "X": int(phase.attrs["devices"] * slots_per_device),
    }
    fields = dict(PHASE_DATASETS)
    if "tokens" in phase:
        fields.update(TIMELINES)
    if serves:
        fields.update(SERVING_DATASETS)
        sizes["R"] = phase["serving/requests/intended_s"].shape[0]
        if "rearrangements" in phase["serving"]:
            fields.update(REARRANGEMENT_DATASETS)
            sizes["M"] = phase["serving/rearrangements/at_s"].shape[0]
        check_serving(phase)
    for part in (MEASURED_DATASETS, COUNTED_DATASETS, STEP_DATASETS, SERIES_DATASETS):
        if set(part) & datasets_below(phase):
            fields.update(part)
    check_attributes(phase["telemetry"], TELEMETRY_ATTRIBUTES)
    if "series" in phase["telemetry"]:
        sizes["N"] = phase["telemetry/series/time_ns"].shape[1]
        check_series(phase)
    check_datasets(phase, fields, sizes)
    check(datasets_below(phase) == set(fields),
          f"{phase.name}: undocumented: {sorted(datasets_below(phase) - set(fields))}")
    if "tokens" in phase:
        check_timelines(phase)
    check_device_totals(phase)
    check(phase.attrs["scaling"] in ("strong", "weak"), f"{phase.name}: scaling")
    check(phase["placement/physical_to_logical_map"][...].max(initial=0) < phase.attrs["experts"], f"{phase.name}: experts")
    check({phase.attrs["even_load"], phase.attrs["equal_fleet"]} <= {0, 1}, f"{phase.name}: even_load, equal_fleet")
    check(phase.attrs["stop_reason"] in STOP_REASONS, f"{phase.name}: stop_reason")
    check(phase.attrs["overlap"] in OVERLAPS, f"{phase.name}: overlap")
    return sizes


def nearest_rank(values, numerator, denominator):
    ordered = np.sort(values, axis=None)
    return ordered[-(-numerator * ordered.size // denominator) - 1]


def close(found, expected):
    if not math.isfinite(expected):
        return found is None
    return found is not None and math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12)


def mean(values):
    return float(np.mean(values)) if len(values) else math.nan


def check_served(cell, phase):
    """Requests' quantiles, and shares, from their table."""
    found = cell["serving"]
    requests = {name: data[...] for name, data in phase["serving/requests"].items()}
    latencies = {
        "ttft_ms": 1e3 * (requests["first_token_s"] - requests["intended_s"]),
        "e2e_ms": 1e3 * (requests["finished_s"] - requests["intended_s"]),
    }
    longer = requests["output_tokens"] > 1
    if longer.any():
        latencies["tpot_ms"] = 1e3 * ((requests["finished_s"] - requests["first_token_s"])[longer]
                                      / (requests["output_tokens"][longer] - 1))
    check(("tpot_ms" in latencies) == (found["tpot_ms"] is not None), f"{phase.name}: tpot_ms")
    for name, values in latencies.items():
        check(found[name]["n"] == values.size, f"{phase.name}: {name}.n")
        for key, part in (("p50", 50), ("p90", 90), ("p99", 99)):
            check(math.isclose(found[name][key], nearest_rank(values, part, 100), rel_tol=1e-9, abs_tol=1e-9),
                  f"{phase.name}: summary.json says {name}.{key} {found[name][key]}")
            interval = found[name][f"{key}_interval"]
            if interval is not None:
                low, high = (value if value is not None else found[name][key] for value in interval)
                check(low <= found[name][key] <= high, f"{phase.name}: {name}.{key}_interval")
    check(close(cell["rate"], phase.attrs["rate"]), f"{phase.name}: rate")
    check("max_rate" not in found or found["max_rate"]["rate"] == cell["rate"], f"{phase.name}: max_rate")
    check(found["requests"] == longer.size and found["steps"] == cell["steps"], f"{phase.name}: requests, steps")
    check(0 <= found["slo_attainment"] <= 1, f"{phase.name}: slo_attainment")
    check(math.isclose(found["throughput_rps"], longer.size / requests["finished_s"].max()), f"{phase.name}: throughput")
    check(math.isclose(found["goodput_rps"], found["slo_attainment"] * found["throughput_rps"], rel_tol=1e-9,
                       abs_tol=1e-12), f"{phase.name}: goodput_rps")
    check(found["arrival_rps"] is None or found["goodput_rps"] <= found["arrival_rps"] * (1 + 1e-12),
          f"{phase.name}: more goodput than arrivals")
    check(abs(found["little_error"]) < 1e-9, f"{phase.name}: Little's law is off by {found['little_error']}")
    for step, name in (("layers_ns", "layers_s"), ("rest_ns", "rest_s")):
        check(math.isclose(found[name], 1e-9 * phase["serving/steps"][step][...].sum(), rel_tol=1e-9, abs_tol=1e-12),
              f"{phase.name}: {name}")
    moves = phase["serving/rearrangements/moved_experts"][...] if "rearrangements" in phase["serving"] else []
    check([move["moved_experts"] for move in found["rearrangements"]] == list(moves), f"{phase.name}: rearrangements")


def check_cell(cell, phase, timing):
    attrs = phase.attrs
    check(("serving" in cell) == ("serving" in phase), f"{phase.name}: serving")
    if "serving" in cell:
        check_served(cell, phase)
    for name in ("devices", "heat", "workload", "policy", "repeat", "moved_experts", "scaling", "experts", "even_load",
                 "equal_fleet", "stop_reason", "overlap"):
        check(cell[name] == attrs[name], f"{phase.name}: summary.json says {name} {cell[name]}")
    check(cell["solved_because"] == phase["placement"].attrs["solved_because"], f"{phase.name}: solved_because")
    check(close(cell["power_cap_w"], attrs["power_cap_w"]), f"{phase.name}: power_cap_w")
    layer, busy, wait, slowest, fastest, tokens_max, tokens_sum = (
        phase["layer"][name][...]
        for name in ("layer_ns", "busy_sum_ns", "wait_sum_ns", "expert_max_ns", "expert_min_ns",
                     "tokens_max", "tokens_sum"))
    telemetry = phase["telemetry"]
    requested, enforced = telemetry["requested_cap_w"][...], telemetry["enforced_cap_w"][...]
    observed = not np.isnan(telemetry.attrs["window_s"])
    check(cell["caps"] == telemetry.attrs["caps"], f"{phase.name}: caps")
    check(cell["steady"] == (bool(telemetry["steady"][...].all()) if observed else None), f"{phase.name}: steady")
    check(cell["caps_hold"] == (None if np.isnan(requested).any() else
                                bool((np.abs(requested - enforced) <= 0.5).all())), f"{phase.name}: caps_hold")
    check(cell["steps"] == layer.shape[0], f"{phase.name}: steps")
    devices = int(attrs["devices"])
    gap = slowest - fastest
    calls = tokens_sum > 0
    expected = {
        ("layer_us", "mean"): layer.mean() / 1e3,
        ("layer_us", "median"): nearest_rank(layer, 1, 2) / 1e3,
        ("layer_us", "p90"): nearest_rank(layer, 90, 100) / 1e3,
        ("layer_us", "p99"): nearest_rank(layer, 99, 100) / 1e3,
        ("layer_us", "n"): layer.size,
        ("straggler_tax",): layer.sum() * devices / busy.sum() - 1,
        ("load_imbalance",): mean(tokens_max[calls] * devices / tokens_sum[calls]),
        ("idle_fraction",): wait.sum() / (devices * layer.sum()),
        ("gap_us", "median"): nearest_rank(gap, 1, 2) / 1e3,
        ("gap_us", "p90"): nearest_rank(gap, 90, 100) / 1e3,
        ("solve_ms",): timing.attrs["solve_ms"],
        ("migrate_ms",): timing.attrs["migrate_ms"],
        ("predicted_layer_us",): mean(phase["placement/predicted_us"][...]),
        ("lower_bound_layer_us",): mean(phase["placement/lower_bound_us"][...]),
    }
    for path, value in expected.items():
        found = cell
        for key in path:
            found = found[key]
        check(close(found, float(value)),
              f"{phase.name}: summary.json says {'.'.join(path)} {found}, study.h5 {value}")


def main(directory):
    with h5py.File(directory / "study.h5") as study:
        check_attributes(study, ROOT_ATTRIBUTES)
        check(study.attrs["schema_version"] == 1, "schema_version is not 1")
        check(hashlib.sha256(study.attrs["study_toml"].encode()).hexdigest()
              == study.attrs["study_sha256"], "study_sha256 is not study_toml's")
        check(set(study) == {"fleet", "phases", "timing"} | ({"manifest"} if study.attrs["complete"] else set()),
              f"root holds {sorted(study)}")
        if study.attrs["complete"]:
            check(study["manifest"].shape == (1,) and study["manifest"].attrs["unit"] == "text", "manifest is no text")
            manifest = json.loads(study["manifest"][0])
            check(manifest["study_toml"] == study.attrs["study_toml"], "the manifest is of another study")
            check((directory / "manifest.json").exists() is False
                  or json.loads((directory / "manifest.json").read_text()) == manifest, "manifest.json is another one")
        check(list(study["timing"]) == list(study["phases"]), "a timing group per phase")
        largest = 0
        for name, phase in study["phases"].items():
            sizes = check_phase(name, phase)
            members = phase["devices"][...]
            check(len(set(members)) == len(members), f"{phase.name}: a device twice")
            largest = max(largest, sizes["D"], int(members.max()) + 1)
            timing = study["timing"][name]
            check_attributes(timing, TIMING_ATTRIBUTES)
            check_datasets(timing, TIMING_DATASETS, sizes)
        pool = re.search(r"^pool = (\d+)", study.attrs["study_toml"], re.MULTILINE)
        largest = int(pool.group(1)) if pool and int(pool.group(1)) else largest
        check_datasets(study["fleet"], FLEET_DATASETS, {"F": largest})
        check(set(study["fleet"]) == set(FLEET_DATASETS) or largest == 0, "fleet's columns")

        summary = json.loads((directory / "summary.json").read_text())
        check(summary["schema"] == 1, "summary.json: schema is not 1")
        check(summary["study"] == study.attrs["study"], "summary.json: study")
        check(summary["device"] == study.attrs["device"], "summary.json: device")
        check(summary["complete"] == bool(study.attrs["complete"]), "summary.json: complete")
        check(len(summary["cells"]) == len(study["phases"]), "summary.json: a cell per phase")
        check(len({cell["phase"] for cell in summary["cells"]}) == len(summary["cells"]), "summary.json: one cell a phase")
        for cell in summary["cells"]:
            name = f"{cell['phase']:04}"
            check_cell(cell, study["phases"][name], study["timing"][name])
    print(f"{directory}: {checks} checks passed")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
