"""The drive of members as coordinates, in which a search moves like in conductances."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from dicjax.simulation import Drive


FAST_TAU = 5.0  # ms, of synaptic currents
# Mean (µA/cm²), and the logarithms of `sigma`, `slow_sigma` (µA/cm²) and `slow_tau`
# (ms): where draws come from, and where a search may go.
LOWEST_DRAWN = (-3.0, *np.log([0.03, 0.03, 100.0]).tolist())
HIGHEST_DRAWN = (3.0, *np.log([40.0, 8.0, 5000.0]).tolist())
LOWEST = (-15.0, *np.log([0.003, 0.003, 50.0]).tolist())
HIGHEST = (15.0, *np.log([60.0, 20.0, 20_000.0]).tolist())
NUM_COORDINATES = len(LOWEST)
STEADY_SHARE = 0.4  # of draws, that hardly have a slow part

Coordinates = Float[np.ndarray, "cells coordinates"]
"""Rows of a mean and three logarithms; of no columns where members have no drive."""


def draw_drives(key: Key[Array, ""], num: int) -> Coordinates:
    """Coordinates of drives of all kinds."""
    where, steady = jr.split(key)
    low, high = jnp.asarray(LOWEST_DRAWN), jnp.asarray(HIGHEST_DRAWN)
    drawn = jr.uniform(where, (num, NUM_COORDINATES), jnp.float32, low, high)
    is_steady = jr.bernoulli(steady, STEADY_SHARE, (num,))
    slow = jnp.where(is_steady, jnp.log(0.01), drawn[:, 2])
    return np.asarray(drawn.at[:, 2].set(slow))


def drive_at(coordinates: Coordinates, current: float = 0.0) -> Drive:
    """The drive at coordinates, whose mean comes on top of a `current` (µA/cm²)."""
    mean, *logs = np.asarray(coordinates, np.float32).T
    sigma, slow_sigma, slow_tau = np.exp(logs)
    mean = mean + np.float32(current)
    return Drive(mean, sigma, np.full_like(mean, FAST_TAU), slow_sigma, slow_tau)


def rows_of_drive(drive: Drive | None, members) -> Drive | None:
    """The drive of some members."""
    return jax.tree.map(lambda x: x[members], drive)
