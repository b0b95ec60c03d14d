#!/usr/bin/env python3
"""A phase's timelines as a Chrome trace, for https://ui.perfetto.dev or chrome://tracing.

    timeline.py DIR --phase N [--steps A:B] [--out FILE.json]

A process per host, a thread per device named by its UUID; slices dispatch, expert, wait and combine of every layer,
with step, layer and tokens; counters for clock, temperature and power where they were sampled. Steps A to B - 1,
counted from the phase's first recorded one. Default: all, to DIR/timeline-N.json. Times are the phase's own clock.

Exit status: 0 done; 2 unusable input, in one line.
"""

import argparse
import json
import pathlib
import sys

try:
    import numpy as np
    from moevar.study import StudyError, StudyFile
except ImportError as error:
    sys.exit(f"timeline.py: {error}; Debian: python3-h5py python3-pandas")

PARTS = (("dispatch", "dispatch_ns"), ("expert", "expert_ns"), ("wait", "wait_ns"), ("combine", "combine_ns"))
COUNTERS = (("SM clock, MHz", "sm_clock_mhz"), ("temperature, °C", "temperature_c"), ("power, W", "power_w"))


def chosen(study, index, steps):
    """The phase and its range of steps; StudyError where there is none such."""
    phase = next((phase for phase in study.phases if phase.index == index), None)
    if phase is None:
        there = ", ".join(str(phase.index) for phase in study.phases[:8]) + (", …" if len(study.phases) > 8 else "")
        raise StudyError(f"{study.path}: --phase {index}: no such phase; there are {there or 'none'}")
    if not phase.has_timelines:
        raise StudyError(f"{study.path}: phase {phase.name} has no timelines; a study with record.timelines = true has")
    first, last = steps or (0, phase.steps)
    if not 0 <= first < last <= phase.steps:
        raise StudyError(f"{study.path}: --steps {first}:{last}: phase {phase.name} has steps 0:{phase.steps}")
    return phase, first, last


def names(study, phase):
    """Metadata events: processes are hosts, in the order of their first device; threads are devices."""
    rows = study.fleet.iloc[phase.device_rows]
    hosts = list(dict.fromkeys(rows["host"]))
    where = [hosts.index(host) for host in rows["host"]]
    for process, host in enumerate(hosts):
        yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": str(host)}}
    for device, uuid in enumerate(rows["uuid"]):
        thread = {"ph": "M", "pid": where[device], "tid": device}
        yield {**thread, "name": "thread_name", "args": {"name": str(uuid)}}
        yield {**thread, "name": "thread_sort_index", "args": {"sort_index": device}}


def slices(study, phase, first, last):
    """Complete events in microseconds. A device's expert part ends when it arrived; dispatch lies before it."""
    where = _processes(study, phase)
    selection = np.s_[:, first:last, :]
    durations = {name: phase.array(field, selection) for name, field in PARTS}
    arrival = phase.array("arrival_ns", selection)
    tokens = phase.array("tokens", selection)
    begins = {"expert": arrival - durations["expert"], "wait": arrival, "combine": arrival + durations["wait"]}
    begins["dispatch"] = begins["expert"] - durations["dispatch"]
    for device, step, layer in np.ndindex(arrival.shape):
        place = {"pid": where[device], "tid": device}
        for name, _ in PARTS:
            length = int(durations[name][device, step, layer])
            if length == 0 and name == "wait":      # the straggler waits for nobody
                continue
            about = {"step": first + step, "layer": layer}
            if name == "expert":
                about["tokens"] = int(tokens[device, step, layer])
            yield {"ph": "X", "name": name, "cat": "layer", "ts": int(begins[name][device, step, layer]) / 1e3,
                   "dur": length / 1e3, **place, "args": about}


def counters(study, phase, begin_ns, end_ns):
    """Counter events of the samples from begin_ns to end_ns on the clock of the timelines."""
    if not phase.has("telemetry/series/time_ns"):
        return
    where = _processes(study, phase)
    times, readings = phase.array("telemetry/series/time_ns"), phase.array("telemetry/series/readings")
    for label, field in COUNTERS:
        values = phase.array(f"telemetry/series/{field}")
        for device, count in enumerate(readings):
            for time, value in zip(times[device, :count], values[device, :count]):
                if begin_ns <= time <= end_ns and np.isfinite(value):
                    yield {"ph": "C", "name": f"{label}, device {device}", "pid": where[device], "ts": int(time) / 1e3,
                           "args": {"value": float(value)}}


def _processes(study, phase):
    hosts = study.fleet.iloc[phase.device_rows]["host"]
    order = list(dict.fromkeys(hosts))
    return [order.index(host) for host in hosts]


def write(study, phase, first, last, out):
    """Event after event, so that a long phase does not lie in memory as Python objects; the number of events."""
    selection = np.s_[:, first:last, :]
    arrival = phase.array("arrival_ns", selection)
    begin = int((arrival - phase.array("expert_ns", selection) - phase.array("dispatch_ns", selection)).min())
    end = int((arrival + phase.array("wait_ns", selection) + phase.array("combine_ns", selection)).max())
    about = {"study": study.name, "moevar_version": study.version, "steps": [first, last],
             **{name: value for name, value in phase.factors.items() if value is not None}}
    temporary, count = out.with_name(out.name + ".tmp"), 0
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}, "traceEvents": [')
        for events in (names(study, phase), slices(study, phase, first, last), counters(study, phase, begin, end)):
            for event in events:
                file.write((",\n" if count else "\n") + json.dumps(event))
                count += 1
        file.write("\n]}\n")
    temporary.replace(out)
    return count


def step_range(text):
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: two numbers A:B are needed, as in 0:4")
    return int(first), int(last)


def main():
    parser = argparse.ArgumentParser(prog="timeline.py", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", metavar="DIR", help="a folder that `moevar run` has written")
    parser.add_argument("--phase", type=int, required=True, metavar="N")
    parser.add_argument("--steps", type=step_range, metavar="A:B")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    try:
        with StudyFile.open(arguments.directory) as study:
            phase, first, last = chosen(study, arguments.phase, arguments.steps)
            out = arguments.out or study.directory / f"timeline-{phase.index}.json"
            events = write(study, phase, first, last, out)
    except StudyError as error:
        print(f"timeline.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"timeline.py: {error.filename}: {error.strerror}; a folder that can be written is needed",
              file=sys.stderr)
        return 2
    print(f"{out}: {events} events")
    return 0


if __name__ == "__main__":
    sys.exit(main())
