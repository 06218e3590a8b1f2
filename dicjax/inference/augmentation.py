"""What recordings do to spike trains, done to simulated ones."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Key

from dicjax.inference.config import TrainingConfig


MIN_CROP = 8  # spikes that a window keeps at least
SHAPES = (0.7, 2.5)  # of Weibull intervals of random trains: CVs of 1.5 to 0.4
Train = Float[Array, " spikes"]


def augment(
    key: Key[Array, ""],
    spike_times: Float[Array, "batch spikes"],
    training: TrainingConfig,
    length: int,
    clean: Float[Array, ""],
) -> tuple[Float[Array, "batch length"], Bool[Array, " batch"]]:
    """Random stretches of trains as they might be recorded, and which are anomalies.

    A stretch has 8 to `length` spikes. A share `clean` of them stays as it is, since
    recordings may be that clean, too; the others are jittered, lose and gain spikes,
    and drift in rate. Some are then no train of one neuron any more: merged with that
    of another neuron, merged with a coupled twin, or with independent intervals of the
    same mean.
    """
    keys = jr.split(key, (len(spike_times), 3))
    stretches = jax.vmap(lambda k, t: _stretch(k, t, length))(keys[:, 0], spike_times)
    record = lambda key, times: _recorded(key, times, training, clean)
    recorded = jax.vmap(record)(keys[:, 1], stretches)
    # The first ones: the order of a batch is random, and work is spent on them alone.
    num = round(training.anomalies * len(keys))
    others = jnp.roll(recorded, 1, axis=0)[:num]
    broken = jax.vmap(_anomaly)(keys[:num, 2], recorded[:num], others)
    is_anomaly = jnp.arange(len(keys)) < num
    return jnp.concatenate([broken, recorded[num:]]), is_anomaly


def _stretch(key, times, length):
    size_key, start_key = jr.split(key)
    num = jnp.sum(jnp.isfinite(times), dtype=jnp.int32)
    longest = jnp.minimum(num, length)
    shortest = jnp.minimum(longest, MIN_CROP)
    size = jr.randint(size_key, (), shortest, longest + 1, jnp.int32)
    start = jr.randint(start_key, (), 0, num - size + 1, jnp.int32)
    padded = jnp.concatenate([times, jnp.full(length, jnp.inf, times.dtype)])
    stretch = jax.lax.dynamic_slice_in_dim(padded, start, length)
    stretch = jnp.where(jnp.arange(length, dtype=jnp.int32) < size, stretch, jnp.inf)
    return stretch - stretch[0]


def _recorded(key, times, training, clean):
    keys, shape, dtype = jr.split(key, 6), times.shape, times.dtype
    is_dirty = jr.uniform(keys[0], (), dtype) > clean.astype(dtype)
    dirty = is_dirty.astype(dtype)
    shares = dirty * jr.uniform(keys[1], (4,), dtype)
    last = _last(times)
    drift = training.max_drift * dirty * (2 * shares[0] - 1)
    # Padding is left out: infinity times what may be negative is not padding any more.
    warped = times * (1 + drift * (times / last - 1) / 2)
    times = jnp.where(jnp.isfinite(times), warped, jnp.inf)
    moved = times + training.max_jitter * shares[1] * jr.normal(keys[2], shape, dtype)
    lost = jr.uniform(keys[3], shape, dtype) < training.max_missed * shares[2]
    kept = jnp.where(lost, jnp.inf, moved)
    gained = jr.uniform(keys[4], shape, dtype) < training.max_spurious * shares[3]
    gained &= jnp.isfinite(times)
    extra = jr.uniform(keys[5], shape, dtype) * last
    return _merged(kept, jnp.where(gained, extra, jnp.inf))


def _anomaly(key, times, other):
    keys = jr.split(key, 4)
    kind = jr.randint(keys[0], (), 0, 3, jnp.int32)
    known = jnp.isfinite(times)
    num = jnp.sum(known, dtype=jnp.int32)
    last = _last(times)
    mean = last / jnp.maximum(num - 1, 1).astype(times.dtype)
    # Of two neurons, for as long as both are recorded.
    shift = jr.uniform(keys[1], (), times.dtype) * mean
    two = _merged(times, other + shift)
    two = jnp.where(two <= jnp.minimum(last, _last(other) + shift), two, jnp.inf)
    # Of two coupled ones: bursts coincide, spikes within do not.
    isi = jnp.sort(jnp.where(known[1:], jnp.diff(jnp.where(known, times, 0)), jnp.inf))
    short = isi[num // 4]
    blur, lag = jr.uniform(keys[2], (2,), times.dtype)
    away = jr.normal(keys[3], times.shape, times.dtype)
    twin = times + short * ((0.2 + 0.8 * blur) * away + lag)
    coupled = _merged(times, twin)
    # Of a random process, with Weibull intervals: cheap to draw, and of any spread.
    low, high = SHAPES
    shape = low * (high / low) ** blur
    uniform = jr.uniform(keys[1], times.shape, times.dtype, 1e-6)
    random = (-jnp.log(uniform)) ** (1 / shape)
    random = jnp.cumsum(random * (mean / jnp.exp(jax.lax.lgamma(1 + 1 / shape))))
    random = jnp.where(known, random - random[0], jnp.inf)
    return jnp.stack([two, coupled, random])[kind]


def _merged(times: Train, others: Train) -> Train:
    """The first spikes of both together, as many as there is room for, from zero on."""
    both = jnp.sort(jnp.concatenate([times, others]))[: len(times)]
    first = jnp.where(jnp.isfinite(both[0]), both[0], 0)
    return both - first


def _last(times):
    return jnp.maximum(jnp.max(jnp.where(jnp.isfinite(times), times, 0)), 1)
