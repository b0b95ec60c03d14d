#!/usr/bin/env python3
"""Runs side by side as a Markdown table, from their summary.json.

    table.py DIR [DIR...]

A row per run, fleet size, power cap and heat; policies side by side: straggler tax in percent, and the mean layer
time relative to the first policy's. Repeats are averaged (arithmetic mean of times; taxes likewise).
"""

import json
import pathlib
import sys


def cells_of(directory):
    path = pathlib.Path(directory) / "summary.json"
    try:
        summary = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"table.py: {path}: {error}; a folder that `moevar run` has written is needed")
    if summary.get("schema") != 1:
        sys.exit(f"table.py: {path}: schema {summary.get('schema')!r}, this program reads 1")
    return summary["cells"]


def mean(values):
    return sum(values) / len(values)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    policies, rows = [], {}
    for directory in sys.argv[1:]:
        for cell in cells_of(directory):
            key = (pathlib.Path(directory).name, cell["devices"], cell["power_cap_w"], cell["heat"])
            if cell["policy"] not in policies:
                policies.append(cell["policy"])
            rows.setdefault(key, {}).setdefault(cell["policy"], []).append(cell)

    caps = {key[2:] for key in rows}
    first = policies[0]
    columns = ["run", "devices", *(["cap W", "heat"] if len(caps) > 1 else []), f"imbalance, {first}",
               *(f"tax %, {p}" for p in policies), f"layer µs, {first}", *(f"× {p}" for p in policies[1:])]
    print("| " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * (len(columns) - 1))
    for (run, devices, cap, heat), by_policy in rows.items():
        layer = {p: mean([c["layer_us"]["mean"] for c in cells]) for p, cells in by_policy.items()}
        row = [run, str(devices)]
        if len(caps) > 1:
            row += ["own" if cap is None else f"{cap:g}", heat]
        row.append(f"{mean([c['load_imbalance'] for c in by_policy[first]]):.2f}")
        row += [f"{100 * mean([c['straggler_tax'] for c in by_policy[p]]):.1f}" for p in policies]
        row.append(f"{layer[first]:.0f}")
        row += [f"{layer[p] / layer[first]:.3f}" for p in policies[1:]]
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
