"""The page's figures: the scale projection, and attainment against rate."""

from moevar import style
from moevar.papers import estimates, serving
from moevar.papers.runs import NotRun
from moevar.papers.vibe_layers import PROJECTION, layer_median, of_cells


def scale(runs):
    """(title, caption, SVG) of layer times over contiguous's against the number of devices, or None."""
    try:
        run = runs.get("vibe-scale")
    except NotRun:
        return None
    sizes = run.config["fleet"]["devices"]
    policies = [policy for policy in run.policies() if policy != "contiguous"]
    entries = [(policy, *style.look(policy), True) for policy in policies]
    entries += [(f"{policy}, published", *style.look(policy), False) for policy in PROJECTION]
    figure, (axis,) = style.rows(1, 2.4, entries=entries)
    for i, policy in enumerate(policies):
        colour, marker = style.look(policy)
        for place, devices in enumerate(sizes):
            ratio = estimates.ratio(
                of_cells(run, policy, layer_median, devices=devices),
                of_cells(run, "contiguous", layer_median, devices=devices),
            )
            x = place - 0.15 + style.dodge(i, len(policies), 0.4)
            style.error_bar(axis, x, ratio.value, ratio.low, ratio.high, colour)
            axis.plot([x], [ratio.value], marker=marker, color=colour, markersize=5)
    for i, (policy, published) in enumerate(PROJECTION.items()):
        colour, marker = style.look(policy)
        there = [n for n in published if n in sizes]
        axis.plot(
            [sizes.index(n) + 0.25 + 0.12 * i for n in there],
            [published[n] for n in there],
            linestyle="",
            marker=marker,
            color=colour,
            markerfacecolor="white",
            markersize=5,
        )
    axis.axhline(1, color=style.GREY, linewidth=0.8)
    style.categories(axis, [str(size) for size in sizes])
    axis.set_xlabel("devices")
    axis.set_ylabel("layer time ÷ contiguous")
    svg = style.svg(figure)
    style.close(figure)
    return (
        "Layer time over that of experts in order, against the number of devices",
        (
            "Filled: median layer time, 95 % intervals over fleets; open: ViBE's figure 15. Levels differ with loads, "
            "machine and exchange; shapes can be compared."
        ),
        svg,
    )


def frontiers(runs):
    """[(title, caption, SVG)]: attainment against rate in the searches for the frontier, a figure per case that ran."""
    made = []
    for case, (label, published) in serving.CASES.items():
        try:
            run = runs.get(serving.FRONTIER + case)
        except NotRun:
            continue
        made.append(
            (
                f"{label}: share of requests within limits against rate",
                (
                    "Points: rates that the searches tried, all repeats; on the 90 % line the crossing found, with "
                    "its 95 % interval over repeats. Ticks: crossings read off ViBE's figure 8. Levels differ with "
                    "machine and data type; ratios can be compared."
                ),
                _frontier(run, published),
            )
        )
    return made


def _frontier(run, published):
    policies = run.policies()
    entries = [(policy, *style.look(policy), True) for policy in policies]
    entries += [(f"{policy}, published", style.look(policy)[0], "|", False) for policy in published]
    figure, (axis,) = style.rows(1, 2.4, entries=entries)
    for policy in policies:
        colour, marker = style.look(policy)
        tried = [
            pair
            for cell in run.by_repeat(policy).values()
            for pair in (cell["serving"].get("max_rate") or {}).get("evaluations", [])
        ]
        axis.plot(
            [rate for rate, _ in tried],
            [share for _, share in tried],
            linestyle="",
            marker=marker,
            color=colour,
            markersize=2.2,
            alpha=0.5,
        )
        found = serving.crossings(run, policy)
        if found:
            crossing = estimates.over(found.values())
            style.error_bar(axis, crossing.value, 0.9, crossing.low, crossing.high, colour, horizontal=True)
            axis.plot([crossing.value], [0.9], marker=marker, color=colour, markersize=6, markeredgecolor="white")
    for policy, rate in published.items():
        axis.plot([rate], [0.9], marker="|", markersize=14, color=style.look(policy)[0], linestyle="")
    axis.axhline(0.9, color=style.GREY, linewidth=0.8, zorder=0)
    axis.set_ylim(0, 1.03)
    axis.set_xlabel("requests/s per device")
    axis.set_ylabel("share of requests within limits")
    svg = style.svg(figure)
    style.close(figure)
    return svg
