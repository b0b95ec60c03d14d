#!/usr/bin/env python3
"""Runs side by side as a Markdown table, from their summary.json.

    table.py DIR [DIR...]

A row per run, scaling, fleet size, power cap and heat; policies side by side: straggler tax in percent, and the mean
layer time relative to the first policy's. Repeats are averaged (arithmetic mean of times; taxes likewise). Phases that
split the tax into its causes, with even loads or equal GPUs, are left out, and a line below the table counts them.

Cells that served requests are a table of their own: a row per run, fleet size, cap, heat, request rate (per device) and
policy, with what their requests saw, again as means over repeats. With serving.find_rate the rate is the one that was
found, or the bound that it lies beyond; in SLO: requests within both limits.
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


def print_table(columns, rows):
    print("| " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * (len(columns) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def cap_text(cap):
    return "own" if cap is None else f"{cap:g}"


def rate_text(cells):
    """The request rate of a cell's repeats: as given, as it was found, or the bound that the search was left with."""
    searches = [cell["serving"].get("max_rate") for cell in cells]
    if None in searches:
        return f"{mean([cell['rate'] for cell in cells]):g}"
    if all(search["rate"] is not None for search in searches):
        return f"{mean([search['rate'] for search in searches]):.3f} found"
    if all(search["high"] is None for search in searches):
        return f"> {min(search['low'] for search in searches):g}"
    if all(search["low"] is None for search in searches):
        return f"< {max(search['high'] for search in searches):g}"
    return "differs"


# (column, its format, its value of a cell or None, factor)
SERVED = (
    *((f"TTFT {p} ms", ".1f", lambda cell, p=p: cell["serving"]["ttft_ms"][p], 1) for p in ("p50", "p90", "p99")),
    *((f"TPOT {p} ms", ".1f", lambda cell, p=p: (cell["serving"]["tpot_ms"] or {}).get(p), 1) for p in ("p50", "p90")),
    ("in SLO %", ".1f", lambda cell: cell["serving"]["slo_attainment"], 100),
    ("goodput requests/s", ".2f", lambda cell: cell["serving"]["goodput_rps"], 1),
    ("tax %", ".1f", lambda cell: cell["straggler_tax"], 100),
)


def print_served(groups):
    """groups: {(run, scaling, devices, cap, heat, rate or None, policy): its repeats}."""
    scaling, standing = ({key[place] for key in groups} for place in (slice(1, 2), slice(3, 5)))
    columns = ["run", *(["scaling"] if len(scaling) > 1 else []), "devices",
               *(["cap W", "heat"] if len(standing) > 1 else []), "rate, requests/s per device", "policy",
               *(name for name, *_ in SERVED)]
    rows = []
    for (run, scaled, devices, cap, heat, _, policy), cells in groups.items():
        rows.append([run, *([scaled] if len(scaling) > 1 else []), str(devices),
                     *([cap_text(cap), heat] if len(standing) > 1 else []), rate_text(cells), policy,
                     *(shown(factor * mean([pick(cell) for cell in cells]), form) for _, form, pick, factor in SERVED)])
    print_table(columns, rows)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    policies, rows, served, left_out = [], {}, {}, 0
    for directory in sys.argv[1:]:
        for cell in cells_of(directory):
            if not natural(cell):
                left_out += 1
                continue
            key = (pathlib.Path(directory).name, cell.get("scaling", "strong"), cell["devices"], cell["power_cap_w"],
                   cell["heat"])
            if "serving" in cell:
                rate = None if "max_rate" in cell["serving"] else cell["rate"]
                served.setdefault((*key, rate, cell["policy"]), []).append(cell)
                continue
            if cell["policy"] not in policies:
                policies.append(cell["policy"])
            rows.setdefault(key, {}).setdefault(cell["policy"], []).append(cell)
    if not rows and not served:
        sys.exit("table.py: no cell of a study's own in " + ", ".join(sys.argv[1:]))
    if rows:
        print_layers(rows, policies)
    if served:
        print(end="\n" if rows else "")
        print_served(served)
    if left_out:
        print(f"\nLeft out: {left_out} phases with even loads or equal GPUs, which split the tax into its causes.")


def print_layers(rows, policies):
    """rows: {(run, scaling, devices, cap, heat): {policy: its repeats}}."""
    scalings, conditions = {key[1] for key in rows}, {key[3:] for key in rows}
    first = policies[0]
    columns = ["run", *(["scaling"] if len(scalings) > 1 else []), "devices",
               *(["cap W", "heat"] if len(conditions) > 1 else []), f"imbalance, {first}",
               *(f"tax %, {p}" for p in policies), f"layer µs, {first}", *(f"× {p}" for p in policies[1:])]
    lines = []
    for (run, scaling, devices, cap, heat), by_policy in rows.items():
        # a run need not have every policy of the others
        layer, tax = ({p: mean([pick(c) for c in by_policy.get(p, [])]) for p in policies}
                      for pick in (lambda c: c["layer_us"]["mean"], lambda c: c["straggler_tax"]))
        row = [run, *([scaling] if len(scalings) > 1 else []), str(devices)]
        if len(conditions) > 1:
            row += [cap_text(cap), heat]
        row.append(shown(mean([c["load_imbalance"] for c in by_policy.get(first, [])]), ".2f"))
        row += [shown(100 * tax[p], ".1f") for p in policies]
        row.append(shown(layer[first], ".0f"))
        row += [shown(layer[p] / layer[first], ".3f") for p in policies[1:]]
        lines.append(row)
    print_table(columns, lines)


if __name__ == "__main__":
    main()
