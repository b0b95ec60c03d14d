"""Writes run folders of schema 1 whose phases served requests, with planted latencies, steps and searches."""

import hashlib
import json

import h5py
import numpy as np
from synthetic_study import nearest_rank

TOML = """[study]
name = 'served'
seed = 1
repeats = 1
order = 'listed'
[model]
preset = 'deepseek-v3'
experts = 32
layers = 2
[fleet]
device = '{device}'
[placement]
policies = ['contiguous', 'eplb', 'vibe']
[serving]
find_rate = {find_rate}
attainment = 0.9
requests = 100
arrivals = 'poisson'
lengths = ['sonnet']
slo_ttft_ms = {ttft}
slo_tpot_ms = {tpot}
[record]
telemetry_hz = 0.0
"""
LAYERS, DEVICES = 2, 4
OUTPUT = 11     # tokens of each answer


def phase(*, rate, policy="contiguous", repeat=0, ttft_ms=(100.0,), tpot_ms=10.0, arrived_s=None, tax=(0.1,),
          step_s=0.05, **entry):
    """A phase's content. ttft_ms, tpot_ms: of each request; arrived_s: of each, else evenly at `rate` a device; tax: of
    each step of step_s; entry: what its cell has under `serving` besides, or in place of, what the requests say."""
    ttft_ms = np.asarray(ttft_ms, float)
    count = len(ttft_ms)
    arrived = np.arange(count) / (rate * DEVICES) if arrived_s is None else np.asarray(arrived_s, float)
    first = arrived + ttft_ms / 1e3
    finished = first + np.broadcast_to(tpot_ms, count) / 1e3 * (OUTPUT - 1)
    requests = {"intended_s": arrived, "started_s": arrived, "first_token_s": first, "finished_s": finished,
                "input_tokens": np.full(count, 64, "i4"), "output_tokens": np.full(count, OUTPUT, "i4"),
                "kind": np.zeros(count, "i4")}
    return {"rate": rate, "policy": policy, "repeat": repeat, "requests": requests, "tax": np.asarray(tax, float),
            "step_s": step_s, "entry": entry}


def estimates(values):
    """A latency's part of a cell, with planted intervals: 10 % about p50 and p90, none for p99."""
    found = {name: nearest_rank(values, percent) for name, percent in (("p50", 50), ("p90", 90), ("p99", 99))}
    return {**found, "p50_interval": [0.9 * found["p50"], 1.1 * found["p50"]],
            "p90_interval": [0.9 * found["p90"], 1.1 * found["p90"]], "p99_interval": None, "n": len(values),
            "independent": len(values) / 2}


def write(folder, phases, *, find_rate=False, slo=(300.0, 50.0), device="model", summary=True):
    folder.mkdir(parents=True, exist_ok=True)
    toml = TOML.format(device=device, find_rate=str(find_rate).lower(), ttft=slo[0], tpot=slo[1])
    cells = []
    with h5py.File(folder / "study.h5", "w") as file:
        file.attrs.update({"schema_version": np.int64(1), "study": "served", "device": device, "study_toml": toml,
                           "planned_phases": np.int64(len(phases)), "moevar_version": "0.0-synthetic",
                           "study_sha256": hashlib.sha256(toml.encode()).hexdigest(), "complete": np.int64(1)})
        fleet, numbers = file.create_group("fleet"), np.arange(DEVICES, dtype="i4")
        fleet["device"], fleet["node"], fleet["slot"] = numbers, numbers // 8, numbers % 8
        for name in ("kind", "name", "host"):
            fleet[name] = np.full(DEVICES, name.encode())
        fleet["uuid"] = np.array([f"GPU-{number}" for number in numbers], dtype="S")
        for index, content in enumerate(phases):
            _write_phase(file, index, content)
            cells.append(_cell(index, content, slo))
    if summary:
        (folder / "summary.json").write_text(json.dumps({"schema": 1, "study": "served", "device": device,
                                                         "complete": True, "cells": cells}))
    return folder


def _write_phase(file, index, content):
    group = file.create_group(f"phases/{index:04}")
    attributes = {"index": index, "repeat": content["repeat"], "devices": DEVICES, "power_cap_w": float("nan"),
                  "heat": "soaked", "workload": "synthetic", "policy": content["policy"], "first_step": 0,
                  "tokens_per_step": 4096, "timer": "virtual", "sync": "virtual", "summary": "none",
                  "quantile": "nearest_rank", "clock_residual_ns": 0, "stop_reason": "requests",
                  "rate": content["rate"]}
    group.attrs.update({key: np.int64(value) if isinstance(value, int) else value for key, value in attributes.items()})
    placement = group.create_group("placement")
    placement.attrs.update({"solved_because": "first", "per_step": np.int64(0)})
    placement["predicted_us"] = placement["lower_bound_us"] = np.full(LAYERS, 50.0)
    tax = content["tax"]
    busy = np.full((len(tax), LAYERS), 4_000_000, "i8")
    layer = np.round((1 + tax[:, None]) * busy / DEVICES).astype("i8")
    for name, values in {"layer_ns": layer, "busy_sum_ns": busy, "wait_sum_ns": layer * DEVICES - busy}.items():
        group[f"layer/{name}"] = values
    for name in ("expert_max_ns", "expert_min_ns", "tokens_max", "tokens_sum"):
        group[f"layer/{name}"] = np.ones_like(busy)
    for name, values in content["requests"].items():
        group[f"serving/requests/{name}"] = values
    group["serving/steps/start_s"] = content["step_s"] * np.arange(len(tax))
    file.create_group(f"timing/{index:04}").attrs.update({"solve_ms": 1.0, "migrate_ms": 0.0})


def _cell(index, content, slo):
    requests, tax = content["requests"], content["tax"]
    ttft = 1e3 * (requests["first_token_s"] - requests["intended_s"])
    tpot = 1e3 * (requests["finished_s"] - requests["first_token_s"]) / (OUTPUT - 1)
    kept = float(((ttft <= (slo[0] or np.inf)) & (tpot <= (slo[1] or np.inf))).mean())
    duration = float(requests["finished_s"].max())
    entry = {"requests": len(ttft), "ttft_ms": estimates(ttft), "tpot_ms": estimates(tpot),
             "e2e_ms": estimates(ttft + 10 * tpot), "slo_attainment": kept,
             "slo_attainment_interval": [max(kept - 0.1, 0), min(kept + 0.05, 1)],
             "goodput_rps": kept * len(ttft) / duration, "throughput_rps": len(ttft) / duration, "arrival_rps": 4.0,
             "rearrangements": [], "changes": [],
             **content["entry"]}
    return {"devices": DEVICES, "power_cap_w": None, "heat": "soaked", "workload": "synthetic", "phase": index,
            "policy": content["policy"], "repeat": content["repeat"], "scaling": "strong", "even_load": False,
            "equal_fleet": False, "stop_reason": "requests", "layer_us": {"mean": 1000.0}, "load_imbalance": 1.0,
            "straggler_tax": float(np.mean(tax)), "rate": content["rate"], "serving": entry}


def change(what, at_s, **figures):
    return {"what": what, "at_s": at_s, "noticed_after_s": None, "recovered_after_s": None, "tax_before": 0.1,
            "tax_peak": 0.3, "tax_end": 0.2, "moved_experts": 0, "stopped_ms": 0.0, "ttft_before_ms": 100.0,
            "ttft_peak_ms": 900.0} | figures


def found(rate, low, high, evaluations):
    return {"rate": rate, "low": low, "high": high, "evaluations": evaluations}
