#!/usr/bin/env python3
"""Two runs of one study, cell by cell, as a Markdown table: is B slower than A?

A and B are folders that `moevar run` has written. Cells are matched by their factors; a cell's repeats are taken
together. The mean layer time decides, relative to A's. The median and the straggler tax (change in percentage points)
stand beside it, each with its 95 % interval. Where both ran the same steps (one study, one seed) they are compared
step by step. A verdict is wrong with a probability of at most 5 % over all cells together (Holm). Intervals tell of
these two runs: another day or allocation may differ by more than the steps of one run show.

Cells that served requests are a table of their own: the mean time to first token (TTFT, from the intended arrival)
decides, request by request where both runs served the same ones; its p50 and p90, the mean time to the last token, the
share of requests within the limits and the straggler tax stand beside it. Requests that queue together count as few:
one repeat near saturation supports no verdict, three or more may. Where both runs searched for the highest rate, the
rate decides, from three repeats on. Verdicts hold over all tables together.

Devices that both runs have, by UUID, are compared by their expert time per token over the phases of both.

exit status: 0 B is not shown to be slower; 1 B is slower than A in some cell; 2 unusable input.
"""

import argparse
import json
import math
import signal
import sys

try:
    from moevar import comparison
    from moevar.study import StudyError, StudyFile
except ImportError as error:
    print(f"compare.py: {error}; Debian: python3-h5py python3-scipy python3-pandas", file=sys.stderr)
    sys.exit(2)

SHOWN = {"devices": "devices", "power_cap_w": "cap W", "heat": "heat", "workload": "workload", "policy": "policy",
         "scaling": "scaling", "experts": "experts", "even_load": "even load", "equal_fleet": "equal fleet",
         "rate": "requests/s per device"}
ALWAYS = ("devices", "policy")


def arguments(argv):
    parser = argparse.ArgumentParser(prog="compare.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="the base")
    parser.add_argument("b", metavar="B", help="what is compared with it")
    parser.add_argument("--threshold", type=percent, default=0.0, metavar="PERCENT",
                        help="changes of the mean up to this count as equal (default 0)")
    parser.add_argument("--devices", type=int, default=8, metavar="N",
                        help="show the N devices that changed most; 0: none (default 8)")
    parser.add_argument("--json", action="store_true", help="everything as JSON in place of the table")
    return parser.parse_args(argv)


def percent(text):
    value = float(text)
    if not 0 <= value < 1000:
        raise argparse.ArgumentTypeError(f"{text}: 0 or more percent are needed")
    return value / 100


def signed(estimate):
    """A change in percent with its interval."""
    text = f"{100 * estimate.value:+.2f}"
    if not estimate.supported:
        return f"{text} ({estimate.method})"
    return f"{text} [{100 * estimate.low:+.2f}, {100 * estimate.high:+.2f}]"


def probability(value):
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def factor_text(value, name=""):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "rate" and not isinstance(value, float):
        return "none" if value is None else value
    return "own" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def with_factors(cells, columns, figures, always=ALWAYS):
    """Lines of a table: the factors that differ between these cells, repeats, figures(cell), p and verdict."""
    names = [name for name in SHOWN if name in always or len({cell.factors[name] for cell in cells}) > 1]
    if len({(cell.factors["devices"], cell.factors["experts"]) for cell in cells}) == \
            len({cell.factors["devices"] for cell in cells}) and "experts" in names:
        names.remove("experts")  # grows with the devices and says nothing new
    lines = [[*(SHOWN[name] for name in names), "repeats", *columns, "p (Holm)", "B is"],
             ["---:" if name != "policy" else "---" for name in names] + ["---:"] * (len(columns) + 2) + ["---"]]
    for cell in cells:
        repeats = ", ".join(str(count) for count in dict.fromkeys(cell.repeats))
        lines.append([*(factor_text(cell.factors[name], name) for name in names), repeats, *figures(cell),
                      probability(cell.p_holm), cell.verdict])
    return lines


def layers_table(cells):
    return with_factors(
        cells, ["mean A µs", "mean B µs", "change of mean %", "change of median %", "tax A %", "tax B − A, points"],
        lambda cell: [*(f"{mean:.1f}" for mean in cell.mean_us), signed(cell.mean), signed(cell.median),
                      f"{100 * cell.tax_values[0]:.2f}", signed(cell.tax)])


def requests_table(cells):
    return with_factors(
        cells, ["mean TTFT A ms", "mean TTFT B ms", "change of mean TTFT %", "TTFT p50 A ms", "change of TTFT p50 %",
                "TTFT p90 A ms", "change of TTFT p90 %", "to last token A ms", "change %", "in SLO A %",
                "in SLO B − A, points", "tax A %", "tax B − A, points"],
        lambda cell: [*(f"{mean:.1f}" for mean in cell.ttft_ms["mean"]), signed(cell.mean),
                      *(text for name in ("p50", "p90")
                        for text in (f"{cell.ttft_ms[name][0]:.1f}", signed(cell.ttft[name]))),
                      f"{cell.e2e_ms[0]:.1f}", signed(cell.e2e),
                      *(("–", "–") if cell.attainment is None else
                        (f"{100 * cell.attainment[0]:.1f}", signed(cell.attainment_change))),
                      f"{100 * cell.tax_values[0]:.2f}", signed(cell.tax)], (*ALWAYS, "rate"))


def rates_table(cells):
    return with_factors(
        cells, ["highest rate A, requests/s per device", "highest rate B", "change of rate %"],
        lambda cell: [*("not found" if rate is None else f"{rate:.4g}" for rate in cell.rate),
                      "–" if math.isnan(cell.change.value) else signed(cell.change)])


def devices_table(devices, count):
    """The devices that changed most, slowed ones first."""
    shown = sorted(devices, key=lambda device: -abs(device.change.value))[:count]
    lines = [["device", "name", "phases", "change of expert time per token %", "p (Holm)", "B's is"],
             ["---", "---", "---:", "---:", "---:", "---"]]
    for device in sorted(shown, key=lambda device: -device.change.value):
        lines.append([device.uuid, device.name, str(device.phases), signed(device.change), probability(device.p_holm),
                      device.verdict])
    return lines


def print_table(lines):
    for line in lines:
        print("| " + " | ".join(line) + " |")


def print_report(found, options):
    for table, cells in ((layers_table, found.cells), (requests_table, found.requests), (rates_table, found.rates)):
        if cells:
            print_table(table(cells))
            print()
    paired = [f"{sum(cell.paired for cell in cells)} of {len(cells)} cells paired by {what}, the others independent. "
              for what, cells in (("step", found.cells), ("request", found.requests)) if cells]
    print(f"{''.join(paired)}Intervals: 95 % of each "
          f"cell. B is slower, faster: p ≤ 0.05 over all {len(found.every_cell)} cells (Holm)"
          + (f", beyond {100 * options.threshold:g} %." if options.threshold else "."))
    if found.requests and any(cell.attainment is None for cell in found.requests):
        print("Limits of TTFT and TPOT: none, or not the same in A and B, so shares within them are not compared.")
    if found.requests or found.rates:
        print("Devices are not compared over phases that served requests, whose steps are not alike.")
    for name, cells in (("A", found.only_a), ("B", found.only_b)):
        if cells:
            print(f"Only in {name}: {len(cells)} cells, the first: "
                  + ", ".join(f"{SHOWN[key]} {factor_text(value, key)}" for key, value in cells[0].items()) + ".")
    if not found.same_devices:
        print("A and B have no device in common: what differs between the devices is part of every change.")
    if found.devices and all(device.verdict == "same" for device in found.devices):
        print(f"{len(found.devices)} devices of both runs, all the same.")
    elif found.devices and options.devices > 0:
        table = devices_table(found.devices, options.devices)
        print(f"\n{len(found.devices)} devices of both runs; the {len(table) - 2} that changed most:\n")
        print_table(table)


def plain(value):
    """What JSON can hold: no NaN, no infinity."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def estimate_json(estimate):
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n,
            "method": estimate.method}


def print_json(found, options):
    cells = [{**cell.factors, "paired": cell.paired, "repeats": list(cell.repeats),
              "mean_us": {"a": cell.mean_us[0], "b": cell.mean_us[1], "change": estimate_json(cell.mean)},
              "median": {"change": estimate_json(cell.median)},
              "straggler_tax": {"a": cell.tax_values[0], "b": cell.tax_values[1],
                                "difference": estimate_json(cell.tax)},
              "p": cell.p, "p_holm": cell.p_holm, "verdict": cell.verdict} for cell in found.cells]
    requests = [{**cell.factors, "paired": cell.paired, "repeats": list(cell.repeats),
                 "e2e_ms": {"a": cell.e2e_ms[0], "b": cell.e2e_ms[1], "change": estimate_json(cell.e2e)},
                 "ttft_ms": {name: {"a": both[0], "b": both[1], "change": estimate_json(cell.ttft[name])}
                             for name, both in cell.ttft_ms.items()},
                 "slo_attainment": None if cell.attainment is None else
                 {"a": cell.attainment[0], "b": cell.attainment[1],
                  "difference": estimate_json(cell.attainment_change)},
                 "straggler_tax": {"a": cell.tax_values[0], "b": cell.tax_values[1],
                                   "difference": estimate_json(cell.tax)},
                 "p": cell.p, "p_holm": cell.p_holm, "verdict": cell.verdict} for cell in found.requests]
    rates = [{**cell.factors, "repeats": list(cell.repeats),
              "max_rate": {"a": cell.rate[0], "b": cell.rate[1], "change": estimate_json(cell.change)},
              "p": cell.p, "p_holm": cell.p_holm, "verdict": cell.verdict} for cell in found.rates]
    devices = [{"uuid": device.uuid, "name": device.name, "phases": device.phases,
                "change": estimate_json(device.change), "p_holm": device.p_holm, "verdict": device.verdict}
               for device in found.devices]
    print(json.dumps(plain({"a": options.a, "b": options.b, "alpha": comparison.ALPHA, "threshold": options.threshold,
                            "slower": found.slower, "same_devices": found.same_devices, "cells": cells,
                            "requests": requests, "rates": rates,
                            "only_a": found.only_a, "only_b": found.only_b, "devices": devices}),
                     indent=1, ensure_ascii=False))


def main(argv=None):
    options = arguments(argv)
    try:
        with StudyFile.open(options.a) as a, StudyFile.open(options.b) as b:
            for study in (a, b):
                for problem in study.problems:
                    print(f"compare.py: {study.path}: {problem}", file=sys.stderr)
            found = comparison.compare(a, b, options.threshold)
    except StudyError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    if not found.every_cell:
        print(f"compare.py: {options.a} and {options.b}: no cell in common; two runs of one study are needed",
              file=sys.stderr)
        return 2
    (print_json if options.json else print_report)(found, options)
    return 1 if found.slower else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `compare.py A B | head` is no error
    sys.exit(main())
