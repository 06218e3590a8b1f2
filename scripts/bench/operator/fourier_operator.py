"""A Fourier operator, after NOBLE (arXiv 2506.04536), and how it is trained."""

import dataclasses
import math
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from dicjax.operator import CharacterisedMembers, Family
from dicjax.operator.characteristics import to_coordinates
from dicjax.operator.scores import draw_amplitudes, simulate_steps, Trial


DT = 0.025  # ms, of the simulations that it learns from
FLOOR = 3.0  # mV, below which the size of a trace does not go in the loss
ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())

Traces = Float[np.ndarray, "cells samples"]


@dataclasses.dataclass(frozen=True)
class FourierConfig:
    """The shape of a Fourier operator, how its traces are sampled, how it learns."""

    width: int = 24
    num_layers: int = 4
    num_modes: int = 128
    num_samples: int = 1500
    stride: int = 4  # samples of a trial in one of the operator's
    reach: int = 4  # samples to either side that local paths see
    num_frequencies: int = 6  # of the current; features have one
    batch_size: int = 16
    learning_rate: float = 2e-3
    chunk: int = 256  # traces that are simulated at once, and learned from once


class SpectralLayer(eqx.Module):
    """A convolution by modes, one over a few samples, and a map of every sample.

    Transforms are products with matrices: those of XLA wait for one another on a CPU.
    """

    modes: Float[Array, "2 modes channels channels"]
    taps: Float[Array, "taps channels"]
    point: eqx.nn.Linear

    def __init__(self, config: FourierConfig, *, key: Key[Array, ""]):
        keys = jr.split(key, 3)
        width = config.width
        shape = (2, config.num_modes, width, width)
        self.modes = jr.normal(keys[0], shape) / width
        self.taps = jr.normal(keys[1], (2 * config.reach + 1, width)) / 10
        self.point = eqx.nn.Linear(width, width, key=keys[2])

    def __call__(self, h: Float[Array, "samples channels"], waves) -> Array:
        cos, sin = waves
        num, reach = len(h), len(self.taps) // 2
        re, im = cos.T @ h / num, -(sin.T @ h) / num
        mix = lambda x, w: jnp.einsum("mi,mio->mo", x, w)
        real, imaginary = self.modes
        out_re = mix(re, real) - mix(im, imaginary)
        out_im = mix(re, imaginary) + mix(im, real)
        # Modes come in pairs, but for the mean.
        pairs = jnp.where(jnp.arange(len(re)) == 0, 1.0, 2.0)[:, None]
        smooth = cos @ (pairs * out_re) - sin @ (pairs * out_im)
        wide = jnp.pad(h, ((reach, reach), (0, 0)))
        local = sum(tap * wide[i : i + num] for i, tap in enumerate(self.taps))
        return smooth + local + jax.vmap(self.point)(h)


class FourierOperator(eqx.Module):
    """From a current and features of a neuron to its potential, after NOBLE.

    (arXiv 2506.04536.) Current and features come as sinusoids over the window, whose
    frequencies they set.

    - `low`, `high`: of features, as coordinates; `unit`: of currents, in µA/cm².
    - `middle`, `spread`: of potentials, in mV.
    """

    lift: eqx.nn.MLP
    layers: tuple[SpectralLayer, ...]
    project: eqx.nn.MLP
    low: Float[Array, " features"]
    high: Float[Array, " features"]
    unit: Float[Array, ""]
    middle: Float[Array, ""]
    spread: Float[Array, ""]
    config: FourierConfig = eqx.field(static=True)

    def __init__(self, config, x, amplitude, V, *, key: Key[Array, ""]):
        keys = jr.split(key, config.num_layers + 2)
        width = config.width
        num = 2 + 2 * config.num_frequencies + 2 * x.shape[1]
        gelu = jax.nn.gelu
        self.lift = eqx.nn.MLP(num, width, 2 * width, 1, gelu, key=keys[0])
        self.layers = tuple(SpectralLayer(config, key=k) for k in keys[2:])
        self.project = eqx.nn.MLP(width, "scalar", 4 * width, 1, gelu, key=keys[1])
        self.low, self.high = jnp.asarray(x.min(axis=0)), jnp.asarray(x.max(axis=0))
        self.unit = jnp.asarray(np.abs(amplitude).max() / 3)
        self.middle, self.spread = jnp.asarray(V.mean()), jnp.asarray(V.std())
        self.config = config

    def __call__(self, current, x, amplitude) -> Float[Array, " samples"]:
        """The potential (mV) of one neuron."""
        scales = self.low, self.high, self.unit, self.middle, self.spread
        low, high, unit, middle, spread = jax.lax.stop_gradient(scales)
        num = self.config.num_samples
        t = jnp.linspace(0, 2 * math.pi, num, endpoint=False)[:, None]
        p = 0.5 + 3 * (x - low) / (high - low)
        octaves = 2.0 ** jnp.arange(self.config.num_frequencies)
        frequencies = jnp.concatenate([octaves * amplitude / unit, p])
        phase = math.pi * t * frequencies[None]
        columns = [current[:, None] / unit, t / (2 * math.pi)]
        h = jnp.concatenate([*columns, jnp.sin(phase), jnp.cos(phase)], axis=1)
        h = jax.vmap(self.lift)(h)
        turns = t * jnp.arange(self.config.num_modes)[None]
        waves = jnp.cos(turns), jnp.sin(turns)
        for layer in self.layers[:-1]:
            h = jax.nn.gelu(layer(h, waves))
        h = self.layers[-1](h, waves)
        return middle + spread * jax.vmap(self.project)(h)


def _lesson(trial: Trial, config: FourierConfig) -> tuple[np.ndarray, ...]:
    """Currents, features, amplitudes and potentials of traces to learn from."""
    thin = slice(None, config.num_samples * config.stride, config.stride)
    x = np.asarray(to_coordinates(trial.features))
    return trial.current[:, thin], x, trial.amplitude, trial.V[:, thin]


@eqx.filter_jit
def _learn(model, state, lesson, rate):
    *given, truth = lesson

    def loss(model):
        norm = lambda x: jnp.sqrt(jnp.mean(x**2, axis=1))
        size = norm(truth - jnp.mean(truth, axis=1, keepdims=True))
        away = norm(jax.vmap(model)(*given) - truth)
        return jnp.mean(away / jnp.maximum(size, FLOOR))

    value, gradient = eqx.filter_value_and_grad(loss)(model)
    updates, state = ADAM.update(gradient, state)
    updates = jax.tree.map(lambda u: -rate * u, updates)
    return eqx.apply_updates(model, updates), state, value


@dataclasses.dataclass(frozen=True)
class FourierTraining:
    """A Fourier operator, and how far its training is."""

    model: FourierOperator
    num_parameters: int
    steps: int = 0
    traces: int = 0
    minutes: float = 0.0
    loss: float = math.nan


def train_fourier(
    seed: int,
    family: Family,
    known: CharacterisedMembers,
    minutes: float,
    config: FourierConfig,
    on_progress: Callable[[FourierTraining], None],
) -> FourierTraining:
    """Trains for so long, simulation included and compilation not, along a cosine."""
    rng = np.random.default_rng(seed)

    def lesson():
        some = known[rng.integers(0, len(known), config.chunk)]
        amplitude = draw_amplitudes(rng, some.measured)
        V = simulate_steps(family, some.g, amplitude, DT)
        return _lesson(Trial(some.g, some.measured.values, amplitude, V), config)

    batch = lambda i: tuple(x[i : i + config.batch_size] for x in now)
    now = lesson()
    x = np.asarray(to_coordinates(known.measured.values))
    model = FourierOperator(config, x, *now[2:], key=jr.key(seed))
    state = ADAM.init(eqx.filter(model, eqx.is_array))
    jax.block_until_ready(_learn(model, state, batch(0), jnp.zeros(())))
    weights = eqx.filter((model.lift, model.layers, model.project), eqx.is_array)
    run = FourierTraining(model, sum(x.size for x in jax.tree.leaves(weights)))
    began, spent = time.perf_counter(), 0.0
    while spent < minutes:
        losses = []
        for i in range(0, config.chunk, config.batch_size):
            part = min(1.0, spent / minutes)
            rate = config.learning_rate * (1 + math.cos(math.pi * part)) / 2
            model, state, loss = _learn(model, state, batch(i), jnp.asarray(rate))
            losses.append(float(loss))
            spent = (time.perf_counter() - began) / 60
        run = FourierTraining(
            model,
            run.num_parameters,
            steps=run.steps + len(losses),
            traces=run.traces + config.chunk,
            minutes=spent,
            loss=float(np.mean(losses)),
        )
        on_progress(run)
        now = lesson()
    return run


def predict_fourier(model: FourierOperator, trial: Trial) -> Traces:
    """Potentials at the samples of a trial."""
    apply = eqx.filter_jit(lambda model, *of: jax.vmap(model)(*of))
    *given, _ = _lesson(trial, model.config)
    size = model.config.batch_size
    parts = [
        apply(model, *(x[i : i + size] for x in given))
        for i in range(0, len(trial.V), size)
    ]
    return refined(np.concatenate(parts), trial, model.config)


def refined(V: Traces, trial: Trial, config: FourierConfig) -> Traces:
    """Potentials at the samples of a trial, linear between those of the operator."""
    ts = np.arange(trial.V.shape[1])
    own = config.stride * np.arange(config.num_samples)
    return np.stack([np.interp(ts, own, row) for row in V]).astype(np.float32)
