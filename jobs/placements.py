#!/usr/bin/env python3
"""Every policy on recorded loads, as one Markdown table: how near to the bound, how long, how much moves.

    python3 jobs/placements.py LOADS.json BEFORE.json [DEVICES+REDUNDANT ...]

The devices are modelled H100 (moevar fleet --preset h100-sxm5). 'moved' counts, per layer, the experts that a device
holds and did not hold in the same policy's placement for the loads in BEFORE.json.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
MOEVAR = ROOT / "build" / "moevar"
SIZES = ["8+0", "16+0", "32+0", "32+32", "64+0", "64+64"]
# policy and options; those that plan every step anew have no placement to hand out
ROWS = [(name, []) for name in ("contiguous", "random", "sorted", "eplb", "eplb_steps", "flashlb", "vibe", "vibe_swap",
                                "gem_like", "minmax")]
ROWS += [("minmax", ["--even-shares"]), ("minmax", ["--budget", "1"])]


def place(folder, name, loads, speeds, devices, redundant, policy, *options):
    out = folder / f"{name}.json"
    out.unlink(missing_ok=True)
    subprocess.run([MOEVAR, "place", "--loads", loads, "--devices", devices, "--redundant", redundant, "--policy",
                    policy, "--speeds", speeds, "--out", out, *options], check=True, stdout=subprocess.DEVNULL)
    return out, json.loads(out.read_text())


def mean(values):
    return sum(values) / len(values)


def cell(folder, loads, before, size, policy, options):
    devices, redundant = size.split("+")
    speeds = folder / f"fleet-{devices}.csv"
    if not speeds.exists():
        subprocess.run([MOEVAR, "fleet", "--preset", "h100-sxm5", "--devices", devices, "--out", speeds], check=True)
    first = [option for option in options if option == "--even-shares"]
    old, _ = place(folder, "before", before, speeds, devices, redundant, policy, *first)
    _, plan = place(folder, "now", loads, speeds, devices, redundant, policy, "--from", old, *options)
    ratio = mean([time / bound for time, bound in zip(plan["predicted_us"], plan["lower_bound_us"])])
    return f"{ratio:.4f}", f"{plan['solve_ms']:.1f}", f"{plan['moved_experts'] / len(plan['predicted_us']):.0f}"


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    loads, before, sizes = arguments[0], arguments[1], arguments[2:] or SIZES
    print("| policy | " + " | ".join(sizes) + " |")
    print("|---|" + "---:|" * len(sizes))
    with tempfile.TemporaryDirectory() as folder:
        for policy, options in ROWS:
            cells = [" · ".join(cell(pathlib.Path(folder), loads, before, size, policy, options)) for size in sizes]
            print(f"| `{' '.join([policy, *options])}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
