"""What a claim comes to: rules that turn an estimate and a paper's figure into a verdict. None is written by hand.

Every rule has a null, the value at which there is no effect: 0 for a change or a spread, 1 for a ratio.

- Figure: the paper gives a number, or a range of numbers; one read off a plot is a range as wide as the reading is
  inexact, about 2 % of the axis. It holds if the 95 % interval contains the number (overlaps
  the range); in part if the interval lies on the paper's side of the null and the effect is within a factor of two of
  the paper's; else it does not.
- Direction: the paper says which way alone. It holds if the interval lies on that side of the null, in part if the
  estimate does and the interval reaches over, else it does not.
- Equivalent: the paper says that there is no difference. It holds if the interval lies within a margin around the
  null, in part if it reaches into it, else it does not.

A claim of several measures holds if all do, does not hold if none does in any part, and holds in part otherwise. An
estimate without an interval decides nothing.
"""

from dataclasses import dataclass, field

from moevar.intervals import Estimate

HOLDS, IN_PART, FAILS = "holds", "holds in part", "does not hold"
CANNOT, NOT_RUN = "cannot be reproduced", "not run"
FACTOR = 2.0


@dataclass(frozen=True)
class Figure:
    low: float
    high: float
    null: float = 0.0

    @classmethod
    def of(cls, value, null=0.0, reading=0.0):
        """reading: how exactly the number could be read off a plot, to either side."""
        return cls(value - reading, value + reading, null)

    @property
    def nearest_effect(self):
        """The effect of the range's end that is nearer to the null."""
        return min(self.low - self.null, self.high - self.null, key=abs)

    @property
    def furthest_effect(self):
        return max(self.low - self.null, self.high - self.null, key=abs)

    def judge(self, estimate):
        if estimate.low <= self.high and estimate.high >= self.low:
            return HOLDS
        side = 1 if self.furthest_effect > 0 else -1
        effect = side * (estimate.value - self.null)
        clear = min(side * (estimate.low - self.null), side * (estimate.high - self.null)) > 0
        within = side * self.nearest_effect / FACTOR <= effect <= side * self.furthest_effect * FACTOR
        return IN_PART if clear and within else FAILS

    def comparison(self, estimate):
        """How large the effect is beside the paper's; of a range the middle's."""
        paper = (self.low + self.high) / 2 - self.null
        return f"{(estimate.value - self.null) / paper:.2g} times the paper's effect" if paper else ""


@dataclass(frozen=True)
class Direction:
    side: int  # 1: above the null, -1: below
    null: float = 0.0

    def judge(self, estimate):
        ends = sorted(self.side * (end - self.null) for end in (estimate.low, estimate.high))
        if ends[0] > 0:
            return HOLDS
        return IN_PART if self.side * (estimate.value - self.null) > 0 and ends[1] > 0 else FAILS

    def comparison(self, estimate):
        return ""


@dataclass(frozen=True)
class Equivalent:
    margin: float
    null: float = 0.0

    def judge(self, estimate):
        low, high = self.null - self.margin, self.null + self.margin
        if low <= estimate.low and estimate.high <= high:
            return HOLDS
        return IN_PART if estimate.low <= high and estimate.high >= low else FAILS

    def comparison(self, estimate):
        return ""


@dataclass(frozen=True)
class Measure:
    """One figure of a claim: what it is, what the paper says of it (text), ours, and the rule; without one it is shown
    beside and decides nothing. form: percent, ratio or number; runs: names of what it was made of."""

    name: str
    paper: str
    ours: Estimate
    rule: object = None
    form: str = "percent"
    runs: tuple = ()

    @property
    def verdict(self):
        """None where nothing is decided."""
        return self.rule.judge(self.ours) if self.rule and self.ours.supported else None


@dataclass(frozen=True)
class Claim:
    """identity: V1 …, as the page names it; measures: functions of the runs, each making a Measure or a list of them;
    why: verdict → text; cannot: why nothing can be said (then there are no measures)."""

    identity: str
    claim: str
    source: str
    set_up: str = ""
    measures: tuple = ()
    why: dict = field(default_factory=dict)
    cannot: str = ""


@dataclass(frozen=True)
class Finding:
    claim: Claim
    verdict: str
    measures: list
    reasons: list  # why measures are missing: one line each

    @property
    def why(self):
        """Chosen by the verdict, so that it cannot contradict it."""
        if self.verdict == CANNOT:
            return self.claim.cannot
        return self.claim.why.get(self.verdict, "")


def combined(verdicts):
    """Of a claim's measures that decide something."""
    if all(verdict == HOLDS for verdict in verdicts):
        return HOLDS
    return FAILS if all(verdict == FAILS for verdict in verdicts) else IN_PART
