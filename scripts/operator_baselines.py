"""What operators are measured against, from tables to a Fourier operator."""

import dataclasses
import math
import time
import types
from collections.abc import Callable, Iterator
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key
from scipy.optimize import nnls
from scipy.spatial import KDTree

from dicjax.operator.characteristics import (
    BY_NAME,
    Characteristics,
    COUNTS,
    from_coordinates,
    NAMES,
    to_coordinates,
)
from dicjax.operator.config import OperatorConfig, OperatorTraining
from dicjax.operator.curve_correction import correct_curves
from dicjax.operator.families import Family
from dicjax.operator.model import Operator, untrained
from dicjax.operator.prediction import respond
from dicjax.operator.scores import (
    draw_amplitudes,
    EVERY,
    simulate_steps,
    START,
    STOP,
    Trial,
)
from dicjax.operator.train import CharacterisedMembers
from dicjax.operator.training import members_of, train_operator
from dicjax.spikes.step_response import step_response


STEPS = (0.025, 0.05, 0.1, 0.2, 0.4)  # ms
SIMPLEX = 13  # neighbours: the corners of a simplex in the space of twelve features
CANDIDATES = (26, 52, 104, 208, 416, 832)  # neighbours that a regression may be over
TRIED = 512  # members by which one of these is chosen
RIDGE, UNITY = 1e-6, 1e3  # of regressions; how much weights must add up to one
ALIKE = ("threshold", "gain", "rest", "resistance")  # in which pairs agree
ACHIEVED = ("threshold", "gain", "height", "width", "adaptation")
ROUNDS, WITHIN = 12, 2.0  # of halving a range: the asked current, divided and times
BEFORE, LONG = 20.0, 1000.0  # ms, of the steps that thresholds are measured with
FOURIER_DT = 0.025  # ms, of the simulations that the Fourier operator learns from
FLOOR = 3.0  # mV, below which the size of a trace does not go in the loss
ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())

Traces = Float[np.ndarray, "cells samples"]


def trivial(V: Traces) -> dict[str, Traces]:
    """Predictions that know the truth, but for what matters."""
    return {
        "never fires: truth, at most -40 mV": np.minimum(V, -40.0),
        "truth, one sample late": np.concatenate([V[:, :1], V[:, :-1]], axis=1),
        "mean of the truth": np.broadcast_to(V.mean(axis=1, keepdims=True), V.shape),
    }


def amplitudes_at(
    part: Float[np.ndarray, "*cells"], measured: Characteristics
) -> Float[np.ndarray, " cells"]:
    """Currents (µA/cm²) at a part, 0 to 1, of the range that trials draw from."""
    given = types.SimpleNamespace(random=lambda num: np.broadcast_to(part, num))
    return draw_amplitudes(cast(np.random.Generator, given), measured)


def coarser(family: Family, trial: Trial) -> Iterator[tuple[float, Traces]]:
    """The simulator with longer steps (ms), as far as it takes them."""
    for dt in STEPS:
        try:
            yield dt, simulate_steps(family, trial.g, trial.amplitude, dt)
        except ValueError as error:
            print(f"{error}\n")


def look_up(family: Family, trial: Trial, num: int) -> Traces:
    """The same member at the nearest of `num` currents, as a table of these says."""
    measured = Characteristics(trial.features, np.ones(len(trial.g), bool))
    low, high = (amplitudes_at(np.array(x), measured) for x in (0.0, 1.0))
    part = (trial.amplitude - low) / (high - low)
    nearest = np.clip(np.round(part * (num - 1)), 0, num - 1) / (num - 1)
    return simulate_steps(family, trial.g, amplitudes_at(nearest, measured))


def coordinates(
    values: Float[np.ndarray, "cells features"],
) -> Float[np.ndarray, "cells features"]:
    """Features as they are compared, of families with input conductances too."""
    return np.asarray(to_coordinates(values, tuple(BY_NAME)[: values.shape[1]]))


class Neighbourhood:
    """Members that are known, around others, by distance in standardised features."""

    def __init__(self, x: Float[np.ndarray, "members features"]):
        self.scale = np.std(x, axis=0, dtype=np.float64)
        self.z = x / self.scale
        self._tree = KDTree(self.z)

    def of(self, values: Float[np.ndarray, "cells features"]) -> np.ndarray:
        """Standardised coordinates of features."""
        return coordinates(values) / self.scale

    def nearest(
        self, z: Float[np.ndarray, "cells features"], num: int
    ) -> tuple[Float[np.ndarray, "cells num"], Int[np.ndarray, "cells num"]]:
        """Distances to the nearest, in rising order, and who they are."""
        distance, index = self._tree.query(z, k=max(2, min(num, len(self.z))))
        return np.asarray(distance)[:, :num], np.asarray(index)[:, :num]

    def distance(self, values: Float[np.ndarray, "cells features"]) -> np.ndarray:
        """Distances of cells from the nearest member."""
        return self.nearest(self.of(values), 1)[0][:, 0]


def barycentric(z: np.ndarray, around: Float[np.ndarray, "num features"]) -> np.ndarray:
    """Weights of neighbours, none negative, whose mean is nearest to `z`.

    The exact ones, where `z` lies within the neighbours' hull. In twelve dimensions it
    hardly ever does: without the bound, weights are large and of either sign.
    """
    A = np.concatenate([around.T, np.full((1, len(around)), UNITY)])
    weights, _ = nnls(A, np.append(z, UNITY))
    return weights / weights.sum()


def local_regression(near, log_g, z, distance, index) -> np.ndarray:
    """Logarithms of conductances, linear in features over neighbours, nearer ones more.

    (Cleveland, 1979: weights are tricubic, and zero at the last neighbour.)
    """
    told = []
    for at, away, who in zip(z, distance, index, strict=True):
        root = np.sqrt((1 - (away / away[-1]) ** 3) ** 3)[:, None]
        A = root * np.concatenate([np.ones((len(who), 1)), near.z[who] - at], axis=1)
        gram = A.T @ A + RIDGE * len(who) * np.eye(A.shape[1])
        told.append(np.linalg.solve(gram, A.T @ (root * log_g[who]))[0])
    return np.array(told)


def best_number(near: Neighbourhood, log_g: Float[np.ndarray, "members _"]) -> int:
    """Neighbours to regress over: those that tell members by all others the best."""
    some = np.random.default_rng(0).permutation(len(log_g))[:TRIED]
    errors = {}
    for num in CANDIDATES:
        if num < len(log_g):
            distance, index = near.nearest(near.z[some], num + 1)
            others = distance[:, 1:], index[:, 1:]
            told = local_regression(near, log_g, near.z[some], *others)
            errors[num] = np.mean(((told - log_g[some]) / log_g.std(axis=0)) ** 2)
    return min(errors, key=lambda num: errors[num])


def by_neighbours(
    family: Family, known: CharacterisedMembers, trial: Trial
) -> dict[str, Traces]:
    """Members that nobody has seen, told by those that were, through the simulator."""
    near = Neighbourhood(coordinates(known.measured.values))
    log_g = np.log(known.g.astype(np.float64))
    z = near.of(trial.features)
    distance, index = near.nearest(z, SIMPLEX)
    weights = 1 / np.maximum(distance, 1e-9)
    weights /= weights.sum(axis=1, keepdims=True)
    convex = np.array(
        [barycentric(at, near.z[who]) for at, who in zip(z, index, strict=True)]
    )
    mean = lambda w: np.einsum("cn,cnk->ck", w, log_g[index])
    num = best_number(near, log_g)
    regressed = local_regression(near, log_g, z, *near.nearest(z, num))
    simulated = lambda g: simulate_steps(family, g.astype(np.float32), trial.amplitude)
    told = {
        "nearest member": log_g[index[:, 0]],
        f"conductances of {SIMPLEX}, by inverse distance": mean(weights),
        f"conductances of {SIMPLEX}, barycentric": mean(convex),
        f"regression over {num}": np.clip(regressed, *np.log(family.bounds)),
    }
    answers = {name: simulated(np.exp(log_g)) for name, log_g in told.items()}
    average = np.zeros_like(trial.V)
    for w, who in zip(weights.T, index.T, strict=True):
        average += w[:, None].astype(np.float32) * simulated(known.g[who])
    return {**answers, f"potentials of {SIMPLEX}, by inverse distance": average}


def pairs(
    library: CharacterisedMembers, tolerance: float, num: int
) -> tuple[CharacterisedMembers, CharacterisedMembers]:
    """Unseen members and seen ones that are alike, most distant conductances first.

    An unseen member comes once, with the seen one that differs most in conductances.
    """
    seen, unseen = library.seen, library.unseen
    alike = lambda of: np.log(np.abs([of.measured[name] for name in ALIKE])).T
    near = KDTree(alike(seen)).query_ball_point(
        alike(unseen), np.log1p(tolerance), p=np.inf
    )
    chosen = []
    for i, of in enumerate(near):
        if of:
            away = np.linalg.norm(np.log(seen.g[of] / unseen.g[i]), axis=1)
            chosen.append((away.max(), i, of[away.argmax()]))
    if not chosen:
        raise ValueError("No members are so alike: use more, or a wider tolerance.")
    _, one, other = zip(*sorted(chosen, reverse=True)[:num], strict=True)
    return unseen[np.array(one)], seen[np.array(other)]


def counts(V: np.ndarray, start: float = START, stop: float = STOP) -> np.ndarray:
    """Spikes during a step."""
    V = np.where(np.isfinite(V), V, 0.0).astype(np.float32)
    return np.asarray(step_response(jnp.asarray(V), EVERY, start, stop).num_spikes)


def achieved(operator: Operator, asked: np.ndarray) -> np.ndarray:
    """Features of an operator's answers, measured as `characterise` does on cells."""
    threshold, gain = (asked[:, NAMES.index(name)] for name in ACHIEVED[:2])
    apart = COUNTS[1] - COUNTS[0]
    everyone = np.tile(asked, (2, 1)).astype(np.float32)
    wanted = np.repeat(COUNTS[:2], len(asked))
    on = EVERY * np.arange(round((BEFORE + LONG) / EVERY) + 1) >= BEFORE - 1e-6

    def answer(amplitude, features):
        I = (amplitude[:, None] * on).astype(np.float32)
        return np.asarray(respond(operator, I, features, every=EVERY).V)

    def fires(log_I):
        V = answer(np.exp(log_I), everyone)
        return counts(V, BEFORE, BEFORE + LONG) >= wanted

    center = np.log(np.concatenate([threshold, threshold + apart / gain]))
    low, high = center - np.log(WITHIN), center + np.log(WITHIN)
    is_within = ~fires(low) & fires(high)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        is_above = fires(middle)
        low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
    currents = np.where(is_within, np.exp((low + high) / 2), np.nan)
    five, fifteen = currents.reshape(2, -1)
    V = answer(np.nan_to_num(fifteen), asked.astype(np.float32))
    response = step_response(jnp.asarray(V), EVERY, BEFORE, BEFORE + LONG)
    values = np.full(asked.shape, np.nan)
    values[:, NAMES.index("threshold")] = five
    values[:, NAMES.index("gain")] = apart / (fifteen - five)
    for name in ACHIEVED[2:]:
        values[:, NAMES.index(name)] = np.asarray(getattr(response, name))
    return values


class Told(Operator):
    """An operator whose amplitudes are given, whatever its features."""

    a: Float[Array, "*cells terms"]

    def amplitudes(self, x: Float[Array, "*cells features"]) -> Array:
        del x
        return self.a


def predict_told(operator: Operator, a, trial: Trial) -> Traces:
    """What the operator's steps make of given amplitudes (mS/cm²)."""
    own = {f.name: getattr(operator, f.name) for f in dataclasses.fields(operator)}
    told = Told(**own, a=jnp.asarray(a))
    return np.asarray(respond(told, trial.current, trial.features, every=EVERY).V)


def predict_ablated(
    family: Family,
    seen: CharacterisedMembers,
    trial: Trial,
    kept: tuple[str, ...] | None,
    training: OperatorTraining,
) -> Traces:
    """By an operator that was shown some features, or all conductances, alone.

    What it is not shown has the mean of its members instead, rest included, from which
    it then starts. Curves are corrected with all known: they are common to members.
    """
    key = jr.key(training.seed)
    members = members_of(seen.g, seen.measured)
    x, asked = members.x, to_coordinates(trial.features)
    new = lambda x: untrained(
        jr.fold_in(key, 0), OperatorConfig(), family, NAMES, np.asarray(x), seen.g
    )
    stepped = correct_curves(jr.fold_in(key, 1), new(x), members, training)
    operator, features = stepped, trial.features
    if kept is None:
        shown, asked = jnp.log(members.g), jnp.log(trial.g)
        operator = new(shown)
    else:
        hide = lambda x: jnp.where(np.isin(NAMES, kept), x, stepped.branch.center)
        shown, asked = hide(x), hide(asked)
        features = np.asarray(from_coordinates(asked))
    members = eqx.tree_at(lambda m: m.x, members, shown)
    operator = train_operator(operator, family, members, training)
    # Few members span less than those that are tested, which would be refused.
    everyone = jnp.concatenate([x, to_coordinates(trial.features)])
    stepped = eqx.tree_at(lambda o: o.library, stepped, everyone)
    trial = dataclasses.replace(trial, features=features)
    return predict_told(stepped, operator.amplitudes(asked), trial)


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


@dataclasses.dataclass
class Fourier:
    """A Fourier operator, and what its training took so far."""

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
    on_progress: Callable[[Fourier], None],
) -> Fourier:
    """Trains for so long, simulation included and compilation not, along a cosine."""
    rng = np.random.default_rng(seed)

    def lesson():
        some = known[rng.integers(0, len(known), config.chunk)]
        amplitude = draw_amplitudes(rng, some.measured)
        V = simulate_steps(family, some.g, amplitude, FOURIER_DT)
        return _lesson(Trial(some.g, some.measured.values, amplitude, V), config)

    batch = lambda i: tuple(x[i : i + config.batch_size] for x in now)
    now = lesson()
    x = np.asarray(to_coordinates(known.measured.values))
    model = FourierOperator(config, x, *now[2:], key=jr.key(seed))
    state = ADAM.init(eqx.filter(model, eqx.is_array))
    jax.block_until_ready(_learn(model, state, batch(0), jnp.zeros(())))
    weights = eqx.filter((model.lift, model.layers, model.project), eqx.is_array)
    run = Fourier(model, sum(x.size for x in jax.tree.leaves(weights)))
    began = time.perf_counter()
    while run.minutes < minutes:
        losses = []
        for i in range(0, config.chunk, config.batch_size):
            part = min(1.0, run.minutes / minutes)
            rate = config.learning_rate * (1 + math.cos(math.pi * part)) / 2
            model, state, loss = _learn(model, state, batch(i), jnp.asarray(rate))
            losses.append(float(loss))
            run.minutes = (time.perf_counter() - began) / 60
        run.steps += len(losses)
        run.traces += config.chunk
        run.model, run.loss = model, float(np.mean(losses))
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
