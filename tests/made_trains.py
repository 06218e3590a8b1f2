"""Made trains of every pattern, and their features."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np

from dicjax.spikes.features import spike_features
from dicjax.spikes.trains import pad_trains


WIDTH = 64  # of rows, the same in all tests since each is compiled


def tonic(rng, num=40):
    return np.cumsum(rng.normal(100, 5, num).clip(50))


def poisson(rng, num=WIDTH):
    return np.cumsum(rng.exponential(50, num) + 1e-3)


def bursting(rng, num=9):
    sizes = rng.integers(2, 7, num)
    bursts = [
        1000 * i + rng.normal(0, 20) + np.cumsum(rng.normal(30, 3, size).clip(15))
        for i, size in enumerate(sizes)
    ]
    return np.concatenate(bursts) + 100


def paused(rng):
    return np.append(tonic(rng, 20), 20_000 + tonic(rng, 20))


def short(rng):
    return np.cumsum(rng.exponential(50, rng.integers(0, 8)))


def metronome(period, num=20, start=0.0):
    return start + period * np.arange(num)


def burster(period=1000.0, spikes=5, isi=20.0, num=8):
    onsets = 50 + period * np.arange(num)[:, None]
    return (onsets + isi * np.arange(spikes)).ravel()


KINDS = (tonic, poisson, bursting, paused, short)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def trains(draw):
    kind = draw(st.sampled_from(KINDS))
    return kind(np.random.default_rng(draw(seeds)))


def features_of(times, dtype: type = np.float64, width=WIDTH):
    return spike_features(jnp.asarray(pad_trains([times], width)[0], dtype))
