"""One look for all figures: sizes, colours that the colour-blind tell apart (Okabe and Ito, 2008), a marker per policy.

Figures are narrow and high: at 390 px a page shows them nearly at their own size, and a wide page two side by side.
"""

import io
import math
import re

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

WIDTH_IN = 4.8
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#767676")
FAINT = "#D9D9D9"

# A policy looks alike in every report.
POLICIES = {
    "contiguous": (BLACK, "s"), "round_robin": (GREY, "P"), "random": (GREY, "X"), "sorted": (PURPLE, "v"),
    "eplb": (ORANGE, "o"), "eplb_steps": (ORANGE, "p"), "flashlb": (PURPLE, "h"), "vibe": (BLUE, "D"),
    "vibe_swap": (SKY, "d"), "vibe_finish": (SKY, "<"), "gem_like": (GREEN, "v"), "minmax": (VERMILION, "^"),
    "harmoeny": (PURPLE, "X"), "harmoeny_speed": (PURPLE, "P"), "oracle": (GREEN, "*"),
}
SPARE = [(BLACK, "<"), (ORANGE, ">"), (SKY, "v"), (GREEN, "h"), (PURPLE, "p")]
CONDITION_COLOURS = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY]
CONDITION_MARKERS = "oD^svPX*"

matplotlib.rcParams.update({
    "font.size": 8.5, "axes.labelsize": 8.5, "axes.titlesize": 8.5, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.7, "axes.edgecolor": "#444444", "axes.grid": True, "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "legend.frameon": False,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "svg.fonttype": "path", "svg.hashsalt": "moevar",
    "figure.dpi": 100, "savefig.dpi": 200, "axes.formatter.useoffset": False, "hatch.linewidth": 0.6,
})


def look(policy):
    """(colour, marker) of a policy."""
    return POLICIES.get(policy) or SPARE[sum(policy.encode()) % len(SPARE)]


def condition_look(index):
    return CONDITION_COLOURS[index % len(CONDITION_COLOURS)], CONDITION_MARKERS[index % len(CONDITION_MARKERS)]


def rows(count, height_in, *, entries=(), width_in=WIDTH_IN, **options):
    """A figure with panels of this height under each other, above them a legend: figure, list of axes.

    entries: (label, colour, marker or None for a line, filled) of what the legend tells of.
    """
    columns = _columns(entries, width_in)
    legend_in = 0.05 + 0.2 * math.ceil(len(entries) / columns) if entries else 0.0
    total_in = count * height_in + legend_in
    figure = pyplot.figure(figsize=(width_in, total_in), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - legend_in / total_in))
    if entries:
        _legend(figure, entries, columns)
    axes = []
    for row in range(count):
        shared = {name: axes[0] for name in options if axes}
        axes.append(figure.add_subplot(count, 1, row + 1, **shared))
    return figure, axes


def _columns(entries, width_in):
    """How many of a legend's entries fit beside each other: about 14 letters an inch, and 4 for a mark."""
    widths = [len(label) + 4 for label, *_ in entries]
    for columns in range(len(entries), 1, -1):
        if sum(max(widths[column::columns]) for column in range(columns)) <= width_in * 14:
            return columns
    return 1


def _legend(figure, entries, columns):
    lines = -(-len(entries) // columns)     # matplotlib fills column after column; this reads along lines
    order = [line * columns + column for column in range(columns) for line in range(lines)]
    entries = [entries[i] for i in order if i < len(entries)]
    handles = [Line2D([], [], color=colour, marker=marker or "", linestyle="" if marker else "-", markersize=5.5,
                      linewidth=5 if marker is None else 1, solid_capstyle="butt",
                      markerfacecolor=colour if filled else "white", label=label)
               for label, colour, marker, filled in entries]
    figure.legend(handles=handles, loc="upper left", ncols=columns, handletextpad=0.4, columnspacing=1.2,
                  borderaxespad=0.3, borderpad=0, handlelength=1.2)


def marker_size(places, usual=5.0):
    """Smaller marks where many categories leave little room."""
    return usual if places <= 8 else 0.62 * usual


def dodge(index, count, width=0.7):
    """Offset from a category's place so that several things stand side by side."""
    return 0.0 if count < 2 else width * (index / (count - 1) - 0.5)


def ladder_height(labels):
    """Inches for a panel over these categories: slanted names take room of their own."""
    return 2.6 if _slanted(labels) else 1.9


def _slanted(labels):
    return sum(len(str(label)) + 2 for label in labels) > 60     # so many letters fit beside each other


def categories(axis, labels):
    """Names on an x axis whose values have no distance; slanted where they would not fit."""
    axis.set_xticks(range(len(labels)), labels, rotation=60 if _slanted(labels) else 0)
    axis.set_xlim(-0.6, len(labels) - 0.4)
    axis.grid(False, axis="x")
    for place in range(len(labels) - 1):
        axis.axvline(place + 0.5, color="#E6E6E6", linewidth=0.6, zorder=0)


def names_down(axis, labels):
    """Names on a y axis, the first on top."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.45, -0.55)
    axis.grid(False, axis="y")
    for place in range(len(labels) - 1):
        axis.axhline(place + 0.5, color="#E6E6E6", linewidth=0.6, zorder=0)


def error_bar(axis, x, y, low, high, colour, *, horizontal=False, cap=2.0):
    """An interval as a bar; none where the sample supports none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return
    if horizontal:
        axis.errorbar([x], [y], xerr=[[max(x - low, 0)], [max(high - x, 0)]], fmt="none", ecolor=colour, elinewidth=1.1,
                      capsize=cap)
    else:
        axis.errorbar([x], [y], yerr=[[max(y - low, 0)], [max(high - y, 0)]], fmt="none", ecolor=colour, elinewidth=1.1,
                      capsize=cap)


def curve(axis, places, estimates, policy):
    """A policy's estimates with their intervals, joined by a line."""
    colour, marker = look(policy)
    for place, estimate in zip(places, estimates):
        error_bar(axis, place, estimate.value, estimate.low, estimate.high, colour)
    axis.plot(places, [estimate.value for estimate in estimates], marker=marker, color=colour, markersize=4.5,
              linewidth=1)


def logarithmic(axis):
    """A logarithmic y axis that names its values in full."""
    axis.set_yscale("log")
    name_decades(axis.yaxis)


def name_decades(side):
    """Ticks of a logarithmic axis's side at 1, 2 and 5 of each decade."""
    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
    side.set_major_formatter(lambda value, _: f"{value:g}")
    side.set_minor_locator(NullLocator())


def from_zero(axis, which="y", room=1.08):
    """The axis from 0 to a little beyond what is drawn."""
    low, high = (axis.get_ylim if which == "y" else axis.get_xlim)()
    low, high = min(low, high), max(low, high)
    (axis.set_ylim if which == "y" else axis.set_xlim)(min(0.0, low), high * room if high > 0 else high)


def jitter(count, width):
    """Fixed offsets that keep equal values apart: the golden ratio's multiples, in [-width/2, width/2]."""
    return (np.arange(count) * 0.6180339887498949 % 1.0 - 0.5) * width


def svg(figure):
    """The figure as SVG text without file header, metadata or anything that points outside."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    return re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def close(figure):
    pyplot.close(figure)
