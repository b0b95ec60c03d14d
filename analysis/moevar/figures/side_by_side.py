"""Several runs in one picture: how far their fleets differ, and what lock-step costs on each."""

from moevar import cells, style
from moevar.figures import Drawing, NotCarried, percent
from moevar.figures.fleet_speed import POINTS_IN_SVG, _strip, intervals_drawn


def fleets(runs):
    """runs: (name, StudyFile) of each; a row of points per run and condition."""
    found = [(name, fleet) for name, study in runs for fleet in cells.fleets(study)]
    if not found:
        raise NotCarried("No phase of these runs has a speed model, which every study with phases.profile makes.")
    names = list(dict.fromkeys(name for name, _ in found))
    figure, (axis,) = style.rows(1, 0.75 + 0.55 * len(found))
    numbers = []
    for place, (name, fleet) in enumerate(found):
        colour, marker = style.condition_look(names.index(name))
        late, _ = cells.outliers(fleet.relative)
        _strip(axis, place, fleet, late, colour, marker)
        numbers.append({"run": name, **fleet.condition.factors, "devices": fleet.devices,
                        "devices_known": len(fleet.rows), "phases": [phase.index for phase in fleet.phases],
                        "cv": cells.cv(fleet.relative),
                        "max_over_median": float(fleet.relative.max()), "outliers": len(late)})
    style.names_down(axis, [f"{name}\n{len(fleet.rows)} at {fleet.condition.label}" for name, fleet in found])
    axis.set_xlabel("time for the same work ÷ median of the run's devices, 1")
    widest, least = max(numbers, key=lambda row: row["cv"]), min(numbers, key=lambda row: row["cv"])
    title = (f"Devices differ most in {widest['run']} (CV {percent(widest['cv'], 2)}), least in {least['run']} "
             f"({percent(least['cv'], 2)})")
    caption = ("One point per device, relative to the median of its own run and condition; boxes: quartiles, whiskers: "
               "5th and 95th percentile; circled: outliers by the rule of each run's own chapter."
               + intervals_drawn(fleet for _, fleet in found))
    return Drawing("side-by-side-fleets", title, caption, numbers, figure,
                   raster=max(len(fleet.rows) for _, fleet in found) > POINTS_IN_SVG)


def taxes(runs):
    """runs: (name, StudyFile) of each; a row per run, fleet size and condition, a mark per policy."""
    groups, policies, numbers = {}, [], []
    for name, study in runs:
        phases = cells.measured(study)
        for condition, devices, policy, repeats in cells.cells(study, phases):
            estimate = cells.tax_interval(repeats)
            groups.setdefault((name, devices, condition), []).append((policy, estimate))
            policies += [policy] if policy not in policies else []
            numbers.append({"run": name, **condition.factors, "devices": devices, "policy": policy,
                            "phases": [phase.index for phase in repeats], **cells.interval(estimate)})
    if not groups:
        raise NotCarried("No phase of these runs has measured steps (phases.steps > 0).")
    entries = [(policy, *style.look(policy), True) for policy in policies]
    lines = 3 if any(condition.rate is not None for _, _, condition in groups) else 2
    figure, (axis,) = style.rows(1, 0.6 + 0.1 * (lines + 2.2) * len(groups), entries=entries)
    for place, rows in enumerate(groups.values()):
        for policy, estimate in rows:
            colour, marker = style.look(policy)
            y = place + style.dodge(policies.index(policy), len(policies), 0.6)
            style.error_bar(axis, 100 * estimate.value, y, *cells.ends(estimate, 100), colour, horizontal=True)
            axis.plot([100 * estimate.value], [y], marker=marker, color=colour, markersize=4.5)
    style.names_down(axis, [f"{name}\n{devices} at {_lines(condition)}" for name, devices, condition in groups])
    axis.set_xlabel("straggler tax, %")
    style.from_zero(axis, "x")
    high = max(numbers, key=lambda row: row["value"])
    title = (f"Lock-step costs most in {high['run']}: {percent(high['value'])} under {high['policy']} on "
             f"{high['devices']} devices")
    caption = ("Straggler tax: Σ layer time × devices ÷ Σ busy time − 1 over all layer calls and repeats, with 95 % "
               "intervals from the autocorrelated steps, or over repeats where each has other devices.")
    return Drawing("side-by-side-taxes", title, caption, numbers, figure)


def _lines(condition):
    """A condition's label, its rate on a line of its own."""
    rate = "" if condition.rate is None else f"\n{condition.rate:g} requests/s per device"
    return condition.standing + rate
