"""Claims and runs to findings: every measure by itself, so that a run that is missing costs its measures alone."""

from moevar.papers.runs import LeftOut, NotRun
from moevar.papers.verdicts import CANNOT, NOT_RUN, Finding, combined
from moevar.study import StudyError


def find(claim, runs):
    if claim.cannot:
        return Finding(claim, CANNOT, [], [])
    measures, reasons = [], []
    for function in claim.measures:
        try:
            made = function(runs)
            measures += made if isinstance(made, list) else [made]
        except LeftOut:
            continue  # nobody asked for it: the page says so once
        except NotRun as reason:
            reasons.append(str(reason))
        except (StudyError, KeyError, ValueError) as error:
            reasons.append(f"{claim.identity}: a run lacks what this needs ({error})")
    verdicts = [measure.verdict for measure in measures if measure.verdict]
    if not verdicts:
        reasons += [f"{measure.name}: too few repeats for an interval" for measure in measures if measure.rule]
        return Finding(claim, NOT_RUN, measures, list(dict.fromkeys(reasons)))
    return Finding(claim, combined(verdicts), measures, list(dict.fromkeys(reasons)))
