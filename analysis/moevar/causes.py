"""What the straggler tax is made of: run noise, token skew, the GPUs' differences, and what the last two do together.

Every cell runs four times over the same steps: with the workload's loads or all experts equally popular (even_load), on
the fleet as it is or on equal GPUs (equal_fleet). With tax(even_load, equal_fleet):

    noise       = tax(1, 1)
    skew        = tax(0, 1) - noise
    hardware    = tax(1, 0) - noise
    interaction = tax(0, 0) - noise - skew - hardware
    total       = tax(0, 0)

a two-by-two factorial whose parts sum to the total (Box, Hunter and Hunter, Statistics for Experimenters, 5). On real
GPUs no fleet is equal: `predicted_equal_fleet` computes it from the speed models, and says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from moevar.intervals import Estimate, Linear, interval_of, student, tax_of

CELLS = ((1, 1), (0, 1), (1, 0), (0, 0))
# The parts as sums over the four cells' taxes, in the order of CELLS.
PARTS = {"noise": (1, 0, 0, 0), "skew": (-1, 1, 0, 0), "hardware": (-1, 0, 1, 0), "interaction": (1, -1, -1, 1),
         "total": (0, 0, 0, 1)}


@dataclass(frozen=True)
class LayerSeries:
    """A phase's layer calls: layer_ns and busy_sum_ns [S, L] over `devices` devices."""

    layer_ns: np.ndarray
    busy_sum_ns: np.ndarray
    devices: int


@dataclass(frozen=True)
class Split:
    """The parts of a tax; plain numbers like the tax itself (0.1 is 10 %)."""

    noise: Estimate
    skew: Estimate
    hardware: Estimate
    interaction: Estimate
    total: Estimate


def split(cells: Mapping[tuple[int, int], LayerSeries | Sequence[LayerSeries]], *, unit: str = "repeat",
          alpha: float = 0.05) -> Split:
    """Splits the tax of the four cells (even_load, equal_fleet), each a phase or a list of its repeats.

    The four ran the same steps, so intervals are of the steps' differences: what a step does to all four cancels.
    Several repeats: with unit = "repeat" (other devices in each: the claim is about the population of GPUs) the
    repeats themselves are what varies, two at least; with unit = "step" (the same devices, further steps) their steps
    do, and the claim is about these GPUs. Raises ValueError where a cell is missing or steps differ.
    """
    if unit not in ("repeat", "step"):
        raise ValueError(f"unit {unit!r}: repeat or step is needed")
    repeats = _aligned(cells)
    taxes = [_pooled([repeat[cell] for repeat in repeats]) for cell in range(len(CELLS))]
    sums = {name: _sum(taxes, signs) for name, signs in PARTS.items()}
    interval = interval_of if len(repeats) == 1 or unit == "step" else _over_repeats
    return Split(**{name: interval(part, alpha) for name, part in sums.items()})


def _aligned(cells) -> list[list[LayerSeries]]:
    """[repeat][cell in the order of CELLS]; the four cells of a repeat have the same steps and layers."""
    missing = [cell for cell in CELLS if cell not in cells]
    if missing:
        raise ValueError(f"cells (even_load, equal_fleet) {missing} are missing; a split needs all four")
    lists = [[cells[cell]] if isinstance(cells[cell], LayerSeries) else list(cells[cell]) for cell in CELLS]
    if len({len(repeats) for repeats in lists}) != 1 or not lists[0]:
        raise ValueError(f"{[len(repeats) for repeats in lists]} repeats in the four cells; as many in each are needed")
    repeats = [list(repeat) for repeat in zip(*lists)]
    for repeat in repeats:
        if len({np.shape(series.layer_ns) for series in repeat}) != 1:
            raise ValueError("the four cells ran different numbers of steps or layers; a split needs the same steps")
    return repeats


def _pooled(series: list[LayerSeries]) -> Linear:
    if len({part.devices for part in series}) != 1:
        raise ValueError("repeats of one cell have different numbers of devices")
    return tax_of([np.asarray(part.layer_ns, dtype=float) for part in series],
                  [np.asarray(part.busy_sum_ns, dtype=float) for part in series], series[0].devices)


def _sum(taxes: list[Linear], signs) -> Linear:
    value = sum(sign * tax.value for sign, tax in zip(signs, taxes))
    influence = sum(sign * tax.influence for sign, tax in zip(signs, taxes))
    return Linear(value, influence, taxes[0].segments, taxes[0].n)


def _over_repeats(part: Linear, alpha: float) -> Estimate:
    """Student's t interval from what each repeat as a whole adds to the part; the value is that of all steps pooled."""
    count = len(part.segments)
    starts = np.cumsum([0, *part.segments[:-1]])
    added = np.add.reduceat(part.influence, starts) * (count / part.influence.size)
    half = student(count - 1, alpha) * float(added.std(ddof=1)) / math.sqrt(count)
    return Estimate(part.value, part.value - half, part.value + half, part.n, f"{count} repeats")


# --- a fleet of equals, predicted ---------------------------------------------------------------------------------


def curve_times(speed_tokens, speed_time_us, tokens) -> np.ndarray:
    """Speed curve (points [P], NaN-padded) at any tokens: linear between points and from (0, 0), and on from the last
    with the last slope, as the solver reads it."""
    known = ~np.isnan(speed_tokens)
    x = np.concatenate([[0.0], np.asarray(speed_tokens, dtype=float)[known]])
    y = np.concatenate([[0.0], np.maximum.accumulate(np.asarray(speed_time_us, dtype=float)[known])])
    if x.size < 2:
        raise ValueError("a speed curve has no points; a profile of the devices is needed")
    tokens = np.asarray(tokens, dtype=float)
    beyond = np.maximum(tokens - x[-1], 0.0) * (y[-1] - y[-2]) / (x[-1] - x[-2])
    return np.interp(tokens, x, y) + beyond


def mean_curve(speed_tokens, speed_time_us) -> tuple[np.ndarray, np.ndarray]:
    """The fleet's mean time per number of tokens, from curves [D, P]: at all tokens where some device has a point."""
    grid = np.unique(speed_tokens[~np.isnan(speed_tokens)])
    total = np.zeros(grid.size)
    for tokens, time in zip(speed_tokens, speed_time_us):
        total += curve_times(tokens, time, grid)
    return grid, total / len(speed_tokens)


def predicted_equal_fleet(tokens, speed_tokens, speed_time_us, expert_ns, dispatch_ns, combine_ns) -> LayerSeries:
    """What a phase's layer calls would have taken on equal devices of the fleet's mean speed.

    tokens, expert_ns, dispatch_ns, combine_ns [D, S, L] as measured, speed_tokens and speed_time_us [D, P]. Each expert
    time is multiplied by mean curve / own curve at its tokens, so that what is not in the curves, noise, stays. A layer
    then takes until the last device has its tokens and has worked them, and the combine after it:
    max over d of (dispatch + expert) + combine. Dispatch is taken as it was measured, although devices that finish
    together would also send together. Raises ValueError where shapes differ or a curve has no points.
    """
    tokens = np.asarray(tokens)
    arrays = [np.asarray(array) for array in (expert_ns, dispatch_ns, combine_ns)]
    if tokens.ndim != 3 or any(array.shape != tokens.shape for array in arrays):
        raise ValueError(f"tokens {tokens.shape} and times {[array.shape for array in arrays]}; "
                         "[D, S, L] each is needed")
    speed_tokens, speed_time_us = np.asarray(speed_tokens, dtype=float), np.asarray(speed_time_us, dtype=float)
    if len(speed_tokens) != len(tokens) or speed_tokens.shape != speed_time_us.shape:
        raise ValueError(f"speed curves {speed_tokens.shape} of {len(tokens)} devices; a curve each is needed")
    devices, steps, layers = tokens.shape
    grid, mean_time = mean_curve(speed_tokens, speed_time_us)
    arrival, busy, combine_last = np.zeros((steps, layers)), np.zeros((steps, layers)), np.zeros((steps, layers))
    for d in range(devices):  # a device at a time: the arrays are the study's largest
        own = curve_times(speed_tokens[d], speed_time_us[d], tokens[d])
        equal = curve_times(grid, mean_time, tokens[d])
        with np.errstate(invalid="ignore", divide="ignore"):
            expert = arrays[0][d] * np.where(own > 0, equal / own, 1.0)
        before, after = arrays[1][d], arrays[2][d]
        np.maximum(arrival, before + expert, out=arrival)
        np.maximum(combine_last, after, out=combine_last)
        busy += before + expert + after
    return LayerSeries(arrival + combine_last, busy, devices)
