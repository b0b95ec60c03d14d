"""A study's chapter of the report: its head, tables and sections, as HTML."""

import datetime

import numpy as np

from moevar import cells, intervals, page, request_tables, serving
from moevar.figures import (Drawing, NotCarried, attainment, causes, drift, fleet_speed, fleet_state, latency_by_rate,
                            layer_time, max_rate, prediction, sensors, serving_course, serving_prediction, slow_step,
                            slowest_law, spread_cap, tax_by_size, tax_idle, vibe_projection)
from moevar.study import StudyError

MOST_STAMPING = 0.01    # of layer time: beyond it the timing is felt in what is timed

# (anchor, heading, lead, figure modules)
SECTIONS = (
    ("fleet", "The fleet",
     "What each device makes of the same work, and how it stood: the differences that lock-step turns into waiting.",
     (fleet_speed, fleet_state)),
    ("tax", "The tax against the number of devices",
     "The more devices finish a layer together, the slower the slowest of them; beside what was seen stands what the "
     "single devices' distribution predicts.", (tax_by_size, slowest_law)),
    ("requests", "Requests", "What the layers' waiting costs those who ask: time to the first token, time per further "
     "token, and how many requests a second are still served well.",
     (attainment, max_rate, latency_by_rate, serving_course, serving_prediction)),
    ("policies", "Policies side by side", "The same workload under every placement of experts.",
     (layer_time, tax_idle, vibe_projection)),
    ("caps", "Spread against power cap", "A cap changes how far GPUs differ.", (spread_cap,)),
    ("causes", "The split of causes",
     "The tax taken apart: run noise, skewed routing, unequal hardware, and what the last two do together.", (causes,)),
    ("step", "One slow step", "Who did what when, and who waited for whom.", (slow_step,)),
    ("prediction", "Predicted against achieved", "What a placement was promised to take, and what it took.",
     (prediction,)),
    ("drift", "Drift and recovery", "Layer times through the run, and the devices' sensors.", (drift, sensors)),
)


def command(study):
    """What made the study's data; the study file stands in full in the chapter's head."""
    return f"moevar run {study.name}.toml --out DIR"


def build(study, prefix, keep):
    """HTML of a study's chapter. prefix goes before anchors; keep(study, drawing) hands back a figure's HTML."""
    parts = [head(study, prefix)]
    for anchor, title, lead, modules in SECTIONS:
        parts += [page.heading(2, title, f"{prefix}{anchor}"), page.paragraph(lead + _own_rates(study, anchor))]
        figures, missing = [], []
        for module in modules:
            try:
                figures += [keep(study, drawing) for drawing in module.draw(study)]
            except NotCarried as reason:
                missing.append(str(reason))
            except StudyError as error:
                missing.append(f"Not shown: {error}")
        if figures:
            parts.append(f"<div class=\"figures\">{''.join(figures)}</div>")
        parts += [page.paragraph(reason, "missing") for reason in dict.fromkeys(missing)]
        parts.append(TABLES[anchor](study) if anchor in TABLES else "")
    return "\n".join(parts)


def head(study, prefix=""):
    """Who made these numbers, of what, when; and what is missing."""
    written = datetime.datetime.fromtimestamp(study.path.stat().st_mtime, datetime.timezone.utc)
    config = study.config
    plan, model, fleet = (config.get(section, {}) for section in ("study", "model", "fleet"))
    names = list(dict.fromkeys(study.fleet["name"])) if "name" in study.fleet else []
    phases = study.phases
    rows = [
        ("devices", f"{study.device}: {', '.join(names) or 'none known'}; {len(study.fleet)} of them"),
        ("times", _clock(study)),
        ("model", f"{model.get('preset') or 'own shape'}: {model.get('experts', '?')} experts, "
                  f"top {model.get('top_k', '?')}, hidden {model.get('hidden', '?')}, "
                  f"{_span([phase.layers for phase in phases])} MoE layers"),
        ("workload", ", ".join(f"{key} {value}" for key, value in config.get("workload", {}).items() if value != "")),
        ("fleet sizes", ", ".join(str(size) for size in cells.sizes(phases)) or str(fleet.get("devices", "?"))),
        ("conditions", "; ".join(condition.label for condition in cells.conditions(phases)) or "none"),
        ("policies", ", ".join(cells.policies(study, phases))),
        ("repeats, order", f"{plan.get('repeats', '?')}, {plan.get('order', '?')}; seed {plan.get('seed', '?')}"),
        *_requests(study),
        ("steps", f"{_steps(phases)} a phase; stop_reason {_stops(phases)}"),
        ("phases", f"{len(phases)} of {study.planned}" + ("" if study.complete else "; not complete")),
        ("written", f"{written:%Y-%m-%d %H:%M} UTC by moevar {study.version}, schema 1"),
        ("caps and heat", _standing(phases)),
    ]
    run = prefix.removesuffix("-")
    parts = [page.heading(1, f"{run}: {study.name}" if run else study.name, run or None)]
    parts += [page.paragraph(problem, "problem") for problem in study.problems]
    parts.append(page.table((), rows, numbers=False))
    parts.append(page.details("The study in full, with every key, and its command",
                              page.preformatted(f"# {command(study)}\n# SHA-256 {study.sha256}\n\n{study.toml}")))
    return "\n".join(parts)


def _clock(study):
    timers = sorted({f"{phase.timer}, clocks made one by {phase.sync}" if phase.timer != "virtual" else "virtual time"
                     for phase in study.phases})
    text = "; ".join(timers) or "none"
    if study.device == "model":
        return f"{text}: modelled, not measured; the same on every machine for this seed"
    residual = max((phase.clock_residual_ns for phase in study.phases), default=0)
    if study.config.get("fleet", {}).get("overlap", "none") != "none":
        text += "; two-batch overlap: expert times hold the exchange beside them"
    text += f"; differences between devices below {residual / 1e3:g} µs mean nothing"
    share = max((phase.stamping_share for phase in study.phases), default=np.nan)
    if np.isnan(share):
        return text
    return f"{text}; noting times down took up to {100 * share:.2g} % of layer time" + (
        ", more than the 1 % that leaves them as they were" if share > MOST_STAMPING else "")


def _span(values):
    return "no" if not values else str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _steps(phases):
    """Of phases that serve requests nearly every one has its own number."""
    if any(phase.serves for phase in phases):
        return _span([phase.steps for phase in phases])
    return ", ".join(map(str, sorted({phase.steps for phase in phases}))) or "none"


def _requests(study):
    """The row that says what requests came, if any did."""
    config = study.config.get("serving", {})
    if not any(phase.serves for phase in study.phases):
        return []
    rates = "at the highest rate that keeps " + f"{100 * serving.limits(study).attainment:g} % within the limits" \
        if config.get("find_rate") else "at " + ", ".join(f"{rate:g}" for rate in sorted(
            {phase.offered_rate for phase in study.phases if phase.serves})) + " requests/s per device"
    lengths = config.get("lengths", [])
    lengths = lengths if isinstance(lengths, str) else ", then ".join(lengths)
    return [("requests", f"{config.get('requests', '?')} a phase {rates}; arrivals {config.get('arrivals', '?')}, "
                         f"lengths {lengths or '?'}; {serving.limits(study).label}")]


def _own_rates(study, anchor):
    """What a chapter's lead adds where cells ran at different rates though nothing in their labels says so."""
    searched = any(phase.serves and phase.rate is None for phase in study.phases)
    shown = searched and anchor in ("tax", "policies")
    return " Each cell ran at the request rate that was found for it." if shown else ""


def _stops(phases):
    reasons = [phase.stop_reason for phase in phases]
    return ", ".join(f"{reason} ({reasons.count(reason)})" for reason in dict.fromkeys(reasons)) or "nothing"


def _standing(phases):
    """Whether caps held and devices were steady, over the phases that asked."""
    asked = held = judged = steady = 0
    for phase in phases:
        requested, enforced = phase.telemetry("requested_cap_w"), phase.telemetry("enforced_cap_w")
        if requested is not None and not np.isnan(requested).any():
            asked += 1
            held += bool((np.abs(requested - enforced) <= 0.5).all())
        if not np.isnan(phase.telemetry_attribute("window_s", np.nan)):
            judged += 1
            steady += bool(phase.telemetry("steady").all())
    caps = f"caps enforced as asked in {held} of {asked} phases" if asked else "no cap was asked for"
    return f"{caps}; " + (f"all devices steady in {steady} of {judged}" if judged else "steadiness was not judged")


def outlier_table(study):
    """Devices beyond the rule, by host and UUID."""
    rows, total = [], 0
    for fleet in cells.fleets(study):
        late, limit = cells.outliers(fleet.relative)
        total += len(late)
        for device in late[:10]:
            about = study.fleet.iloc[fleet.rows[device]]
            rows.append((str(about["uuid"]), about["host"], fleet.condition.label, f"{fleet.relative[device]:.4f}",
                         f"{limit:.4f}", *(_plain(fleet.state[name][device])
                                           for name in ("sm_clock_mhz", "temperature_c", "power_w"))))
    if not rows:
        return page.paragraph("No device is an outlier by the rule above.")
    shown = f", the slowest {len(rows)} shown" if len(rows) < total else ""
    caption = f"Outliers: {total} over the conditions{shown}"
    return page.table(("UUID", "host", "condition", "time ÷ median", "limit", "clock MHz", "°C", "W"), rows, caption)


def _plain(value):
    return f"{value:.0f}" if np.isfinite(value) else "–"


def policy_table(study):
    """The numbers behind the figures, a row per cell."""
    phases = cells.measured(study)
    if not phases:
        return ""
    rows, bases = [], {}
    for condition, devices, policy, repeats in cells.cells(study, phases):
        base = bases.setdefault((condition, devices), repeats)
        change = "base" if base is repeats else "–" if not cells.comparable(base, repeats) else _estimate(
            cells.layer_change(base, repeats), 100, 1, "+")
        rows.append((policy, str(devices), condition.label, _estimate(cells.tax_interval(repeats), 100, 2),
                     _estimate(cells.idle_interval(repeats), 100, 2), change,
                     *(_estimate(cells.layer_quantile(repeats, p), 1e-6, 3)
                       for p in (intervals.MEDIAN, intervals.P90, intervals.P99)),
                     _mean_text([phase.solve_ms for phase in repeats])))
    return page.table(("policy", "devices", "condition", "tax %", "idle %", "mean layer against base %", "median ms",
                       "p90 ms", "p99 ms", "solve ms"), rows,
                      "In brackets 95 % intervals; none: the steps are too few to support one. Base: the first policy "
                      "of as many devices and the same condition.")


def _mean_text(values):
    """Their mean; a dash where one is not known."""
    return "–" if None in values else f"{np.mean(values):.1f}"


def _estimate(estimate, scale, digits, sign=""):
    value = f"{estimate.value * scale:{sign}.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({estimate.low * scale:{sign}.{digits}f} … {estimate.high * scale:{sign}.{digits}f})"


TABLES = {"fleet": outlier_table, "policies": policy_table, "requests": request_tables.tables}
