"""Training a neural operator online: its data are simulated while it learns.

A pool of members of the family receives currents that never repeat: steps of random
height and length, silence, and noise. The operator's branch learns amplitudes with
which every membrane carries the currents that it carries in the simulation.
"""

import dataclasses
import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from dicjax._core import (
    begin_fit,
    clipped,
    constrain,
    decay_of,
    fetch,
    from_first,
    improve,
    in_float32,
    is_first,
    keep_state,
    Kept,
    kept_state,
    Placement,
    placement,
    Progress,
    put,
    train,
)
from dicjax.neurons import Neuron, State
from dicjax.operator.characteristics import Characteristics, to_coordinates
from dicjax.operator.config import OperatorTraining
from dicjax.operator.families import Family
from dicjax.operator.model import Operator
from dicjax.simulation import relax_gates, relax_membrane


MICRO = 0.05  # ms, steps of the simulation
SAMPLED = 0.5  # ms between samples of a trajectory
SAMPLES = 64  # of every member in a segment
CHANGE = 120.0  # ms between steps of current, in the mean
SILENT = 0.15  # share of them without current
LOWEST_CURRENT = -0.6  # of the threshold
NOISE_MEMORY = 5.0  # ms
LOUDEST = 0.5  # standard deviation of the noise, of the threshold
FINE, COARSE = 0.005, 0.03  # of the threshold, of the net current: what is precise
SUPERVISED = 0.1  # weight of the difference between amplitudes and conductances
PASSES = 2  # through every segment
AVERAGED = 0.999  # decay of the moving average of weights, once there are many
WARM_UP = 500  # steps
LAST = 1e-6  # learning rate
SAVED = 100  # segments between states on disk
RENEWED = 0.1  # share of the pool that starts over after every segment


class Members(eqx.Module):
    """What is learned from: conductances, coordinates of features, and currents.

    - `threshold`: in µA/cm²; `low`, `high`: between which currents are drawn.
    """

    g: Float[Array, "members channels"]
    x: Float[Array, "members features"]
    threshold: Float[Array, " members"]
    low: Float[Array, " members"]
    high: Float[Array, " members"]

    def __getitem__(self, rows) -> "Members":
        return jax.tree.map(lambda x: x[rows], self)


class Pool(eqx.Module):
    """Members that are being simulated, and what current each receives."""

    number: Array
    y: State
    base: Float[Array, " pool"]
    noise: Float[Array, " pool"]
    loudness: Float[Array, " pool"]


class Samples(eqx.Module):
    """Currents of all terms at one mS/cm², and the net current, in µA/cm²."""

    unit: Float[Array, "pool samples channels"]
    net: Float[Array, "pool samples"]


def members_of(
    g: Float[np.ndarray, "members channels"], measured: Characteristics
) -> Members:
    """Members as training takes them."""
    threshold = measured["threshold"]
    gains = 10 / measured["gain"] + 25 / measured["high_gain"]
    x = to_coordinates(measured.values, measured.names)
    rows = (g, x, threshold, LOWEST_CURRENT * threshold, threshold + 1.2 * gains)
    return in_float32(Members(*map(jnp.asarray, rows)))


def make_pool(key: Key[Array, ""], neuron: Neuron, members: Members, num: int) -> Pool:
    """Members where simulations of the neuron start."""
    k1, k2, k3 = jr.split(key, 3)
    number = jr.randint(k1, (num,), 0, len(members.g))
    y = jax.tree.map(lambda x: jnp.full(num, x), neuron.initial_state())
    is_noisy = jr.bernoulli(k2, 0.5, (num,))
    loudness = jnp.where(is_noisy, LOUDEST * jr.uniform(k3, (num,), jnp.float32), 0)
    zeros = jnp.zeros(num, jnp.float32)
    return Pool(number, y, zeros, zeros, loudness)


def currents(
    key: Key[Array, ""], pool: Pool, members: Members
) -> tuple[Pool, Float[Array, "samples pool"]]:
    """Currents (µA/cm²) of the next segment, constant between samples."""
    keys = jr.split(key, 4)
    shape = (SAMPLES, len(pool.number))
    low, high = members.low[pool.number], members.high[pool.number]
    changes = jr.bernoulli(keys[0], SAMPLED / CHANGE, shape)
    height = low[None] + (high - low)[None] * jr.uniform(keys[1], shape, jnp.float32)
    height = jnp.where(jr.bernoulli(keys[2], SILENT, shape), 0, height)
    kept = float(np.exp(-SAMPLED / NOISE_MEMORY))
    kicks = np.sqrt(1 - kept**2).item() * jr.normal(keys[3], shape, jnp.float32)
    size = pool.loudness * members.threshold[pool.number]

    def one(carry, x):
        base, noise = carry
        change, height, kick = x
        base, noise = jnp.where(change, height, base), kept * noise + kick
        return (base, noise), base + size * noise

    start = pool.base, pool.noise
    (base, noise), I = jax.lax.scan(one, start, (changes, height, kicks))
    return dataclasses.replace(pool, base=base, noise=noise), I


@eqx.filter_jit
def segment(
    key: Key[Array, ""], family: Family, pool: Pool, members: Members
) -> tuple[Pool, Samples]:
    """Simulates the pool for a while; some of it then starts over."""
    k1, k2, k3 = jr.split(key, 3)
    pool, I = currents(k1, pool, members)
    g = members.g[pool.number]
    neuron, h = family.neuron, jnp.float32(MICRO)

    def one_cell(y, g, I):
        I = I + family.hold

        def micro(_, y):
            y = relax_gates(neuron, y, h / 2)
            return relax_gates(neuron, relax_membrane(neuron, y, g, h, I), h / 2)

        y = jax.lax.fori_loop(0, round(SAMPLED / MICRO), micro, y)
        unit = jnp.stack(neuron.unit_currents(y.V, y.gates, y.Ca))
        return y, unit, I - jnp.sum(g * unit)

    def sample(y, I):
        y, unit, net = jax.vmap(one_cell)(y, g, I)
        return y, (unit, net)

    y, (unit, net) = jax.lax.scan(sample, pool.y, I)
    new = make_pool(k2, neuron, members, len(pool.number))
    over = jr.bernoulli(k3, RENEWED, pool.number.shape) | ~jnp.isfinite(y.V)
    pool = dataclasses.replace(pool, y=y)
    pool = jax.tree.map(lambda a, b: jnp.where(over, a, b), new, pool)
    return pool, Samples(jnp.moveaxis(unit, 1, 0), net.T)


def operator_loss(
    operator: Operator, members: Members, samples: Samples
) -> Float[Array, ""]:
    """How far membranes of the operator are from carrying the simulated currents.

    Every member has a row of samples.
    """
    a, g = operator.amplitudes(members.x), members.g
    spread = operator.branch.amplitude_spread[None]
    supervised = jnp.mean(((jnp.log(a) - jnp.log(g)) / spread) ** 2)
    away = jnp.sum((a - g)[:, None] * samples.unit, axis=-1)
    scale = FINE * members.threshold[:, None] + COARSE * jnp.abs(samples.net)
    miss = jnp.sqrt(1 + (away / scale) ** 2) - 1
    return jnp.mean(miss) + SUPERVISED * supervised


def train_operator(
    operator: Operator,
    family: Family,
    members: Members,
    training: OperatorTraining,
    *,
    folder: pathlib.Path | None = None,
    save_every: int = SAVED,
    on_progress: Progress | None = None,
) -> Operator:
    """The operator with a trained branch: a moving average of its weights.

    Devices share the pool and every batch; where several processes were joined by
    `jax.distributed`, all have to call this with the same arguments, and the first one
    reports progress and keeps the state in `folder`, every `save_every` segments. A
    training that was stopped goes on from there.

    Raises `ValueError` if the pool does not divide into batches, if devices cannot
    share either evenly, or if `folder` holds the state of another training.
    """
    where = placement_of(training)
    neuron = family.neuron.with_dtype(jnp.dtype(jnp.float32))
    family = dataclasses.replace(family, neuron=neuron)
    key = jr.key(training.seed)
    pool = make_pool(jr.fold_in(key, 0), neuron, members, training.pool)
    learned, rest = eqx.partition(operator, is_learned(operator))
    start = (begin_fit(learned, optimiser(training)), pool)
    per_segment = PASSES * training.pool // training.batch_size
    settings = json.dumps(dataclasses.asdict(training), sort_keys=True)
    run = Kept(start, {"done": 0})
    if folder is not None:
        run = from_first(lambda: kept_state(folder, settings, start)) or run
    fit, pool = run.arrays
    fixed = put((family, rest, members), where.everywhere)

    def learn(i, state):
        own = jr.fold_in(key, i + 1)
        return _round(own, jnp.float32(i), fixed, state, training, where)

    def keep(done, state):
        whole = fetch(state, where)
        if folder is not None and is_first():
            keep_state(folder, settings, whole, {"done": done})

    fit, _ = train(
        (put(fit, where.everywhere), put(pool, where.split)),
        learn,
        -(-training.num_steps // per_segment),
        first=run.about["done"],
        size=per_segment,
        keep=keep if folder is not None else None,
        keep_every=save_every,
        on_progress=on_progress,
    )
    return eqx.combine(fetch(fit.average, where), rest)


def placement_of(training: OperatorTraining) -> Placement:
    """Where a training takes place, or a `ValueError` if its sizes do not fit."""
    per_segment, rest = divmod(PASSES * training.pool, training.batch_size)
    if rest or not per_segment:
        raise ValueError(
            f"`batch_size` must divide twice the pool of {training.pool}, got "
            f"{training.batch_size}: take a power of two, and the pool likewise."
        )
    return placement(batch_size=training.batch_size, pool=training.pool)


def is_learned(operator: Operator) -> PyTree:
    """Which leaves of an operator are trained: the weights of its branch."""
    nothing = jax.tree.map(lambda _: False, operator)
    weights = lambda o: (o.branch.first, o.branch.hidden, o.branch.last)
    every = jax.tree.map(eqx.is_inexact_array, weights(operator))
    return eqx.tree_at(weights, nothing, every)


def optimiser(training: OperatorTraining) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) along a cosine; Adam for what is no matrix."""
    rate, num = training.learning_rate, training.num_steps
    spans = min(WARM_UP, num // 10 + 1), max(2, num)
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, *spans, LAST)
    return clipped(optax.contrib.muon(schedule, adam_b2=0.99))


@eqx.filter_jit
def _round(key, done, fixed, state, training, where):
    """Simulates the pool for a segment, and learns from it."""
    (family, rest, members), (fit, pool) = fixed, state
    k1, k2 = jr.split(key)
    number = pool.number
    pool, samples = segment(k1, family, pool, members)
    pool = constrain(pool, where.split)
    # Batches take samples from anywhere.
    samples = constrain(samples, where.everywhere)
    passes = [jr.permutation(k, len(number)) for k in jr.split(k2, PASSES)]
    order = jnp.concatenate(passes).reshape(-1, training.batch_size)
    decay = decay_of(done, AVERAGED)

    def step(fit, rows):
        some = jax.tree.map(lambda x: x[rows], samples)
        batch = constrain((members[number[rows]], some), where.split)
        loss = lambda weights: operator_loss(eqx.combine(weights, rest), *batch)
        return improve(fit, loss, optimiser(training), decay, where)

    fit, losses = jax.lax.scan(step, fit, order)
    fit, loss = constrain((fit, jnp.mean(losses)), where.everywhere)
    return (fit, pool), loss
