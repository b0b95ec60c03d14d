"""Writes run folders of schema 1 (results/README.md) without running one: fleets of any size, every optional field.

Device d takes relative speed r_d (3 % normal spread, one in 200 up to 20 % slower) x tokens x 0.1 µs for its experts.
"""

import hashlib
import json

import h5py
import numpy as np

TOKENS = 512    # that a device's experts receive in a layer call when all get alike
TOML = """[study]
name = 'synthetic'
seed = {seed}
repeats = {repeats}
order = 'listed'
[model]
preset = 'deepseek-v3'
experts = 256
top_k = 8
hidden = 7168
layers = {layers}
[workload]
kind = 'synthetic'
[fleet]
device = 'model'
devices = {sizes}
[conditions]
power_cap_w = {caps}
heat = ['soaked']
[placement]
policies = {policies}
recompute = 'between-phases'
[record]
telemetry_hz = 0.0
timelines = false
"""


def nearest_rank(values, percent):
    ordered = np.sort(values, axis=None)
    return float(ordered[-(-percent * ordered.size // 100) - 1])


class Writer:
    """A study of sizes x caps x policies x repeats, each repeat on a random subset of the largest fleet."""

    def __init__(self, folder, *, sizes, caps=(700.0,), policies=("contiguous", "eplb"), repeats=1, steps=16, layers=2,
                 causes=False, scalings=("weak",), backwards=False, seed=1):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.steps, self.layers = folder, steps, layers
        self.rng = np.random.default_rng(seed)
        count = max(sizes)
        self.relative = 1 + 0.03 * self.rng.standard_normal(count) + 0.2 * (self.rng.random(count) < 0.005)
        self.cells, self.speeds = [], {}
        plan = [(repeat, size, cap, policy, even, equal, scaling) for repeat in range(repeats) for size in sizes
                for scaling in scalings for cap in caps for policy in policies
                for even in (0, 1)[:1 + causes] for equal in (0, 1)[:1 + causes]]
        plan = plan[::-1] if backwards else plan
        orders = [self.rng.permutation(count).astype("i4") for _ in range(repeats)]
        with h5py.File(folder / "study.h5", "w") as file:
            self._root(file, TOML.format(seed=seed, repeats=repeats, layers=layers, sizes=list(sizes), caps=list(caps),
                                         policies=list(policies)), len(plan))
            self._fleet(file.create_group("fleet"), count)
            for index, cell in enumerate(plan):
                self._phase(file, index, orders[cell[0]][:cell[1]], *cell)
        (folder / "summary.json").write_text(json.dumps({"schema": 1, "study": "synthetic", "device": "model",
                                                         "complete": True, "cells": self.cells}))

    @staticmethod
    def _root(file, toml, planned):
        file.attrs.update({"schema_version": np.int64(1), "study": "synthetic", "device": "model",
                           "planned_phases": np.int64(planned), "study_toml": toml, "moevar_version": "0.0-synthetic",
                           "study_sha256": hashlib.sha256(toml.encode()).hexdigest(), "complete": np.int64(1)})

    @staticmethod
    def _fleet(group, count):
        numbers = np.arange(count, dtype="i4")
        group["device"], group["node"], group["slot"] = numbers, numbers // 8, numbers % 8
        group["kind"], group["name"] = (np.full(count, text) for text in (b"model", b"h100-sxm5 (modelled)"))
        group["uuid"] = np.array([f"model-h100-sxm5-1-{i}" for i in range(count)], dtype="S")
        group["host"] = np.array([f"model-node-{i // 8}" for i in range(count)], dtype="S")

    def _phase(self, file, index, rows, repeat, devices, cap, policy, even, equal, scaling):
        group = file.create_group(f"phases/{index:04}")
        relative = np.ones(devices) if equal else 1 + (self.relative[rows] - 1) * 700 / cap
        group.attrs.update({
            "index": np.int64(index), "repeat": np.int64(repeat), "devices": np.int64(devices), "power_cap_w": cap,
            "heat": "soaked", "workload": "synthetic", "policy": policy, "first_step": np.int64(2),
            "tokens_per_step": np.int64(TOKENS * devices // 8), "timer": "virtual", "sync": "virtual",
            "summary": "none", "quantile": "nearest_rank", "clock_residual_ns": np.int64(0), "reference_error": 0.0,
            "moved_experts": np.int64(0), "moved_bytes": np.int64(0), "scaling": scaling,
            "experts": np.int64(devices * 32), "even_load": np.int64(even), "equal_fleet": np.int64(equal),
            "stop_reason": "precision"})
        group["devices"] = rows
        layer = self._layers(group, relative, policy, even)
        self._placement(group, devices)
        self._speed_model(group, relative, (repeat, devices, cap, equal))
        self._telemetry(group, relative, cap)
        timing = file.create_group(f"timing/{index:04}")
        timing.attrs.update({"solve_ms": 1.0, "migrate_ms": 0.0, "polling_s": 0.0})
        timing["rank"] = np.zeros(devices, "i4")
        self._summarise(group, layer, index)

    def _layers(self, group, relative, policy, even):
        devices, shape = len(relative), (self.steps, self.layers)
        skew = 0.0 if even else 0.25 if policy == "contiguous" else 0.05
        layer = {name: np.zeros(shape, "i8") for name in (
            "layer_ns", "busy_sum_ns", "wait_sum_ns", "expert_max_ns", "expert_min_ns", "tokens_max", "tokens_sum")}
        sums = {name: np.zeros(devices, "i8") for name in (
            "tokens_sum", "busy_sum_ns", "expert_sum_ns", "wait_sum_ns", "last_calls")}
        for step, number in np.ndindex(shape):
            tokens = np.rint(TOKENS * (1 + skew * self.rng.random(devices) - skew / 2)).astype("i8")
            expert = np.rint(100 * tokens * relative * (1 + 0.01 * self.rng.standard_normal(devices))).astype("i8")
            busy, wait = expert + 40_000, expert.max() - expert
            for name, value in (("layer_ns", int(expert.max()) + 40_000), ("busy_sum_ns", busy.sum()),
                                ("wait_sum_ns", wait.sum()), ("expert_max_ns", expert.max()),
                                ("expert_min_ns", expert.min()), ("tokens_max", tokens.max()),
                                ("tokens_sum", tokens.sum())):
                layer[name][step, number] = value
            for name, values in (("tokens_sum", tokens), ("busy_sum_ns", busy), ("expert_sum_ns", expert),
                                 ("wait_sum_ns", wait), ("last_calls", wait == 0)):
                sums[name] += values
        for name, values in layer.items():
            group[f"layer/{name}"] = values
        for name, values in sums.items():
            group[f"device/{name}"] = values
        return layer

    def _placement(self, group, devices):
        placement = group.create_group("placement")
        placement.attrs.update({"slots_per_device": np.int64(1), "solved_because": "between-phases",
                                "per_step": np.int64(0)})
        placement["physical_to_logical_map"] = np.tile(np.arange(devices, dtype="i4"), (self.layers, 1))
        placement["slot_share"] = np.ones((self.layers, devices))
        placement["predicted_us"] = np.full(self.layers, 55.0)
        placement["lower_bound_us"] = np.full(self.layers, 51.0)

    def _speed_model(self, group, relative, key):
        if key in self.speeds:      # a link, as a study's phases of one condition share one
            group["speed_model"] = h5py.SoftLink(self.speeds[key])
            return
        self.speeds[key] = f"{group.name}/speed_model"
        tokens = np.geomspace(8, 4096, 12)
        group["speed_model/tokens"] = np.tile(tokens, (len(relative), 1))
        group["speed_model/time_us"] = 0.1 * tokens[None] * relative[:, None]

    @staticmethod
    def _telemetry(group, relative, cap):
        telemetry, devices = group.create_group("telemetry"), len(relative)
        telemetry.attrs.update({"caps": "model", "sensors": "model", "cap_changes": "", "heat_s": 60.0,
                                "window_s": 60.0})
        for name, values in {
            "requested_cap_w": np.full(devices, cap), "enforced_cap_w": np.full(devices, cap),
            "default_cap_w": np.full(devices, 700.0), "min_cap_w": np.full(devices, 200.0),
            "max_cap_w": np.full(devices, 700.0), "sm_clock_mhz": 1500 / relative, "power_w": np.full(devices, cap - 5),
            "temperature_c": 60 + 100 * (relative - 1), "slope_c_min": np.zeros(devices),
            "throttle_reasons": np.full(devices, 4, "u8"), "steady": np.ones(devices, "u1"),
        }.items():
            telemetry[name] = values

    def _summarise(self, group, layer, index):
        attrs, devices = group.attrs, int(group.attrs["devices"])
        times = layer["layer_ns"] / 1e3
        gap = (layer["expert_max_ns"] - layer["expert_min_ns"]) / 1e3
        self.cells.append({
            **{name: attrs[name].item() if hasattr(attrs[name], "item") else attrs[name]
               for name in ("devices", "power_cap_w", "heat", "workload", "policy", "repeat", "scaling", "experts",
                            "stop_reason", "moved_experts")},
            "even_load": bool(attrs["even_load"]), "equal_fleet": bool(attrs["equal_fleet"]), "steps": self.steps,
            "phase": index, "caps": "model", "caps_hold": True, "steady": True, "solved_because": "between-phases",
            "layer_us": {"mean": float(times.mean()), "median": nearest_rank(times, 50), "p90": nearest_rank(times, 90),
                         "p99": nearest_rank(times, 99), "n": times.size},
            "straggler_tax": float(layer["layer_ns"].sum() * devices / layer["busy_sum_ns"].sum() - 1),
            "load_imbalance": float((layer["tokens_max"] * devices / layer["tokens_sum"]).mean()),
            "idle_fraction": float(layer["wait_sum_ns"].sum() / (devices * layer["layer_ns"].sum())),
            "gap_us": {"median": nearest_rank(gap, 50), "p90": nearest_rank(gap, 90)}, "solve_ms": 1.0,
            "migrate_ms": 0.0, "predicted_layer_us": 55.0, "lower_bound_layer_us": 51.0})
