"""Timelines of one slow step: what every device did in its layers, and who waited for whom."""

import numpy as np
from matplotlib.patches import Patch

from moevar import cells, style
from moevar.figures import Drawing, NotCarried

LAYERS = 4
DEVICES = 16
PARTS = (("dispatch_ns", "dispatch", style.SKY, ""), ("expert_ns", "experts", style.BLUE, ""),
         ("wait_ns", "wait", "#FBE3C0", "////"), ("combine_ns", "combine", style.GREEN, ""))


def draw(study):
    phases = [phase for phase in cells.measured(study) if phase.has_timelines]
    if any(phase.serves for phase in study.phases):
        raise NotCarried("Phases that serve requests keep no timelines of single devices.")
    if not phases:
        raise NotCarried("Timelines of single devices were not kept; record.timelines = true keeps them.")
    condition = cells.conditions(phases)[0]
    devices = cells.sizes(cells.select(phases, condition))[-1]
    here = cells.select(phases, condition, devices)
    base = cells.policies(study, here)[0]
    best = min(here, key=lambda phase: phase.layer_ns.mean())
    chosen = [cells.select(here, policy=base)[0]] + ([] if best.policy == base else [best])
    return [_draw(study, phase, "slow-step" if i == 0 else "slow-step-best") for i, phase in enumerate(chosen)]


def _draw(study, phase, name):
    step = int(phase.layer_ns.sum(axis=1).argmax())
    parts = {part: phase.array(part, np.s_[:, step, :]) for part, *_ in PARTS}
    first, last = _window(phase.layer_ns[step])
    shown, note = _devices(phase, parts["expert_ns"][:, first:last])
    figure, (axis,) = style.rows(1, max(1.6, 0.75 + 0.21 * len(shown)))
    start, numbers, stragglers = 0.0, [], []
    for layer in range(first, last):
        length = phase.layer_ns[step, layer] / 1e6
        straggler = int(parts["wait_ns"][:, layer].argmin())
        stragglers.append(straggler)
        _bars(axis, parts, layer, shown, start)
        if straggler in shown:
            axis.plot([start + length], [shown.index(straggler)], marker="<", color=style.VERMILION, markersize=6,
                      clip_on=False, zorder=5)
        axis.text(start + length / 2, -0.72, f"layer {layer}", ha="center", fontsize=7.5)
        numbers.append({**phase.factors, "step": step, "layer": layer, "layer_us": length * 1e3,
                        "last_device": straggler, "devices_shown": shown,
                        **{part: (parts[part][shown, layer] / 1e3).tolist() for part, *_ in PARTS}})
        start += length
        axis.axvline(start, color=style.BLACK, linewidth=0.6)
    axis.set_yticks(range(len(shown)), [str(device) for device in shown])
    axis.set_ylabel("device")
    axis.set_ylim(len(shown) - 0.4, -1.1)
    axis.set_xlim(0, start)
    axis.grid(False)
    axis.set_xlabel(f"time since layer {first} began, ms")
    axis.legend(handles=[Patch(facecolor=colour, hatch=hatch, edgecolor="#C98A1B" if hatch else colour, label=label)
                         for _, label, colour, hatch in PARTS], loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4,
                borderaxespad=0.1, columnspacing=1.0, handlelength=1.4, handletextpad=0.5)
    waits = {device: stragglers.count(device) for device in set(stragglers)}
    culprit = max(waits, key=waits.get)
    idle = float(parts["wait_ns"][:, first:last].sum() / (phase.devices * phase.layer_ns[step, first:last].sum()))
    title = (f"In the slowest step under {phase.policy}, all wait for device {culprit} in {waits[culprit]} of these "
             f"{last - first} layers, {100 * idle:.1f} % of all device time")
    caption = (f"Phase {phase.name} ({phase.devices} devices, {cells.condition_of(phase).label}, repeat "
               f"{phase.repeat}), step {step} of {phase.steps}: layers {first} to {last - 1}, around its slowest. ◂ "
               f"marks the device that finished its experts last: the others' wait ends there. Device {culprit}: "
               f"{_uuid(study, phase, culprit) or 'not known'}.{note}")
    return Drawing(name, title, caption, numbers, figure)


def _window(layer_ns):
    """The layers around the slowest one of a step."""
    slowest = int(layer_ns.argmax())
    first = min(max(0, slowest - LAYERS // 2), max(0, layer_ns.size - LAYERS))
    return first, min(layer_ns.size, first + LAYERS)


def _devices(phase, expert_ns):
    """Devices to show, in fleet order: all, or of many the slowest and an even sample; and a sentence that says so."""
    if phase.devices <= DEVICES:
        return list(range(phase.devices)), ""
    slowest = np.argsort(-expert_ns.sum(axis=1), kind="stable")[:DEVICES // 2]
    rest = np.setdiff1d(np.arange(phase.devices), slowest)
    sample = rest[np.linspace(0, len(rest) - 1, DEVICES - len(slowest)).astype(int)]
    return (sorted(int(device) for device in {*slowest, *sample}),
            f" Of {phase.devices} devices the {len(slowest)} with most expert time here, and an even sample of the "
            "others.")


def _bars(axis, parts, layer, shown, start):
    left = np.full(len(shown), start)
    for part, _, colour, hatch in PARTS:
        length = parts[part][shown, layer] / 1e6
        axis.barh(range(len(shown)), length, left=left, height=0.74, color=colour, hatch=hatch,
                  edgecolor="#C98A1B" if hatch else colour, linewidth=0.3)
        left = left + length



def _uuid(study, phase, device):
    """Who a phase's device is; empty where the fleet's table is damaged."""
    row = int(phase.device_rows[device])
    return str(study.fleet["uuid"].iloc[row]) if "uuid" in study.fleet and row < len(study.fleet) else ""
