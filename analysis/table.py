#!/usr/bin/env python3
"""Runs side by side as a Markdown table, from their summary.json.

    table.py DIR [DIR...]

A row per run, scaling, fleet size, power cap and heat; policies side by side: straggler tax in percent, and the mean
layer time relative to the first policy's. Repeats are averaged (arithmetic mean of times; taxes likewise). Phases that
split the tax into its causes, with even loads or equal GPUs, are left out, and a line below the table counts them.
"""

import json
import math
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
    values = [value for value in values if value is not None]   # null: no steps were recorded
    return sum(values) / len(values) if values else math.nan


def natural(cell):
    """Whether a cell is one of the study's own, not one that splits causes (study.causes)."""
    return not cell.get("even_load", 0) and not cell.get("equal_fleet", 0)


def shown(value, form):
    return "–" if math.isnan(value) else format(value, form)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    policies, rows, left_out = [], {}, 0
    for directory in sys.argv[1:]:
        for cell in cells_of(directory):
            if not natural(cell):
                left_out += 1
                continue
            key = (pathlib.Path(directory).name, cell.get("scaling", "strong"), cell["devices"], cell["power_cap_w"],
                   cell["heat"])
            if cell["policy"] not in policies:
                policies.append(cell["policy"])
            rows.setdefault(key, {}).setdefault(cell["policy"], []).append(cell)
    if not rows:
        sys.exit("table.py: no cell of a study's own in " + ", ".join(sys.argv[1:]))

    scalings, conditions = {key[1] for key in rows}, {key[3:] for key in rows}
    first = policies[0]
    columns = ["run", *(["scaling"] if len(scalings) > 1 else []), "devices",
               *(["cap W", "heat"] if len(conditions) > 1 else []), f"imbalance, {first}",
               *(f"tax %, {p}" for p in policies), f"layer µs, {first}", *(f"× {p}" for p in policies[1:])]
    print("| " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * (len(columns) - 1))
    for (run, scaling, devices, cap, heat), by_policy in rows.items():
        # a run need not have every policy of the others
        layer, tax = ({p: mean([pick(c) for c in by_policy.get(p, [])]) for p in policies}
                      for pick in (lambda c: c["layer_us"]["mean"], lambda c: c["straggler_tax"]))
        row = [run, *([scaling] if len(scalings) > 1 else []), str(devices)]
        if len(conditions) > 1:
            row += ["own" if cap is None else f"{cap:g}", heat]
        row.append(shown(mean([c["load_imbalance"] for c in by_policy.get(first, [])]), ".2f"))
        row += [shown(100 * tax[p], ".1f") for p in policies]
        row.append(shown(layer[first], ".0f"))
        row += [shown(layer[p] / layer[first], ".3f") for p in policies[1:]]
        print("| " + " | ".join(row) + " |")
    if left_out:
        print(f"\nLeft out: {left_out} phases with even loads or equal GPUs, which split the tax into its causes.")


if __name__ == "__main__":
    main()
