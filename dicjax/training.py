"""Training an encoder on simulated trains, and measuring what it learned."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from dicjax.config import EncoderConfig, TrainingConfig
from dicjax.dataset import Dataset
from dicjax.encoder import (
    Encoder,
    mixture_log_prob,
    NUM_FEATURES,
    Posterior,
    read,
)
from dicjax.spikes import Features, LABELS, spike_features


MIN_CROP = 8  # spikes that a window keeps at least
CROPS = (24, 48, 96)  # lengths that are compiled for; short ones are cheaper
CROP_SHARES = (0.45, 0.35, 0.2)
LABEL_WEIGHT, FEATURE_WEIGHT = 0.5, 0.5  # beside the posterior, in the loss
NUM_LEVELS = 101


@dataclasses.dataclass(frozen=True)
class Trained:
    """An encoder, its loss over training, and the coverage of its regions.

    `ranks[i]` is the share of held-out truths found in the region of nominal level
    `i / (len(ranks) - 1)`.
    """

    encoder: Encoder
    losses: Float[np.ndarray, " steps"]
    ranks: Float[np.ndarray, " levels"]


class Batch(eqx.Module):
    """Trains to learn from and what is known of them."""

    spike_times: Float[Array | np.ndarray, "batch spikes"]
    dics: Float[Array | np.ndarray, "batch 2"]
    labels: Int[Array | np.ndarray, " batch"]
    features: Float[Array | np.ndarray, "batch 4"]  # logarithms; nan where undefined


def train_encoder(
    dataset: Dataset,
    g_s: tuple[float, float],
    g_u: tuple[float, float],
    config: EncoderConfig,
    training: TrainingConfig,
    *,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Trains an encoder of (g_s, g_u) on simulated trains.

    Every step sees random stretches of random trains, jittered and with spikes missed,
    of members that fired at least ten spikes. A twentieth of the members is kept apart
    to calibrate the posterior's regions.

    **Arguments:**

    - `dataset`: simulated members.
    - `g_s`, `g_u`: the ranges their DICs come from.
    - `config`, `training`: the network, and how to train it.
    - `on_progress`: called with (step, number of steps, loss).
    """
    key = jr.key(training.seed)
    dataset = dataset[np.isfinite(dataset.spike_times).sum(axis=1) >= 10]
    known = batch_of(dataset)
    held_out = np.arange(len(dataset)) % 20 == 0
    learn = np.flatnonzero(~held_out)
    encoder = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x,
        Encoder(config, g_s, g_u, key=jr.fold_in(key, 0)),
    )
    optimiser = _optimiser(training)
    state = optimiser.init(eqx.filter(encoder, _trainable(encoder)))
    average = encoder
    rng = np.random.default_rng(training.seed)  # of the host's order of batches
    losses = np.zeros(training.num_steps, np.float32)
    for step in range(training.num_steps):
        crop = int(rng.choice(CROPS, p=CROP_SHARES))
        members = rng.choice(learn, training.batch_size)
        batch = jax.tree.map(lambda x, m=members: x[m], known)
        encoder, average, state, loss = _learn(
            encoder,
            average,
            state,
            batch,
            jr.fold_in(key, step),
            jnp.asarray(step, jnp.float32),
            training,
            crop,
        )
        losses[step] = loss
        if on_progress is not None:
            on_progress(step + 1, training.num_steps, float(loss))
    test = dataset[held_out]
    return Trained(average, losses, calibrate(average, test))


def batch_of(dataset: Dataset) -> Batch:
    """What there is to learn from simulated members, on the host."""
    features = spike_features(dataset.spike_times)
    return Batch(
        spike_times=dataset.spike_times,
        dics=dataset.dics.astype(np.float32),
        labels=np.asarray(features.label),
        features=log_features(features),
    )


def log_features(features: Features) -> Float[np.ndarray, "cells 4"]:
    """Logarithms of the features that the encoder also predicts."""
    names = ("mean_isi", "period", "intra_burst_isi", "spikes_per_burst")
    columns = [np.asarray(getattr(features, name), np.float32) for name in names]
    return np.log(np.stack(columns, axis=1))


def _trainable(encoder: Encoder) -> PyTree:
    every = jax.tree.map(eqx.is_inexact_array, encoder)
    fixed = lambda e: (e.low, e.high, e.center, e.scale)
    return eqx.tree_at(fixed, every, (False,) * 4)


def _optimiser(training: TrainingConfig) -> optax.GradientTransformation:
    steps = training.num_steps
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, training.learning_rate, min(500, steps // 10 + 1), steps
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=training.weight_decay),
    )


@eqx.filter_jit(donate="none")
def _learn(encoder, average, state, batch, key, step, training, crop):
    spike_times = _augment(key, batch.spike_times, training, crop)
    learned, fixed = eqx.partition(encoder, _trainable(encoder))

    def loss(learned):
        return _loss(eqx.combine(learned, fixed), spike_times, batch)

    value, gradient = eqx.filter_value_and_grad(loss)(learned)
    updates, state = _optimiser(training).update(gradient, state, learned)
    encoder = eqx.apply_updates(encoder, updates)
    # An average over few steps at first, so that it soon forgets the start.
    decay = jnp.minimum(0.999, (1 + step) / (10 + step))
    average = jax.tree.map(
        lambda a, e: decay * a + (1 - decay) * e if eqx.is_inexact_array(a) else a,
        average,
        encoder,
    )
    return encoder, average, state, value


def _augment(
    key: Key[Array, ""],
    spike_times: Float[Array, "batch spikes"],
    training: TrainingConfig,
    crop: int,
) -> Float[Array, "batch crop"]:
    """Random stretches of the trains, with spikes moved and missed."""

    def one(key, times):
        keys = jr.split(key, 5)
        num = jnp.sum(jnp.isfinite(times), dtype=jnp.int32)
        longest = jnp.minimum(num, crop)
        shortest = jnp.minimum(longest, MIN_CROP)
        length = jr.randint(keys[0], (), shortest, longest + 1, jnp.int32)
        start = jr.randint(keys[1], (), 0, num - length + 1, jnp.int32)
        padded = jnp.concatenate([times, jnp.full(crop, jnp.inf, times.dtype)])
        stretch = jax.lax.dynamic_slice_in_dim(padded, start, crop)
        kept = jnp.arange(crop, dtype=jnp.int32) < length
        stretch = jnp.where(kept, stretch, jnp.inf)
        stretch = stretch - stretch[0]
        # Half of the trains stay as they are: recordings may be that clean, too.
        dirty = jr.bernoulli(keys[2]).astype(times.dtype)
        jitter, missed = jr.uniform(keys[3], (2,), times.dtype)
        normal, uniform = jr.split(keys[4])
        noise = jr.normal(normal, (crop,), times.dtype)
        moved = stretch + dirty * training.max_jitter * jitter * noise
        chance = dirty * training.max_missed * missed
        lost = jr.uniform(uniform, (crop,), times.dtype) < chance
        return jnp.sort(jnp.where(lost, jnp.inf, moved))

    return jax.vmap(one)(jr.split(key, len(spike_times)), spike_times)


def _loss(encoder, spike_times, batch):
    reading = jax.vmap(encoder)(spike_times)
    share = (batch.dics - encoder.low[None]) / (encoder.high - encoder.low)[None]
    u = jnp.log(share) - jnp.log1p(-share)
    density = jax.vmap(mixture_log_prob)(
        reading.weights, reading.means, reading.factors, u
    )
    label = optax.softmax_cross_entropy_with_integer_labels(
        reading.labels, batch.labels
    )
    known = jnp.isfinite(batch.features)
    miss = jnp.where(known, reading.features - jnp.where(known, batch.features, 0), 0)
    feature = jnp.sum(miss**2, axis=-1) / NUM_FEATURES
    return jnp.mean(-density + LABEL_WEIGHT * label + FEATURE_WEIGHT * feature)


def calibrate(encoder: Encoder, dataset: Dataset) -> Float[np.ndarray, " levels"]:
    """The share of truths inside the region of each nominal level."""
    posterior = posterior_of(encoder, dataset)
    draws = posterior.sample(jr.key(1), 1024)
    densities = posterior.log_prob(draws)
    truth = posterior.log_prob(jnp.asarray(dataset.dics)[:, None])
    # The smallest level whose region holds the truth.
    levels = np.asarray(jnp.mean(densities > truth, axis=1))
    grid = np.linspace(0, 1, NUM_LEVELS)
    ranks = np.searchsorted(np.sort(levels), grid, side="right") / len(levels)
    # Strictly increasing, so that it can be inverted, and whole at the end.
    ranks = np.maximum.accumulate(ranks) + 1e-6 * grid
    ranks[0], ranks[-1] = 0.0, 1.0
    return ranks.astype(np.float32)


def posterior_of(encoder: Encoder, dataset: Dataset, batch: int = 512) -> Posterior:
    """Posteriors of simulated members, from as many spikes as are read at once."""
    width = encoder.config.max_spikes
    times = dataset.spike_times
    times = np.pad(
        times, ((0, 0), (0, max(0, width - times.shape[1]))), constant_values=np.inf
    )[:, :width].astype(np.float32)
    times = np.where(np.isfinite(times), times - times[:, :1], np.inf)
    pieces = []
    for start in range(0, len(times), batch):
        piece = times[start : start + batch]
        rows = np.concatenate([piece, np.repeat(piece[-1:], batch - len(piece), 0)])
        reading = read(encoder, jnp.asarray(rows))
        reading = jax.tree.map(lambda x, n=len(piece): x[:n], reading)
        pieces.append((reading.weights, reading.means, reading.factors))
    weights, means, factors = (jnp.concatenate(x) for x in zip(*pieces, strict=True))
    grid = jnp.linspace(0, 1, NUM_LEVELS)
    return Posterior(weights, means, factors, encoder.low, encoder.high, grid)


def evaluate(
    encoder: Encoder, ranks: Float[np.ndarray, " levels"], dataset: Dataset
) -> dict[str, dict[str, float | int]]:
    """Errors and coverage by label, on members the encoder has not seen.

    For each label: how many members, mean absolute error of the posterior means of g_s
    and g_u, and the share of truths within the calibrated 50 and 90 % regions.
    """
    labels = np.asarray(spike_features(dataset.spike_times).label)
    posterior = posterior_of(encoder, dataset)
    posterior = dataclasses.replace(posterior, ranks=jnp.asarray(ranks))
    errors = np.abs(np.asarray(posterior.mean) - dataset.dics)
    inside = {
        level: np.asarray(posterior.region(level / 100).contains(dataset.dics))
        for level in (50, 90)
    }
    table = {}
    for index, name in enumerate(LABELS):
        of = labels == index
        if not of.any():
            continue
        table[name] = {
            "num": int(of.sum()),
            "mae_g_s": float(errors[of, 0].mean()),
            "mae_g_u": float(errors[of, 1].mean()),
            "coverage_50": float(inside[50][of].mean()),
            "coverage_90": float(inside[90][of].mean()),
        }
    return table
