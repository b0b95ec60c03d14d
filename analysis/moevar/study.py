"""Reads a run's folder: study.h5, or its index with phases/NNNN.h5 while a run goes on or after a kill.

The schema is results/README.md, version 1. Axes: D devices, S steps, L layers, P points of a speed curve. What is
damaged or missing becomes a line in `StudyFile.problems`, and the rest is read; a file of which nothing can be read,
or of another schema, raises StudyError. Fields that older files lack take the defaults of the schema's page.
"""

import json
import pathlib
import re
import tomllib
from dataclasses import dataclass, field

import h5py
import numpy as np
import pandas as pd

SCHEMA_VERSION = 1
ROOT_ATTRIBUTES = ("study", "device", "planned_phases", "study_toml", "study_sha256", "moevar_version", "complete")
LAYER_FIELDS = ("layer_ns", "busy_sum_ns", "wait_sum_ns", "expert_max_ns", "expert_min_ns", "tokens_max", "tokens_sum")
TIMELINE_FIELDS = ("tokens", "dispatch_ns", "expert_ns", "arrival_ns", "wait_ns", "combine_ns")
FLEET_COLUMNS = ("device", "kind", "uuid", "name", "host", "node", "slot")
PHASE_FILE = re.compile(r"^\d{4,}\.h5$")


class StudyError(Exception):
    """Input that cannot be read. Its text is one line: `PATH: what; what would be right`."""


def _reason(error):
    """An HDF5 error as one line."""
    return " ".join(str(error).split()).strip("'\"")


@dataclass(eq=False)
class Phase:
    """One phase; attributes are read when it is opened, arrays when they are asked for.

    index            place in the plan
    devices          D; device_rows [D]: each device's row in StudyFile.fleet
    power_cap_w      None: no cap was asked for
    heat, workload, policy, repeat, scaling, experts, even_load, equal_fleet, stop_reason, first_step,
    tokens_per_step  as in results/README.md
    rate             requests/s per device where that is a factor; None: none are served, or serving.find_rate found it
    offered_rate     the same as it was in the phase, found or not; None: no requests are served
    steps, layers    S, L
    """

    index: int
    repeat: int
    devices: int
    power_cap_w: float | None
    heat: str
    workload: str
    policy: str
    scaling: str
    experts: int | None
    even_load: bool
    equal_fleet: bool
    stop_reason: str
    first_step: int
    tokens_per_step: int
    rate: float | None
    offered_rate: float | None
    steps: int
    layers: int
    solved_because: str
    per_step: bool
    timer: str
    sync: str
    clock_residual_ns: int
    stamping_share: float    # NaN in files of before it was measured
    solve_ms: float | None
    migrate_ms: float | None
    device_rows: np.ndarray
    group: h5py.Group = field(repr=False)
    source: str = field(repr=False)
    _speed_model: h5py.Group | None = field(default=None, repr=False)
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def name(self):
        return f"{self.index:04}"

    @property
    def factors(self):
        """What joins this phase with its cell of summary.json, and with the same cell of other repeats."""
        served = {"rate": self.rate} if self.serves else {}
        return {"devices": self.devices, "power_cap_w": self.power_cap_w, "heat": self.heat, "workload": self.workload,
                **served, "policy": self.policy, "repeat": self.repeat, "scaling": self.scaling,
                "experts": self.experts, "even_load": self.even_load, "equal_fleet": self.equal_fleet,
                "phase": self.index}

    @property
    def serves(self):
        """Whether its steps are those that requests made, with serving/ beside them."""
        return self.offered_rate is not None

    @property
    def natural(self):
        """The study's own cell, not one of those run with even loads or equal GPUs to split causes."""
        return not self.even_load and not self.equal_fleet

    @property
    def has_timelines(self):
        """Whether every device's timeline [D, S, L] was kept."""
        return all(name in self.group for name in TIMELINE_FIELDS)

    def has(self, name):
        """Whether the dataset is there, e.g. "telemetry/step_sm_clock_mhz"."""
        if name.startswith("speed_model/"):
            return self._speed_model is not None and name.partition("/")[2] in self._speed_model
        return name in self.group

    def array(self, name, selection=...):
        """The dataset, or a selection of it; not kept. Raises StudyError where it is absent or damaged."""
        try:
            if name.startswith("speed_model/") and self._speed_model is not None:
                return self._speed_model[name.partition("/")[2]][selection]
            return self.group[name][selection]
        except (KeyError, OSError, RuntimeError) as error:
            raise StudyError(f"{self.source}: phase {self.name}: {name} cannot be read ({_reason(error)}); "
                             "a complete file of schema 1 has it") from None

    def kept(self, name):
        """As `array`, read once. For what is small beside [D, S, L]."""
        if name not in self._cache:
            self._cache[name] = self.array(name)
        return self._cache[name]

    # layer/, each [S, L]
    layer_ns = property(lambda self: self.kept("layer/layer_ns"))
    busy_sum_ns = property(lambda self: self.kept("layer/busy_sum_ns"))
    wait_sum_ns = property(lambda self: self.kept("layer/wait_sum_ns"))
    expert_max_ns = property(lambda self: self.kept("layer/expert_max_ns"))
    expert_min_ns = property(lambda self: self.kept("layer/expert_min_ns"))
    tokens_max = property(lambda self: self.kept("layer/tokens_max"))
    tokens_sum = property(lambda self: self.kept("layer/tokens_sum"))
    # placement/, each [L]
    predicted_us = property(lambda self: self.kept("placement/predicted_us"))
    lower_bound_us = property(lambda self: self.kept("placement/lower_bound_us"))
    # speed_model/, each [D, P], short curves padded with NaN
    speed_tokens = property(lambda self: self.kept("speed_model/tokens"))
    speed_time_us = property(lambda self: self.kept("speed_model/time_us"))

    def telemetry(self, name):
        """telemetry/NAME, [D] f8 or as the schema says; None where it was not recorded."""
        return self.kept(f"telemetry/{name}") if self.has(f"telemetry/{name}") else None

    def telemetry_attribute(self, name, default=""):
        return self.group["telemetry"].attrs.get(name, default) if "telemetry" in self.group else default

    def device_sum(self, name):
        """device/NAME: a device's sum over all layer calls, [D] i8; from the timelines where the file is older.

        NAME: tokens_sum, busy_sum_ns, expert_sum_ns, wait_sum_ns or last_calls. None where neither is there.
        """
        key = f"device/{name}"
        if key not in self._cache:
            if self.has(key):
                self._cache[key] = self.array(key)
            elif self.has_timelines:
                self._cache[key] = self._summed(name)
            else:
                self._cache[key] = None
        return self._cache[key]

    def _summed(self, name):
        def total(array):
            return self.array(array).sum(axis=(1, 2), dtype=np.int64)
        if name == "tokens_sum":
            return total("tokens")
        if name == "busy_sum_ns":
            return total("dispatch_ns") + total("expert_ns") + total("combine_ns")
        if name == "expert_sum_ns":
            return total("expert_ns")
        if name == "wait_sum_ns":
            return total("wait_ns")
        if name == "last_calls":
            return (self.array("wait_ns") == 0).sum(axis=(1, 2), dtype=np.int64)
        raise KeyError(name)

    def reference_time_us(self, tokens):
        """f_d(tokens) of each device, [D] f8 µs: the speed model read at one number of tokens."""
        return curves_at(self.array("speed_model/tokens"), self.array("speed_model/time_us"), tokens)

    def reference_interval_us(self, tokens):
        """95 % interval of that as it was measured, [2, D] f8 µs; NaN where it was computed."""
        if not self.has("speed_model/lower_us"):
            return np.full((2, self.devices), np.nan)
        return np.stack([curves_at(self.array("speed_model/tokens"), self.array(f"speed_model/{end}_us"), tokens)
                         for end in ("lower", "upper")])

    @property
    def reference_tokens(self):
        """Tokens that a device's experts receive in a layer call if all receive alike; within the speed models."""
        return float(self.tokens_sum.mean()) / self.devices


def curves_at(tokens, time_us, at):
    """Speed curves [D, P] read at a number of tokens: [D] f8 µs.

    Linear between points and from (0, 0), and on from the last with the last slope. Shorter curves end in NaN.
    """
    start = np.zeros((len(tokens), 1))
    xs, ys = np.concatenate([start, tokens], axis=1), np.concatenate([start, time_us], axis=1)
    known = (~np.isnan(xs)).sum(axis=1)
    right = np.clip((xs <= at).sum(axis=1), 1, known - 1)    # a comparison with NaN is false
    rows = np.arange(len(xs))
    weight = (at - xs[rows, right - 1]) / (xs[rows, right] - xs[rows, right - 1])
    return ys[rows, right - 1] + weight * (ys[rows, right] - ys[rows, right - 1])


@dataclass(eq=False)
class StudyFile:
    """A run's folder, open for reading. Use as a context manager, or call close().

    path, directory          study.h5 and the folder that holds it
    name, device             the study's name; model, cpu or cuda
    planned, complete        phases of the plan; whether every phase is there
    toml, config             the study with every key: its text, and parsed
    sha256, version          of study_toml; the program's version
    fleet                    DataFrame: device, kind, uuid, name, host, node, slot; a row per device
    phases                   list of Phase in plan order
    summary                  summary.json parsed, or None
    problems                 list of str: what is missing or damaged, one line each
    """

    path: pathlib.Path
    name: str
    device: str
    planned: int
    complete: bool
    toml: str
    config: dict
    sha256: str
    version: str
    fleet: pd.DataFrame
    phases: list
    summary: dict | None
    problems: list
    _files: list = field(default_factory=list, repr=False)

    @property
    def directory(self):
        return self.path.parent

    @classmethod
    def open(cls, path):
        """The run in this folder, or of this study.h5. Raises StudyError where nothing of it can be read."""
        path = pathlib.Path(path)
        if path.is_dir():
            path = path / "study.h5"
        if not path.exists():
            raise StudyError(f"{path}: no such file; a folder that `moevar run` has written is needed")
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise StudyError(f"{path}: no HDF5 file, or one that was cut off ({_reason(error)}); "
                             "a study.h5 as `moevar run` left it is needed") from None
        try:
            return cls._read(path, file)
        except StudyError:
            file.close()
            raise
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            file.close()
            raise StudyError(f"{path}: damaged ({_reason(error)}); "
                             "a study.h5 as `moevar run` left it is needed") from None

    @classmethod
    def _read(cls, path, file):
        version = file.attrs.get("schema_version")
        if version is None:
            raise StudyError(f"{path}: no schema_version, so not a moevar study; a study.h5 has {SCHEMA_VERSION}")
        if version != SCHEMA_VERSION:
            raise StudyError(f"{path}: schema_version {version}; this program reads {SCHEMA_VERSION}")
        attrs = {name: file.attrs[name] for name in ROOT_ATTRIBUTES}
        problems = []
        study = cls(path=path, name=str(attrs["study"]), device=str(attrs["device"]),
                    planned=int(attrs["planned_phases"]), complete=bool(attrs["complete"]),
                    toml=str(attrs["study_toml"]), config=_parsed(attrs["study_toml"], problems),
                    sha256=str(attrs["study_sha256"]),
                    version=str(attrs["moevar_version"]), fleet=_read_fleet(file, problems), phases=[],
                    summary=_read_summary(path.parent / "summary.json", problems), problems=problems, _files=[file])
        study._read_phases(file)
        return study

    def _read_phases(self, file):
        found = {}
        listed = file["phases"] if "phases" in file else {}
        for name in sorted(listed, key=int):
            try:
                found[name] = (listed[name], file["timing"][name] if name in file.get("timing", {}) else None)
            except (KeyError, OSError, RuntimeError) as error:
                self.problems.append(f"phase {name} is listed and cannot be opened ({_reason(error)})")
        folder = self.directory / "phases"
        for path in sorted(folder.glob("*.h5")) if folder.is_dir() else []:
            if PHASE_FILE.match(path.name) and path.stem not in listed:
                self._read_unlisted(path, found)
        for name in sorted(found, key=int):
            group, timing = found[name]
            try:
                self.phases.append(_read_phase(name, group, timing, str(self.path), found, self.config))
            except (StudyError, KeyError, OSError, RuntimeError, ValueError) as error:
                self.problems.append(f"phase {name} is damaged and left out ({_reason(error)})")
        self._name_what_is_missing(found)
        self._complete_fleet()

    def _complete_fleet(self):
        """Damage to /fleet costs names alone: every device of a phase has a row, with every column."""
        rows = max((int(phase.device_rows.max()) + 1 for phase in self.phases if phase.device_rows.size), default=0)
        if rows > len(self.fleet):
            self.problems.append(f"/fleet has {len(self.fleet)} rows for {rows} devices")
            self.fleet = self.fleet.reindex(range(rows))
        for column in FLEET_COLUMNS:
            if column not in self.fleet:
                self.fleet[column] = "unknown"
        self.fleet = self.fleet.fillna("unknown")

    def _read_unlisted(self, path, found):
        try:
            file = h5py.File(path, "r")
            self._files.append(file)
            found[path.stem] = (file["phase"], file["timing"] if "timing" in file else None)
        except (KeyError, OSError) as error:
            self.problems.append(f"phases/{path.name} cannot be opened ({_reason(error)})")

    def _name_what_is_missing(self, found):
        there = {int(name) for name in found}
        missing = [index for index in range(self.planned) if index not in there]
        if missing:
            self.problems.append(f"{len(missing)} of {self.planned} planned phases "
                                 f"{'is' if len(missing) == 1 else 'are'} missing: {_ranges(missing)}")
        if not self.complete:
            self.problems.append("complete = 0: the run did not finish, or is still going on")

    def cell(self, phase):
        """The phase's entry in summary.json, or None."""
        cells = (self.summary or {}).get("cells", [])
        return next((cell for cell in cells if cell.get("phase") == phase.index), None)

    def close(self):
        for phase in self.phases:   # a phase behind a link lies in a file of its own
            if phase.group:
                phase.group.file.close()
        for file in self._files:
            file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _parsed(text, problems):
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"study_toml cannot be parsed ({_reason(error)})")
        return {}


def _ranges(numbers):
    """[0, 1, 2, 7] as "0000 to 0002, 0007"; at most six runs of numbers."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = [f"{low:04}" if low == high else f"{low:04} to {high:04}" for low, high in runs[:6]]
    return ", ".join(text) + (", …" if len(runs) > 6 else "")


def _read_fleet(file, problems):
    columns = {}
    for name in FLEET_COLUMNS:
        try:
            values = file["fleet"][name][...]
            columns[name] = pd.Series(np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values)
        except (KeyError, OSError, RuntimeError) as error:
            problems.append(f"/fleet/{name} cannot be read ({_reason(error)})")
    return pd.DataFrame(columns)


def _read_summary(path, problems):
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append("summary.json is missing; it is written when a run ends")
        return None
    except (OSError, ValueError) as error:
        problems.append(f"summary.json cannot be read ({_reason(error)})")
        return None
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA_VERSION:
        problems.append("summary.json has another schema and is left aside")
        return None
    return summary


def _speed_model(group, found):
    """The group speed_model; where it is a link that does not resolve in a phase's own file, the one it names."""
    try:
        return group["speed_model"]
    except KeyError:    # absent, or a link to nowhere
        pass
    link = group.get("speed_model", getlink=True)
    named = re.search(r"phases/(\d{4,})/speed_model$", link.path) if isinstance(link, h5py.SoftLink) else None
    if named and named.group(1) in found:
        other = found[named.group(1)][0]
        return other.get("speed_model")
    return None


def _read_phase(name, group, timing, source, found, config):
    attrs = group.attrs
    devices = int(attrs["devices"])
    cap = float(attrs["power_cap_w"])
    steps, layers = group["layer/layer_ns"].shape
    rows = group["devices"][...] if "devices" in group else np.arange(devices, dtype=np.int32)
    experts = attrs.get("experts", config.get("model", {}).get("experts"))
    placement = group["placement"].attrs
    offered = float(attrs["rate"]) if "rate" in attrs else None
    searched = bool(config.get("serving", {}).get("find_rate", False))
    phase = Phase(
        index=int(name), repeat=int(attrs["repeat"]), devices=devices, power_cap_w=None if np.isnan(cap) else cap,
        heat=str(attrs["heat"]), workload=str(attrs["workload"]), policy=str(attrs["policy"]),
        scaling=str(attrs.get("scaling", "strong")), experts=None if experts is None else int(experts),
        even_load=bool(attrs.get("even_load", 0)), equal_fleet=bool(attrs.get("equal_fleet", 0)),
        stop_reason=str(attrs.get("stop_reason", "fixed")), first_step=int(attrs["first_step"]),
        tokens_per_step=int(attrs["tokens_per_step"]), rate=None if searched else offered, offered_rate=offered,
        steps=steps, layers=layers, solved_because=str(placement["solved_because"]),
        per_step=bool(placement["per_step"]), timer=str(attrs["timer"]), sync=str(attrs["sync"]),
        clock_residual_ns=int(attrs["clock_residual_ns"]), stamping_share=float(attrs.get("stamping_share", np.nan)),
        solve_ms=None if timing is None else float(timing.attrs["solve_ms"]),
        migrate_ms=None if timing is None else float(timing.attrs["migrate_ms"]), device_rows=rows, group=group,
        source=source, _speed_model=_speed_model(group, found))
    for layer_field in LAYER_FIELDS:    # small, and what every figure needs: damage shows here
        if phase.kept(f"layer/{layer_field}").shape != (steps, layers):
            raise StudyError(f"layer/{layer_field} is not [{steps}, {layers}]")
    return phase
