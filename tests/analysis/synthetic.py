"""Synthetic series with a known truth: autocorrelated, skewed steps of several devices and layers."""

import numpy as np
from scipy.signal import lfilter


def autoregressive(rng, shape, rho):
    """AR(1) along axis 0 with unit variance, stationary from the first row."""
    noise = rng.standard_normal(shape)
    noise[1:] *= np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise, axis=0)


def device_times(rng, steps, layers, devices, rho, sigma=0.1, shared=0.5):
    """Log-normal times [S, L, D]: exp(sigma z), z unit normal and AR(1) over steps; `shared` is the part of z's
    variance that a whole step has in common (a hot or a busy moment), the rest is each device's and layer's own."""
    common = autoregressive(rng, (steps, 1, 1), rho)
    own = autoregressive(rng, (steps, layers, devices), rho)
    return np.exp(sigma * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own))
