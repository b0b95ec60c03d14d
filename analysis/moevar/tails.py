"""Laws fitted to the GPUs of a fleet: a Gaussian bulk with slow outliers, and an extreme-value form of the tail alone.

Times are per-GPU figures [M] in any unit, slower is larger; GPUs are taken as drawn independently from one population.
Intervals are 95 %. Used through moevar.extremes.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

# Outliers are slower than their peers by a bulk's standard deviation at least on average, and are at most half of all:
# with less the bulk itself could pass for them.
LEAST_SCALE = 1.0
MOST_WEIGHT = 0.5
MOST_SCALE = 20.0
MIN_MIXTURE_SAMPLE = 24
LARGE = 400
CHAIN_STEPS = 250
MIN_TAIL = 10
EM_STEPS, EM_TOLERANCE = 2000, 1e-5  # of standardised parameters
SHAPE_RANGE = (-1.0, 1.5)


def sorted_fleet(times) -> np.ndarray:
    """Positive finite times of a fleet, sorted [M]; ValueError if they are anything else."""
    times = np.sort(np.asarray(times, dtype=float).ravel())
    if times.size == 0 or not np.isfinite(times).all() or times[0] <= 0:
        raise ValueError("times of a fleet: at least one, all finite and above 0, are needed")
    return times


@dataclass(frozen=True)
class Parameter:
    """A fitted parameter with its interval; low or high None: the sample does not bound it on that side."""

    value: float
    low: float | None
    high: float | None

    def covers(self, truth: float) -> bool:
        return (self.low is None or self.low <= truth) and (self.high is None or truth <= self.high)


# --- Gaussian bulk with outliers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MixtureLaw:
    """Arrays [R] (or numbers) of R laws: Normal(mean, sd) for a GPU; with probability `weight` it is an outlier and
    slower by an exponential time of mean `scale` besides (an exponentially modified Gaussian)."""

    mean: np.ndarray
    sd: np.ndarray
    weight: np.ndarray
    scale: np.ndarray

    def _columns(self):
        return (np.asarray(value, dtype=float)[..., None] for value in (self.mean, self.sd, self.weight, self.scale))

    def cdf(self, x):
        """P(time <= x) of x [R, K]."""
        mean, sd, weight, scale = self._columns()
        z = (x - mean) / sd
        late = np.exp(_log_late(z, sd / scale))
        return np.clip(special.ndtr(z) - weight * late, 0.0, 1.0)

    def log_pdf(self, x):
        """log density of x [R, K]."""
        mean, sd, weight, scale = self._columns()
        z = (x - mean) / sd
        bulk = np.log1p(-weight) - z**2 / 2 - np.log(sd) - 0.5 * math.log(2 * math.pi)
        with np.errstate(divide="ignore"):
            return np.logaddexp(bulk, np.log(weight) + _log_late(z, sd / scale) - np.log(scale))

    def slowest(self, n) -> np.ndarray:
        """E[slowest of n GPUs] over the law's median, [R]: the integral of 1 - F^n."""
        mean, sd, weight, scale = self._columns()
        late = np.log(np.maximum(n * weight, 1.0)) + 18.0
        top = mean + sd * (7.0 + stats.norm.isf(1 / (n + 1))) + np.where(weight > 0, scale * late, 0.0)
        bottom = mean - 6 * sd
        # the bulk needs a fine grid where an exponential tail needs a long one: quadratic spacing has both
        share = np.linspace(0, 1, 800) ** 2
        x = bottom + (top - bottom) * share
        law = self.cdf(x)
        expected = bottom[..., 0] + np.trapz(1 - law**n, x, axis=-1)
        return expected / self.median(x, law)

    def median(self, x, law) -> np.ndarray:
        """Medians [R] by linear interpolation of cdf values `law` on grids x, both [R, K]."""
        right = np.maximum((law < 0.5).sum(axis=-1, keepdims=True), 1)
        ends = [np.take_along_axis(np.broadcast_to(array, law.shape), right - back, axis=-1)[..., 0]
                for array in (x, law) for back in (1, 0)]
        return ends[0] + (ends[1] - ends[0]) * (0.5 - ends[2]) / (ends[3] - ends[2])

    def draw(self, rng, count: int, size: int) -> np.ndarray:
        """count samples of `size` GPUs from one law, [count, size]."""
        times = rng.normal(self.mean, self.sd, (count, size))
        return times + (rng.random((count, size)) < self.weight) * rng.exponential(self.scale, (count, size))


def _log_late(z, k):
    """log of scale x density of the outlier part at z standard deviations, with k = sd / scale."""
    return -z * k + k**2 / 2 + special.log_ndtr(z - k)


def normal_law(samples) -> MixtureLaw:
    """Normal laws [R] of samples [R, M], without outliers."""
    count = len(samples)
    return MixtureLaw(samples.mean(axis=-1), samples.std(axis=-1, ddof=1), np.zeros(count), np.ones(count))


def mixture_law(samples, steps: int = EM_STEPS) -> MixtureLaw:
    """Maximum-likelihood laws [R] of samples [R, M] by expectation maximisation, from two starts.

    An outlier's delay given its time is a normal variable cut off at 0, so both of its moments are closed forms and
    so is the maximisation. scale is held to LEAST_SCALE x sd or more, weight to MOST_WEIGHT or less.
    """
    samples = np.asarray(samples, dtype=float)
    centre = np.median(samples, axis=1)
    spread = np.median(np.abs(samples - centre[:, None]), axis=1) * 1.4826
    spread = np.where(spread > 0, spread, np.maximum(samples.std(axis=1), 1e-12 * np.abs(centre)))
    x = (samples - centre[:, None]) / spread[:, None]
    best, likelihood = None, None
    for scale, least in ((2.0, 0.05), (6.0, 0.01)):
        late = np.maximum((x > 2.5).mean(axis=1), least)
        found = _expectation_maximisation(x, np.minimum(late, MOST_WEIGHT), scale, steps)
        reached = MixtureLaw(*found).log_pdf(x).sum(axis=1)
        if best is None:
            best, likelihood = found, reached
        else:
            better = reached > likelihood
            best = [np.where(better, new, old) for new, old in zip(found, best)]
    mean, sd, weight, scale = best
    return MixtureLaw(centre + spread * mean, spread * sd, weight, spread * scale)


def _expectation_maximisation(x, weight, scale, steps):
    """mean, sd, weight, scale, each [R], of standardised samples [R, M]. Samples that have settled are left alone."""
    state = np.stack([np.zeros(len(x)), np.ones(len(x)), weight, np.full(len(x), scale)])
    active = np.arange(len(x))
    for _ in range(steps):
        mean, sd, weight, scale = (row[:, None] for row in state[:, active])
        part = x[active]
        z, k = (part - mean) / sd, sd / scale
        log_late = _log_late(z, k) - np.log(scale)
        log_bulk = -z**2 / 2 - np.log(sd) - 0.5 * math.log(2 * math.pi)
        with np.errstate(divide="ignore", over="ignore"):
            late = special.expit(np.log(weight) - np.log1p(-weight) + log_late - log_bulk)
        cut = z - k
        hazard = np.exp(-cut**2 / 2 - 0.5 * math.log(2 * math.pi) - special.log_ndtr(cut))
        delay = np.maximum(sd * (cut + hazard), 0.0)
        delay_squared = np.maximum(sd**2 + sd * cut * delay, 0.0)
        count = np.maximum(late.sum(axis=1), 1e-300)
        new_mean = (part - late * delay).mean(axis=1)
        off = part - new_mean[:, None]
        variance = (off**2 + late * (delay_squared - 2 * off * delay)).mean(axis=1)
        new_sd = np.sqrt(np.maximum(variance, 1e-12))
        new = np.stack([new_mean, new_sd, np.clip(late.mean(axis=1), 1e-12, MOST_WEIGHT),
                        np.maximum((late * delay).sum(axis=1) / count, LEAST_SCALE * new_sd)])
        change = np.abs(new - state[:, active]).max(axis=0)
        state[:, active] = new
        active = active[change > EM_TOLERANCE]
        if active.size == 0:
            break
    return list(state)


@dataclass(frozen=True)
class Mixture:
    """A fitted Gaussian bulk with outliers; outliers_seen: GPUs that are more likely outliers than not."""

    mean: Parameter
    sd: Parameter
    weight: Parameter
    scale: Parameter
    outliers_seen: int
    n: int

    @property
    def law(self) -> MixtureLaw:
        return MixtureLaw(*(np.array([part.value]) for part in (self.mean, self.sd, self.weight, self.scale)))

    def expected_slowest(self, n: int) -> float:
        """E[slowest of n GPUs of the population] over its median."""
        return float(self.law.slowest(n)[0])


def fit_mixture(times) -> Mixture:
    """Gaussian bulk with slow outliers of a fleet [M], M >= MIN_MIXTURE_SAMPLE.

    Intervals: from the curvature of the likelihood in mean, log sd, logit weight and log scale. Where it does not curve
    (no outliers to speak of) weight and scale are not bounded.
    """
    times = sorted_fleet(times)
    if times.size < MIN_MIXTURE_SAMPLE:
        raise ValueError(f"{times.size} GPUs; outliers can be told from a bulk of {MIN_MIXTURE_SAMPLE} or more")
    law = mixture_law(times[None])
    low, high = mixture_intervals(times[None], law)
    values = [float(part[0]) for part in (law.mean, law.sd, law.weight, law.scale)]
    parts = [Parameter(value, *(None if np.isnan(end) else float(end) for end in (low[i, 0], high[i, 0])))
             for i, value in enumerate(values)]
    bulk = math.log1p(-values[2]) + stats.norm.logpdf(times, values[0], values[1])
    seen = int(np.count_nonzero(law.log_pdf(times[None])[0] > bulk + math.log(2)))
    return Mixture(*parts, seen, times.size)


def mixture_intervals(samples, law: MixtureLaw) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends [4, R] of the parameters of laws fitted to samples [R, M]; NaN where there is none."""
    best, covariance = mixture_covariance(samples, law)
    errors = stats.norm.ppf(0.975) * np.sqrt(np.diagonal(covariance, axis1=1, axis2=2).T)
    low, high = (_law_at(best + side * errors) for side in (-1, 1))
    return (np.stack([law.mean, law.sd, law.weight, law.scale]) for law in (low, high))


def _law_at(point) -> MixtureLaw:
    """The law of parameters as they are estimated: mean, log sd, logit weight, log scale."""
    return MixtureLaw(point[0], np.exp(point[1]), special.expit(point[2]), np.exp(point[3]))


def mixture_covariance(samples, law: MixtureLaw) -> tuple[np.ndarray, np.ndarray]:
    """Parameters [4, R] (mean, log sd, logit weight, log scale) and their covariances [R, 4, 4], from the curvature
    of the log likelihood by central differences; NaN for what the sample does not determine."""
    best = np.stack([law.mean, np.log(law.sd), special.logit(np.maximum(law.weight, 1e-12)), np.log(law.scale)])
    step = np.full_like(best, 0.02)
    step[0] *= law.sd
    hessian = np.empty((best.shape[1], 4, 4))
    for i in range(4):
        for j in range(i, 4):
            total = 0.0
            for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                point = best.copy()
                point[i] += a * step[i]
                point[j] += b * step[j]
                total = total + a * b * _law_at(point).log_pdf(samples).sum(axis=-1)
            hessian[:, i, j] = hessian[:, j, i] = -total / 4
    covariance = np.full(hessian.shape, np.nan)
    for r, information in enumerate(hessian):
        free = [i for i in range(4) if information[i, i] > 1e-9]
        inverse = np.linalg.pinv(information[np.ix_(free, free)])
        good = [k for k in range(len(free)) if inverse[k, k] > 0]
        known = [free[k] for k in good]
        covariance[np.ix_([r], known, known)] = inverse[np.ix_(good, good)] * np.outer(step[known, r], step[known, r])
    return best, covariance


def likely_laws(times, rng, count: int) -> MixtureLaw:
    """count laws [count] that a fleet [M] leaves possible, as drawn from their posterior.

    Priors: mean and log sd flat; weight Beta(1/2, 1/2) (Jeffreys) up to MOST_WEIGHT; scale / sd log-uniform up to
    MOST_SCALE. So a fleet that shows no outlier still allows for a few per cent of its number, as slow as the prior
    has them, which a fit would rule out. Above LARGE GPUs the posterior is taken as normal around the fit; below it
    is sampled.
    """
    times = sorted_fleet(times)
    if times.size > LARGE:
        return _laws_around_the_fit(times, rng, count)
    return _sampled_laws(times, rng, count)


def simplest_law(times) -> MixtureLaw:
    """The law [1] of a fleet [M]: normal, or with outliers where the likelihood says that it has some: a ratio test
    with their two parameters, at 1 %, from MIN_MIXTURE_SAMPLE GPUs on."""
    times = sorted_fleet(times)
    normal = normal_law(times[None])
    if times.size < MIN_MIXTURE_SAMPLE:
        return normal
    mixed = mixture_law(times[None])
    gain = (mixed.log_pdf(times[None]) - normal.log_pdf(times[None])).sum()
    return mixed if gain > stats.chi2.ppf(0.99, 2) / 2 else normal


def likely_normal_laws(times, rng, count: int) -> MixtureLaw:
    """count normal laws [count] that a fleet [M] leaves possible if it has no outliers."""
    times = sorted_fleet(times)
    sd = times.std(ddof=1) * np.sqrt((times.size - 1) / rng.chisquare(times.size - 1, count))
    mean = rng.normal(times.mean(), sd / math.sqrt(times.size))
    return MixtureLaw(mean, sd, np.zeros(count), sd)


def _laws_around_the_fit(times, rng, count) -> MixtureLaw:
    best, covariance = mixture_covariance(times[None], mixture_law(times[None]))
    points = rng.multivariate_normal(best[:, 0], np.nan_to_num(covariance[0]), count, method="eigh").T
    points[3] = np.maximum(points[3], points[1] + math.log(LEAST_SCALE))
    return _law_at(points)


def _sampled_laws(times, rng, count) -> MixtureLaw:
    """Differential-evolution Markov chains (ter Braak, Statistics and Computing 16, 2006): one a law, each half of them
    moved along differences of the other half's, which have the posterior's own shape. No step size to tune."""
    centre, unit = float(np.median(times)), float(times.std())
    x = ((times - centre) / unit)[None]
    half = max(count // 2, 8)
    chains = np.stack([rng.normal(-0.1, 0.3, 2 * half), rng.normal(-0.2, 0.3, 2 * half),
                       special.logit(np.clip(rng.beta(1.0, 0.5 * times.size, 2 * half), 1e-9, 0.45)),
                       rng.uniform(math.log(LEAST_SCALE), math.log(MOST_SCALE), 2 * half)])
    density = _log_posterior(chains, x)
    for step in range(CHAIN_STEPS):
        for moved, others in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
            first = rng.integers(0, half, half)
            second = (first + rng.integers(1, half, half)) % half
            # every tenth move as long as the difference itself: chains jump between separate likely regions
            length = 1.0 if step % 10 == 9 else 2.38 / math.sqrt(8)
            pool = chains[:, others]
            proposal = chains[:, moved] + length * (pool[:, first] - pool[:, second]) + rng.normal(0, 1e-3, (4, half))
            proposed = _log_posterior(proposal, x)
            taken = np.log(rng.random(half)) < proposed - density[moved]
            chains[:, moved] = np.where(taken, proposal, chains[:, moved])
            density[moved] = np.where(taken, proposed, density[moved])
    mean, log_sd, logit_weight, log_ratio = chains[:, :count]
    sd = np.exp(log_sd)
    return MixtureLaw(centre + unit * mean, unit * sd, special.expit(logit_weight), unit * sd * np.exp(log_ratio))


def _log_posterior(point, x) -> np.ndarray:
    """[R] of points [4, R]: mean, log sd, logit weight, log (scale / sd), for standardised times x [1, M]."""
    mean, log_sd, logit_weight, log_ratio = point
    allowed = ((log_ratio >= math.log(LEAST_SCALE)) & (log_ratio <= math.log(MOST_SCALE))
               & (logit_weight <= special.logit(MOST_WEIGHT)) & (np.abs(log_sd) < 10))
    safe_sd, weight = np.exp(np.clip(log_sd, -10, 10)), special.expit(logit_weight)
    ratio = np.exp(np.clip(log_ratio, math.log(LEAST_SCALE), math.log(MOST_SCALE)))
    likelihood = MixtureLaw(mean, safe_sd, weight, safe_sd * ratio).log_pdf(x).sum(axis=-1)
    # Beta(1/2, 1/2) per unit of the logit
    prior = 0.5 * (special.log_expit(logit_weight) + special.log_expit(-logit_weight))
    return np.where(allowed, likelihood + prior, -np.inf)


# --- the tail alone -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tail:
    """Generalised Pareto tail: beyond `threshold` lie `rate` of all GPUs, and P(excess > y) = (1 + shape y /
    scale)^(-1 / shape).

    shape > 0: heavy, 0: exponential, < 0: ends at threshold - scale / shape.
    """

    threshold: float
    rate: float
    shape: Parameter
    scale: Parameter
    exceedances: int
    n: int

    def quantile(self, p: float) -> float:
        """Time that a part p of GPUs does not exceed, p >= 1 - rate."""
        if not 1 - self.rate <= p < 1:
            raise ValueError(f"quantile {p}: the tail begins at {1 - self.rate:.4g}")
        excess = stats.genpareto.isf((1 - p) / self.rate, self.shape.value, scale=self.scale.value)
        return self.threshold + float(excess)

    def cdf(self, x):
        """P(time <= x) for x at or above the threshold."""
        excess = np.asarray(x, dtype=float) - self.threshold
        if (excess < 0).any():
            raise ValueError("the tail's law holds above its threshold alone")
        return 1 - self.rate * stats.genpareto.sf(excess, self.shape.value, scale=self.scale.value)


def fit_tail(times, exceedances: int | None = None) -> Tail:
    """Generalised Pareto tail of a fleet [M], over the threshold that leaves `exceedances` GPUs (default: a tenth,
    and at least 20 or half of all). (Pickands; Coles, An Introduction to Statistical Modeling of Extreme Values, 4.)

    Maximum likelihood for shapes in -1 .. 1.5, intervals by profile likelihood: ends that are not reached within are
    None.
    """
    times = sorted_fleet(times)
    if exceedances is None:
        exceedances = min(max(20, -(-times.size // 10)), times.size // 2)
    if not MIN_TAIL <= exceedances < times.size:
        raise ValueError(f"a tail of {exceedances} of {times.size} GPUs; {MIN_TAIL} or more, and one below, are needed")
    threshold = times[-exceedances - 1]
    excess = times[-exceedances:] - threshold
    if excess[-1] <= 0:
        raise ValueError("the slowest GPUs are all equal; there is no tail to fit")
    excess = np.maximum(excess, 1e-9 * excess[-1])  # ties with the threshold
    shape, scale = _fit_pareto(excess)
    return Tail(float(threshold), exceedances / times.size, shape, scale, exceedances, times.size)


def _fit_pareto(excess) -> tuple[Parameter, Parameter]:
    """Shape and scale of excesses [K] > 0 from their likelihood on a grid of shapes and scales, twice drawn in around
    what is likely, so that it is fine enough for any K."""
    unit = float(excess.mean())
    y = excess / unit
    # chi-squared's value with Student's in the normal's place, for samples of some tens
    drop = y.size / 2 * math.log1p(stats.t.ppf(0.975, y.size - 2) ** 2 / (y.size - 2))
    shapes, log_scales = np.linspace(*SHAPE_RANGE, 61), np.linspace(math.log(0.05), math.log(8.0), 61)
    for _ in range(3):
        likelihood = np.array([_pareto_likelihood(y, shape, np.exp(log_scales)) for shape in shapes])
        found = [(grid, likelihood.max(axis=axis)) for grid, axis in ((shapes, 1), (log_scales, 0))]
        shapes, log_scales = (_drawn_in(grid, profile, 4 * drop) for grid, profile in found)
    shape, log_scale = (_profiled(grid, profile, drop) for grid, profile in found)
    ends = (None if end is None else unit * math.exp(end) for end in (log_scale.value, log_scale.low, log_scale.high))
    return shape, Parameter(*ends)


def _pareto_likelihood(y, shape: float, scales) -> np.ndarray:
    """log likelihood [N] of excesses y [K] for one shape and scales [N]; -inf where an excess lies beyond the law's
    end."""
    if abs(shape) < 1e-9:
        return -y.size * np.log(scales) - y.sum() / scales
    inner = 1 + shape * y[None] / scales[:, None]
    inside = (inner > 0).all(axis=1)
    logs = np.log(np.where(inner > 0, inner, 1.0)).sum(axis=1)
    return np.where(inside, -y.size * np.log(scales) - (1 + 1 / shape) * logs, -np.inf)


def _drawn_in(grid, profile, drop) -> np.ndarray:
    """A grid of as many points over the part where the profile likelihood is within `drop` of its best, and a point
    beyond."""
    likely = np.flatnonzero(profile > profile.max() - drop)
    return np.linspace(grid[max(likely[0] - 1, 0)], grid[min(likely[-1] + 1, grid.size - 1)], grid.size)


def _profiled(grid, profile, drop) -> Parameter:
    """Best value on the grid, and where the profile likelihood has fallen by `drop`, linear between points."""
    best = int(profile.argmax())
    floor = profile[best] - drop
    ends = []
    for side in (-1, 1):
        i = best
        while 0 <= i + side < grid.size and profile[i + side] > floor:
            i += side
        beyond = i + side
        if not 0 <= beyond < grid.size:
            ends.append(None)
        elif not np.isfinite(profile[beyond]):
            ends.append(float(grid[beyond]))
        else:
            part = (profile[i] - floor) / (profile[i] - profile[beyond])
            ends.append(float(grid[i] + part * (grid[beyond] - grid[i])))
    return Parameter(float(grid[best]), *ends)
