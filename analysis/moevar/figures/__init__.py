"""The report's figures, a module each.

A module's draw(study, ...) returns a list of Drawing, or raises NotCarried where the study's data cannot show it. A
Drawing's numbers are what it draws, as rows with the factors that join them with summary.json (`phase` or `phases`);
report.py writes them beside the picture.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np

from moevar import cells


class NotCarried(Exception):
    """The study's data does not carry this figure. The text: one sentence, what is missing and which study makes it."""


@dataclass
class Drawing:
    """name: file name without ending; title: a sentence with what it shows; caption: what is drawn, with units.

    raster: to be kept as a picture of points, for more of them than an SVG should hold.
    """

    name: str
    title: str
    caption: str
    numbers: list
    figure: object
    raster: bool = False


def policy_panels(study):
    """What stands in a figure of policies side by side: {(condition, devices): [(policy, repeats)]} of the study's own
    cells at the sizes that are shown, and the caption's sentence about those."""
    phases = cells.measured(study)
    if not phases:
        raise NotCarried("No phase has measured steps (phases.steps > 0).")
    sizes, note = cells.shown_sizes(phases)
    panels = {}
    for condition, devices, policy, repeats in cells.cells(study, phases):
        if devices in sizes:
            panels.setdefault((condition, devices), []).append((policy, repeats))
    return panels, note


def pages(name, panels, limit, draw):
    """Drawings of at most `limit` panels, so that none grows beyond a screen or two: NAME, NAME-2, …

    draw(name, panels) makes one of some of the panels; they are spread evenly.
    """
    size = math.ceil(len(panels) / math.ceil(len(panels) / limit))
    parts = [panels[first:first + size] for first in range(0, len(panels), size)]
    return [draw(name if i == 0 else f"{name}-{i + 1}", part) for i, part in enumerate(parts)]


def generator(name):
    """Random numbers for one figure's intervals: the same report from the same data."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def percent(value, digits=1):
    return f"{100 * value:.{digits}f} %"


def with_interval(estimate, scale=1.0, digits=1, unit=""):
    """`2.0 % (1.9 to 2.1 %)`; without an interval it says so."""
    text = f"{estimate.value * scale:.{digits}f}{unit}"
    if estimate.low is None or estimate.high is None:
        return f"{text} (too few steps for an interval)"
    return f"{text} ({estimate.low * scale:.{digits}f} to {estimate.high * scale:.{digits}f}{unit})"
