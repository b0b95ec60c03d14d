"""The page and its numbers, from findings."""

from dataclasses import dataclass

from moevar import page
from moevar.intervals import Estimate
from moevar.papers import parameters
from moevar.papers.verdicts import CANNOT, FAILS, FACTOR, HOLDS, IN_PART, NOT_RUN

ORDER = (HOLDS, IN_PART, FAILS, CANNOT, NOT_RUN)
SHORT = 12  # of a hash, on the page; papers.json has it whole


def shown(estimate, form):
    """An estimate with its interval, as text."""

    def number(value):
        return {"percent": f"{100 * value:.1f}", "ratio": f"{value:.3f}", "number": f"{value:.3g}"}[form]

    unit = " %" if form == "percent" else ""
    if not estimate.supported:
        return f"{number(estimate.value)}{unit} (too few repeats)"
    return f"{number(estimate.value)}{unit} ({number(estimate.low)} to {number(estimate.high)})"


def anchor(claim):
    return f"claim-{claim.identity}"


def overview(findings):
    """A row per claim, with the first measure that decides something."""
    rows = []
    for finding in findings:
        first = next((measure for measure in finding.measures if measure.verdict), None)
        figures = ["–", "–"] if first is None else [first.paper, shown(first.ours, first.form)]
        claim = finding.claim
        rows.append([claim.identity, claim.claim, claim.source, *figures, finding.verdict])
    counts = [
        f"{sum(finding.verdict == verdict for finding in findings)} {verdict}"
        for verdict in ORDER
        if any(finding.verdict == verdict for finding in findings)
    ]
    columns = ["claim", "what it says", "source", "the paper's figure", "ours (95 % interval)", "verdict"]
    caption = f"{'; '.join(counts)}. Figures are of a claim's first measure; the verdict is of all of them."
    links = "".join(f'<a href="#{anchor(finding.claim)}">{finding.claim.identity}</a>' for finding in findings)
    return page.table(columns, rows, caption, numbers=False) + f"<nav>{links}</nav>"


def chapter(finding):
    claim = finding.claim
    set_up = f" Here: {claim.set_up}." if claim.set_up else ""
    parts = [
        page.heading(3, f"{claim.identity}: {claim.claim}", anchor(claim)),
        page.paragraph(f"{claim.source}.{set_up} Verdict: {finding.verdict}."),
    ]
    if finding.measures:
        columns = ["measure", "the paper's", "ours (95 % interval), n", "verdict", "beside the paper"]
        parts.append(page.table(columns, [_measured(measure) for measure in finding.measures], numbers=False))
    if finding.why:
        parts.append(page.paragraph(finding.why))
    parts += [page.paragraph(f"Missing: {reason}.", "missing") for reason in finding.reasons]
    return f'<section style="margin-top: 2rem">{"".join(parts)}</section>'


def _measured(measure):
    decided = measure.verdict is not None
    return [
        measure.name,
        measure.paper,
        f"{shown(measure.ours, measure.form)}, {measure.ours.n}",
        measure.verdict or ("no interval" if measure.rule else "shown beside"),
        measure.rule.comparison(measure.ours) if decided else "",
    ]


def rules():
    return page.paragraph(
        "Verdicts are computed. Where the paper gives a figure (or a range; a figure read off a plot is one, of 2 % of"
        " the axis to either side) a measure holds if its 95 % interval contains it; it holds in part if the interval"
        f" lies on the paper's side of no effect and the effect is within a factor of {FACTOR:g} of the paper's; else"
        " it does not hold. Where the paper gives a direction alone it holds if the interval lies on that side, and in"
        " part if the estimate does. A claim holds if all its measures do, does not hold if none does even in part,"
        " and holds in part otherwise. Intervals are Student's t over repeats, every repeat another fleet; policies"
        " are compared on the same fleet and steps."
    )


@dataclass(frozen=True)
class Beyond:
    """What no claim is about: beyond.Row, rows of serving.frontier_rows, slowed.Row."""

    layers: list
    frontier: list
    slowed: list


def beyond(left):
    return _layers_beyond(left.layers) + _requests_beyond(left.frontier) + _slowed(left.slowed)


def _slowed(rows):
    if not rows:
        return page.paragraph("No run in which a device slows is there.", "missing")
    columns = [
        "what slows a device",
        "policy",
        "within limits, placements kept",
        "… solved anew on drift",
        "experts a layer moved",
        "steps stood still, ms",
        "straggler tax at the end",
    ]
    cells = [
        [
            row.how,
            row.policy,
            shown(row.kept, "percent"),
            shown(row.adapted, "percent"),
            shown(row.moved, "number"),
            shown(row.stopped_ms, "number"),
            shown(row.tax_end, "percent"),
        ]
        for row in rows
    ]
    caption = (
        "One device slows while requests are served: its kernels take longer (failing), its power cap falls (capped),"
        " its inlet air gets warmer (hot-aisle); which and when: serving.disturbed_device and disturbed_at below. Means"
        " over runs on one node."
    )
    return page.table(columns, cells, caption)


def _requests_beyond(rows):
    if not rows:
        return page.paragraph("No run that searches for a rate is there.", "missing")
    cells = [
        [label, policy, shown(crossing, "number"), shown(ratio, "ratio")] for label, policy, crossing, ratio in rows
    ]
    caption = (
        "Crossings with and without replicas cannot be compared: what is not MoE in a step is set as a part of what its"
        " MoE layers take, and that includes reading the replicas' weights."
    )
    columns = ["set-up", "policy", "90 % crossing, requests/s per device", "÷ eplb's with as many slots"]
    return page.table(columns, cells, caption)


def _layers_beyond(rows):
    if not rows:
        return page.paragraph("None of the runs that this needs is there.", "missing")
    cells = [
        [
            row.label,
            row.policy,
            f"{row.layer_us.value:.0f}",
            shown(row.change, "percent"),
            shown(row.above_bound, "percent"),
        ]
        for row in rows
    ]
    return page.table(
        ["set-up", "policy", "layer µs", "layer time against eplb", "slowest device's experts above the bound"],
        cells,
        "eplb: tokens balanced, without replicas. The bound is of the loads planned with, mean and even on every step;"
        " oracle's is of each step's own. It knows speeds at whole tiles of 128 tokens an expert, and steps pay for"
        " partly filled ones: that is what even oracle is above it. From oracle to minmax lies what steps differ from"
        " the plan, which no placement made in advance can know.",
    )


def chosen(runs):
    shared, rows = parameters.chosen(runs)
    if not rows:
        return page.paragraph("No run is there.", "missing")
    names = list(rows[0][1])
    return page.table(["in all studies", "value"], [list(pair) for pair in shared], numbers=False) + page.details(
        f"What differs between the {len(rows)} runs",
        page.table(["run", *names], [[name, *values.values()] for name, values in rows], numbers=False),
    )


def inputs(rows):
    cells = [
        [
            row["run"],
            row["study_file"] + ("" if row["study_file_unchanged"] else " (changed since)"),
            " ".join(row["settings"]),
            str(row["phases"]),
            row["moevar_version"],
            *(row[name][:SHORT] for name in ("study_file_sha256", "study_h5_sha256", "summary_json_sha256")),
            ", ".join(f"{read['name']} {read['sha256'][:SHORT]}" for read in row["files_read"]),
        ]
        for row in rows
    ]
    return page.table(
        [
            "run",
            "study file",
            "settings",
            "phases",
            "moevar",
            "study file, SHA-256",
            "study.h5",
            "summary.json",
            "files read",
        ],
        cells,
        "First twelve digits; papers.json has all of them.",
        numbers=False,
    )


def body(findings, runs, figures, left, input_rows, provenance):
    missing, left_out = runs.missing()
    chapters = [
        ("claims", "Claims"),
        ("beyond", "Beyond the papers"),
        ("parameters", "Parameters chosen once"),
        ("inputs", "Inputs"),
    ]
    links = "".join(f'<a href="#{name}">{page.text(title)}</a>' for name, title in chapters)
    parts = [
        page.heading(1, "Two papers' claims beside modelled GPUs"),
        page.paragraph(
            "ViBE (arXiv 2606.00735) and GEM (arXiv 2605.19945), and what others claim, beside moevar's runs of their"
            " set-ups. Devices are of kind model: GPUs in virtual time. Nothing here was measured on a GPU. Requests"
            " are served by moevar's serving loop, an open-loop replay over layer work in which a request's times count"
            " from its intended arrival; it is no serving engine."
        ),
        page.paragraph(provenance),
        f"<nav>{links}</nav>",
    ]
    parts += [page.paragraph(f"Missing: {reason}.", "problem") for reason in missing]
    parts += [page.paragraph(f"Left out: {reason}.", "missing") for reason in left_out]
    parts += [page.heading(2, "Claims", "claims"), rules(), overview(findings)]
    parts += [chapter(finding) for finding in findings]
    drawn = [page.figure(f"figure-{i}", title, caption, svg) for i, (title, caption, svg) in enumerate(figures)]
    parts.append(f'<div class="figures">{"".join(drawn)}</div>')
    parts += [
        page.heading(2, "Beyond the papers", "beyond"),
        beyond(left),
        page.heading(2, "Parameters chosen once", "parameters"),
        page.paragraph(
            "As the studies ran with them. ViBE's machines are MI325X and MI300X, here MI300X; GEM's "
            "are L40, of which there is no preset, here H100 at 400 W. fleet.spread was set so that "
            "nodes have the papers' measured spread: an input of V14, G1, G2, G3, G5 and G7. "
            "Everything else is the same for all claims of a source."
        ),
        chosen(runs),
        page.heading(2, "Inputs", "inputs"),
        inputs(input_rows),
    ]
    return "\n".join(parts)


def numbers(findings, left, runs, input_rows, provenance):
    """papers.json."""
    missing, left_out = runs.missing()
    shared, rows = parameters.chosen(runs)
    return {
        "schema": 1,
        **provenance,
        "missing": missing,
        "left_out": left_out,
        "claims": [_finding(finding) for finding in findings],
        "beyond": [
            {
                "run": row.run,
                "policy": row.policy,
                "layer_us": _estimate(row.layer_us),
                "change": _estimate(row.change),
                "above_bound": _estimate(row.above_bound),
            }
            for row in left.layers
        ],
        "frontier": [
            {"set_up": label, "policy": policy, "crossing": _estimate(crossing), "over_eplb": _estimate(ratio)}
            for label, policy, crossing, ratio in left.frontier
        ],
        "slowed": [
            {name: _estimate(value) if isinstance(value, Estimate) else value for name, value in vars(row).items()}
            for row in left.slowed
        ],
        "parameters": {"shared": dict(shared), "runs": dict(rows)},
        "inputs": input_rows,
    }


def _finding(finding):
    claim = finding.claim
    return {
        "id": claim.identity,
        "claim": claim.claim,
        "source": claim.source,
        "set_up": claim.set_up,
        "verdict": finding.verdict,
        "why": finding.why,
        "missing": finding.reasons,
        "measures": [
            {
                "measure": measure.name,
                "paper": measure.paper,
                "form": measure.form,
                **_estimate(measure.ours),
                "verdict": measure.verdict,
                "runs": list(measure.runs),
            }
            for measure in finding.measures
        ],
    }


def _estimate(estimate):
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "interval": estimate.method,
    }
