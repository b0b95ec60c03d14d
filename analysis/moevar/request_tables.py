"""The report's tables of requests: a row per cell, and a row per change in a run and policy."""

import numpy as np

from moevar import page, serving
from moevar.figures import NotCarried
from moevar.study import StudyError


def tables(study):
    """HTML; nothing where no phase served requests, which the section's figures say."""
    try:
        found = serving.served(study)
    except (NotCarried, StudyError):
        return ""
    return requests(study, found) + changes(study, found)


def requests(study, found):
    rows = []
    for condition, devices, policy, repeats in serving.by_cell(study, found):
        rows.append((policy, str(devices), condition.standing, rate_text(repeats),
                     *(_shown(serving.latency(repeats, "ttft", quantile)) for quantile in serving.QUANTILES),
                     *(_shown(serving.latency(repeats, "tpot", quantile)) for quantile in serving.QUANTILES[:2]),
                     _shown(serving.attainment(repeats), 100), f"{serving.mean(repeats, 'goodput_rps'):.2f}",
                     f"{serving.mean(repeats, 'arrival_rps'):.2f}" if _all(repeats, "arrival_rps") else "–"))
    return page.table(("policy", "devices", "condition", "rate, requests/s per device", "TTFT p50 ms", "TTFT p90 ms",
                       "TTFT p99 ms", "TPOT p50 ms", "TPOT p90 ms", "in SLO %", "goodput, requests/s",
                       "arrivals, requests/s"), rows,
                      f"SLO: {serving.limits(study).label}. Means over repeats; in brackets 95 % intervals, none where "
                      "requests that queue together are too few for one. Goodput: requests within the SLO ÷ the run's "
                      "duration, all devices together.")


def rate_text(repeats):
    """The rate of a cell: given, or as serving.find_rate found it, or the bound that it found."""
    if repeats[0].phase.rate is not None:
        return f"{repeats[0].phase.rate:g}"
    searches = [one.entry["max_rate"] for one in repeats]
    if all(search["rate"] is not None for search in searches):
        return f"{np.mean([search['rate'] for search in searches]):.3f} (found)"
    if all(search["high"] is None for search in searches):
        return f"> {min(search['low'] for search in searches):g}"
    if all(search["low"] is None for search in searches):
        return f"< {max(search['high'] for search in searches):g}"
    return "differs over repeats"


def changes(study, found):
    """What became of every change, means over the repeats in which it did."""
    rows = []
    figures = (("moved_experts", 1, 0), ("stopped_ms", 1, 1), ("tax_before", 100, 1), ("tax_peak", 100, 1),
               ("ttft_before_ms", 1, 0), ("ttft_peak_ms", 1, 0))
    for condition, devices, policy, repeats in serving.by_cell(study, found):
        for place, change in enumerate(repeats[0].entry["changes"]):
            here = [one.entry["changes"][place] for one in repeats if len(one.entry["changes"]) > place]
            rows.append((change["what"], policy, str(devices), condition.label, _after(here, "noticed_after_s"),
                         _after(here, "recovered_after_s"), *(_mean(here, *figure) for figure in figures)))
    if not rows:
        return ""
    return page.table(("change", "policy", "devices", "condition", "noticed after s", "recovered after s",
                       "experts moved", "steps stood still ms", "tax before %", "tax at its peak %", "TTFT before ms",
                       "highest TTFT ms"), rows,
                      "What changed in a run, up to the next change or the last arrival; means over repeats. Noticed: "
                      "the placement was solved anew. Recovered: the straggler tax over "
                      f"{serving.TAX_STEPS} steps came back within a quarter of its rise; 0: it never rose by a tenth. "
                      "In brackets in how many repeats, where not in all.")


def _after(here, name):
    known = [change[name] for change in here if change[name] is not None]
    if not known:
        return "never"
    return f"{np.mean(known):.2f}" + (f" ({len(known)} of {len(here)})" if len(known) < len(here) else "")


def _mean(here, name, scale, digits):
    known = [change[name] for change in here if change[name] is not None]
    return f"{scale * np.mean(known):.{digits}f}" if known else "–"


def _all(repeats, key):
    return all(one.entry[key] is not None for one in repeats)


def _shown(estimate, scale=1.0):
    if estimate is None:
        return "–"
    text = f"{scale * estimate.value:.1f}"
    if not estimate.supported:
        return text
    return f"{text} ({scale * estimate.low:.1f} … {scale * estimate.high:.1f})"
