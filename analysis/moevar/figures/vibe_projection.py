"""Layer time of a policy ÷ contiguous against the number of devices, beside ViBE's published projection."""

from moevar import cells, style
from moevar.figures import Drawing, NotCarried, pages

# arXiv 2606.00735 v1, scale projection: simulated from 80 measured MI300X curves with ShareGPT loads, larger groups by
# duplicating GPUs; median per-layer tail latency over vLLM's (contiguous) median of the same size, read off the figure.
PUBLISHED = {"eplb": {8: 0.91, 16: 0.83, 32: 0.72, 64: 0.78, 128: 0.91},
             "vibe": {8: 0.87, 16: 0.78, 32: 0.67, 64: 0.71, 128: 0.85}}
PANELS = 4
SOURCE = "arXiv 2606.00735"


def draw(study):
    phases = cells.measured(study)
    policies = [policy for policy in cells.policies(study, phases) if policy not in cells.BLIND]
    if not set(policies) & set(PUBLISHED) or "contiguous" not in {phase.policy for phase in phases}:
        raise NotCarried("ViBE's projection compares eplb and vibe with contiguous placement: placement.policies = "
                         "[\"contiguous\", \"eplb\", \"vibe\"].")
    if phases[0].serves:
        raise NotCarried("ViBE's projection is of the same steps under all policies; here requests made the steps.")
    return pages("vibe-projection", cells.conditions(phases), PANELS,
                 lambda name, part: _draw(study, phases, name, part, policies))


def _draw(study, phases, name, conditions, policies):
    sizes = sorted({*cells.sizes(phases), *PUBLISHED["vibe"]})
    entries = [(policy, *style.look(policy), True) for policy in policies]
    entries += [(f"{policy}, {SOURCE}", *style.look(policy), False) for policy in PUBLISHED]
    figure, axes = style.rows(len(conditions), 1.9, entries=entries, sharey=True)
    numbers = []
    for axis, condition in zip(axes, conditions):
        numbers += _ours(axis, study, cells.select(phases, condition), condition, policies, sizes)
        for i, (policy, published) in enumerate(PUBLISHED.items()):
            colour, marker = style.look(policy)
            axis.plot([sizes.index(n) + 0.30 + 0.12 * i for n in published], list(published.values()), linestyle="",
                      marker=marker, color=colour, markerfacecolor="white", markersize=style.marker_size(len(sizes)))
        axis.axhline(1, color=style.GREY, linewidth=0.8)
        style.categories(axis, [str(size) for size in sizes])
        axis.set_title(condition.label)
        axis.set_ylabel("layer time ÷ contiguous")
    axes[-1].set_xlabel("devices")
    numbers += [{"policy": policy, "devices": n, "what": "published ratio", "source": SOURCE, "value": value}
                for policy, published in PUBLISHED.items() for n, value in published.items()]
    title = _title(numbers)
    caption = ("Filled: median layer time ÷ that of contiguous placement on as many devices, with 95 % intervals "
               "(as for layer times; steps paired where both took the same). Open: the published projection, simulated "
               "from 80 measured "
               "MI300X curves with ShareGPT loads, larger groups by duplicating GPUs; ratios of median per-layer tail "
               "latency, read off its figure. Machine, model, loads and exchange differ: shapes can be compared, "
               "levels cannot.")
    return Drawing(name, title, caption, numbers, figure)


def _ours(axis, study, phases, condition, policies, sizes):
    rows = []
    for devices in cells.sizes(phases):
        base = cells.select(phases, devices=devices, policy="contiguous")
        for i, policy in enumerate(policies):
            repeats = cells.select(phases, devices=devices, policy=policy)
            if not base or not repeats:
                continue
            change = cells.layer_change(base, repeats, "median")
            ratio = cells.shifted(change, 1.0)
            colour, marker = style.look(policy)
            x = sizes.index(devices) - 0.12 + style.dodge(i, len(policies), 0.5)
            style.error_bar(axis, x, ratio.value, ratio.low, ratio.high, colour)
            axis.plot([x], [ratio.value], marker=marker, color=colour, markersize=style.marker_size(len(sizes)))
            rows.append({**condition.factors, "devices": devices, "policy": policy,
                         "what": "ratio of median layer times", "phases": [p.index for p in repeats],
                         "base_phases": [p.index for p in base],
                         **cells.interval(ratio)})
    return rows


def _title(numbers):
    ours = [row for row in numbers if row["what"] != "published ratio" and row["policy"] in PUBLISHED]
    row = max(ours, key=lambda row: (row["policy"] == "vibe", row["devices"]))
    published = PUBLISHED[row["policy"]].get(row["devices"])
    span = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    text = f"{row['policy']} takes {row['value']:.3f}{span} of contiguous's layer time on {row['devices']} devices"
    return text + (f"; the published projection has {published:.2f}" if published else "")
