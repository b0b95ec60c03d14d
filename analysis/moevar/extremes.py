"""The slowest of N GPUs: of a measured fleet, exactly; of larger ones, by a fitted law; and the law of a layer.

Times are per-GPU figures (a median each) in any unit, slower is larger. A GPU's slowness lasts, so a fleet is a sample
without replacement; results are ratios to the fleet's median. What goes beyond the fleet supposes GPUs
drawn independently from one population: not all of a rack, or of a cooling loop. All functions raise ValueError on
input they cannot use.
"""

import math
from dataclasses import dataclass

import numpy as np
from moevar.tails import (LARGE, MIN_MIXTURE_SAMPLE, Mixture, MixtureLaw, Tail, fit_mixture, fit_tail, likely_laws,
                          likely_normal_laws, normal_law, simplest_law, sorted_fleet)
from scipy import special, stats

__all__ = ["LayerLaw", "Mixture", "Projection", "Tail", "expected_slowest", "fit_mixture", "fit_tail", "layer_law",
           "layer_laws", "project", "slowest_quantile", "slowest_weights"]

# A projection whose tail rests on fewer slow GPUs than this carries a warning.
HANDFUL = 10


def slowest_weights(size: int, n: int) -> np.ndarray:
    """[size]: probability that the k-th fastest of `size` GPUs is the slowest of n drawn without replacement,
    C(k - 1, n - 1) / C(size, n)."""
    if not 1 <= n <= size:
        raise ValueError(f"{n} of {size} GPUs: without replacement 1 to {size} can be drawn")
    k = np.arange(n, size + 1)
    log = (special.gammaln(k) - special.gammaln(n) - special.gammaln(k - n + 1)
           - special.gammaln(size + 1) + special.gammaln(n + 1) + special.gammaln(size - n + 1))
    weights = np.zeros(size)
    weights[n - 1:] = np.exp(log)
    return weights / weights.sum()


def expected_slowest(times, n: int) -> float:
    """E[slowest of n GPUs drawn without replacement] over the median of times [M]; exact, no simulation."""
    times = sorted_fleet(times)
    return float(slowest_weights(times.size, n) @ times / np.median(times))


def slowest_quantile(times, n: int, p) -> float:
    """Smallest time, over the median, that the slowest of n drawn GPUs stays within with probability at least p."""
    if not 0 < p < 1:
        raise ValueError(f"quantile {p}: between 0 and 1 is needed")
    times = sorted_fleet(times)
    reached = np.cumsum(slowest_weights(times.size, n))
    return float(times[min(np.searchsorted(reached, float(p) * (1 - 1e-12)), times.size - 1)] / np.median(times))


# --- the law of a layer -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerLaw:
    """P(layer time <= x) of one layer: `times` rise, `probability` is reached at each."""

    times: np.ndarray
    probability: np.ndarray

    @property
    def mean(self) -> float:
        return float(np.diff(self.probability, prepend=0.0) @ self.times)

    def quantile(self, p) -> float:
        """Smallest time with P(layer <= time) >= p."""
        index = np.searchsorted(self.probability, float(p) * (1 - 1e-12))
        return float(self.times[min(index, self.times.size - 1)])


def layer_law(times) -> LayerLaw:
    """The slowest device's time if devices were independent: P(layer <= x) = product over d of F_d(x), F_d the
    empirical distribution of device d's times [D, S] in one layer.

    What a measured layer time departs from it by is correlation over devices: a shared network, a node, a hot step.
    """
    times = np.asarray(times)
    if times.ndim != 2 or times.size == 0 or not np.isfinite(times).all():
        raise ValueError("times of a layer: finite [devices, steps] are needed")
    devices, steps = times.shape
    # Each value raises its device's count c to c + 1; the first of a device brings the product down from infinity.
    rise = np.concatenate([[0.0], np.diff(np.log(np.arange(1, steps + 1)))])
    order = np.argsort(times, axis=None, kind="stable")
    rank_in_device = np.empty((devices, steps), dtype=np.int64)
    np.put_along_axis(rank_in_device, np.argsort(times, axis=1, kind="stable"), np.arange(steps)[None], axis=1)
    ranks = rank_in_device.ravel()[order]
    begun = np.cumsum(ranks == 0) == devices
    log = np.cumsum(rise[ranks]) - devices * math.log(steps)
    probability = np.where(begun, np.exp(np.minimum(log, 0.0)), 0.0)
    values = times.ravel()[order]
    last = np.flatnonzero(np.append(np.diff(values) != 0, True) & begun)
    probability[-1] = 1.0
    return LayerLaw(values[last], probability[last])


def layer_laws(times) -> list[LayerLaw]:
    """`layer_law` of each layer of times [D, S, L]."""
    return [layer_law(times[:, :, layer]) for layer in range(times.shape[2])]




# --- larger fleets ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Projection:
    """E[slowest of n GPUs of the population] over its median, with a 95 % interval, and what to beware of, if
    anything."""

    n: int
    value: float
    low: float
    high: float
    warning: str | None


def project(times, sizes, *, rng, laws: int = 400) -> list[Projection]:
    """From the GPUs measured, times [M] with M >= 4, to fleets of each of `sizes` GPUs of the same population.

    Up to half of M the value is the exact mean over subsets, which presumes no law; beyond, that of the simplest law
    that fits (tails.simplest_law): normal, or with outliers where the GPUs are evidence of some. The interval is that
    of `laws` laws which they leave possible: with outliers, rare ones that none of the GPUs shows among them, and,
    without such evidence, normal ones. Up to half of a fleet of over tails.LARGE GPUs it is the jackknife's. It
    supposes that the law's form is right. See also `warning`.
    """
    times = sorted_fleet(times)
    if times.size < 4:
        raise ValueError(f"{times.size} GPUs; a projection needs 4")
    if np.ptp(times) <= 1e-12 * times[-1]:
        return [Projection(n, 1.0, 1.0, 1.0, _warning(times, normal_law(times[None]), n)) for n in sizes]
    law = simplest_law(times)
    possible = [likely_laws(times, rng, laws)]
    if law.weight[0] == 0:
        possible.append(likely_normal_laws(times, rng, laws))
    return [_projection(times, law, possible, n) for n in sizes]


def _projection(times, law: MixtureLaw, possible: list[MixtureLaw], n: int) -> Projection:
    within = 2 * n <= times.size
    value = expected_slowest(times, n) if within else float(law.slowest(n)[0])
    if n == 1:
        return Projection(n, value, value, value, None)
    if within and times.size > LARGE:
        low, high = 1 + (value - 1) * np.exp(stats.norm.ppf([0.025, 0.975]) * _jackknife_error(times, n))
    else:
        ends = np.array([np.quantile(part.slowest(n), [0.025, 0.975]) for part in possible])
        low, high = ends[:, 0].min(), ends[:, 1].max()
    return Projection(n, value, float(min(low, value)), float(max(high, value)), _warning(times, law, n))


def _jackknife_error(times, n: int) -> float:
    """Standard error of log(E[slowest of n] / median - 1) of a sorted fleet [M], leaving out each GPU once."""
    size = times.size
    weights = slowest_weights(size - 1, n)
    below = np.concatenate([[0.0], np.cumsum(weights * times[:-1])])
    above = np.concatenate([[0.0], np.cumsum((weights * times[1:])[::-1])])[::-1]
    left = np.arange(size)
    middle = (size - 1) // 2
    rest = size - 1 - middle
    at = np.where(left <= middle, times[min(middle + 1, size - 1)], times[middle])
    other = np.where(left <= rest - 1, times[rest], times[rest - 1])
    logs = np.log((below + above) / ((at + other) / 2) - 1)
    return float(np.sqrt((size - 1) / size * ((logs - logs.mean()) ** 2).sum()))


def _warning(times, law: MixtureLaw, n: int) -> str | None:
    """What a projection to n GPUs rests on, where that is little."""
    size = times.size
    if 2 * n <= size:
        return None
    if size < MIN_MIXTURE_SAMPLE:
        return (f"{size} GPUs are too few to tell slow outliers from the rest: a normal spread is assumed, and "
                "outliers would make the slowest slower")
    bulk = float(law.mean[0]) + 2.5 * float(law.sd[0])
    slow = int(np.count_nonzero(times > bulk))
    if slow >= HANDFUL and n <= size:
        return None
    tail = (f"the tail rests on {slow} of {size} GPUs" if slow else f"none of {size} GPUs lies in the tail")
    if n > size:
        tail += f"; a kind of GPU rarer than 1 in {size} was likely not seen, and {n} GPUs would hold some"
    return tail
