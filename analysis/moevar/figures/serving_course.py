"""A run in which something changed, or experts moved: time to first token, straggler tax and moves over time."""

import numpy as np

from moevar import cells, serving, style
from moevar.figures import Drawing, NotCarried

TTFT_REQUESTS = 25      # over which the rolling median goes
POINTS = 800            # of a line
MOST = 6                # figures


def draw(study):
    found = serving.served(study)
    if not any(one.entry["changes"] or one.entry["rearrangements"] for one in found):
        raise NotCarried("Nothing changed in a run and nothing was moved: that takes other lengths one after the other "
                         "(serving.lengths), serving.disturbance, or placement.recompute = \"on-drift\".")
    runs = _runs(study, found)
    note = f" Of {len(runs)} such runs the first {MOST} are shown." if len(runs) > MOST else ""
    return [_draw("course" if i == 0 else f"course-{i + 1}", run, note) for i, run in enumerate(runs[:MOST])]


def _runs(study, found):
    """[{policy: Served}]: of each condition and size the first repeat that all policies have, if something changed."""
    grouped = {}
    for condition, devices, policy, repeats in serving.by_cell(study, found):
        grouped.setdefault((condition, devices), {})[policy] = {one.phase.repeat: one for one in repeats}
    runs = []
    for by_policy in grouped.values():
        common = sorted(set.intersection(*(set(repeats) for repeats in by_policy.values())))
        run = {policy: repeats[common[0]] for policy, repeats in by_policy.items()} if common else {}
        if any(one.entry["changes"] or one.entry["rearrangements"] for one in run.values()):
            runs.append(run)
    return runs


def _draw(name, run, note):
    first = next(iter(run.values()))
    moves = any(one.entry["rearrangements"] for one in run.values())
    figure, axes = style.rows(3 if moves else 2, 1.75, sharex=True,
                              entries=[(policy, *style.look(policy), True) for policy in run])
    numbers = []
    for policy, one in run.items():
        colour, _ = style.look(policy)
        _line(axes[0], *serving.ttft_course(one.phase, TTFT_REQUESTS), colour)
        times, tax = serving.tax_course(one.phase)
        _line(axes[1], times, 100 * tax, colour)
        numbers += [{**one.phase.factors, **row, "what": "change", "change": row["what"]}
                    for row in one.entry["changes"]]
        numbers += [{**one.phase.factors, "what": "rearrangement", **row} for row in one.entry["rearrangements"]]
    if moves:
        _moves(axes[2], run)
    _changes(axes, run)
    _label(axes, first)
    caption = (f"Repeat {first.phase.repeat}. Median TTFT of each request and the {TTFT_REQUESTS - 1} that came before "
               f"it, at its arrival; straggler tax of each step and the {serving.TAX_STEPS - 1} before it, up to the "
               "last arrival. Dashed: what changed."
               + (" Marks below: when a policy solved its placement anew; filled where experts moved, larger for more "
                  "of them, open where none had to." if moves else "") + note)
    return Drawing(name, _title(run), caption, numbers, figure)


def _line(axis, x, y, colour):
    every = max(1, len(x) // POINTS)
    axis.plot(x[::every], y[::every], color=colour, linewidth=1)


def _changes(axes, run):
    """Their times are of the requests, and so the same under all policies, but where each policy has its own rate."""
    seen = {}
    for one in run.values():
        for change in one.entry["changes"]:
            seen.setdefault(change["at_s"], change["what"])
    for i, (at_s, what) in enumerate(sorted(seen.items())):
        for axis in axes:
            axis.axvline(at_s, color=style.GREY, linewidth=0.9, linestyle="--", zorder=0)
        axes[0].annotate(what, (at_s, 1.0 + 0.09 * (i % 2)), xycoords=("data", "axes fraction"), ha="center",
                         va="bottom", fontsize=7.5)


def _moves(axis, run):
    most = max((move["moved_experts"] for one in run.values() for move in one.entry["rearrangements"]), default=0)
    for place, (policy, one) in enumerate(run.items()):
        colour, marker = style.look(policy)
        last_s = one.phase.array("serving/requests/intended_s")[-1]
        for move in one.entry["rearrangements"]:
            moved = move["moved_experts"]
            if move["at_s"] > last_s:
                continue
            axis.plot([move["at_s"]], [place], marker=marker, color=colour, linestyle="",
                      markersize=3 + 5 * np.sqrt(moved / most) if moved else 4, alpha=0.8,
                      markerfacecolor=colour if moved else "white")
    style.names_down(axis, list(run))
    axis.set_title("placements solved anew", fontweight="normal")


def _label(axes, first):
    arrivals = first.phase.array("serving/requests/intended_s")
    axes[0].set_xlim(0, float(arrivals[-1]))
    axes[0].set_ylabel("TTFT, ms")
    axes[0].set_title(f"{first.phase.devices} devices · {cells.condition_of(first.phase).label}",
                      pad=24 if first.entry["changes"] else None)
    axes[1].set_ylabel("straggler tax, %")
    for axis in axes[:2]:
        axis.set_ylim(bottom=0)
        axis.tick_params(labelbottom=False)
    axes[1].tick_params(labelbottom=len(axes) == 2)
    axes[-1].set_xlabel("time since the run's start, s")


def _title(run):
    moved = {policy: sum(move["moved_experts"] for move in one.moves) for policy, one in run.items()}
    stopped = {policy: sum(move["migrate_ms"] for move in one.moves) for policy, one in run.items()}
    most = max(moved, key=moved.get)
    changes = next(iter(run.values())).entry["changes"]
    when = f"After {changes[0]['what']}" if len(changes) == 1 else f"Through {len(changes)} changes" if changes else \
        "Without a change"
    if not moved[most]:
        return f"{when} no policy moved experts"
    return (f"{when} {most} moved {moved[most]} experts in {len(run[most].moves)} moves, for which steps stood still "
            f"{stopped[most]:.0f} ms")
