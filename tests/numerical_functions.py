"""Every numerical function, with arguments for a batch of cells."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from networks import random_encoder
from operators import as_dtype, blank, measured_as

import dicjax as dj
from dicjax.inference.encoder import Encoder
from dicjax.inference.posterior import Region


CELLS = 2  # in every batch

HH = dj.hodgkin_huxley()
G = np.array([[120.0, 36.0, 0.3], [100.0, 30.0, 0.25]])
BISTABLE = np.array([[120.0, 4.0, 0.3], [100.0, 3.0, 0.25]])  # with a threshold
V, CA = np.array([-60.0, -52.0]), np.array([0.05, 0.06])
GATES = tuple(np.array([[0.1, 0.2], [0.5, 0.4], [0.4, 0.35]]))
TIMES = np.arange(0.5, 6.0, 0.5)
PULSE = dj.Step(20.0)


class Case(NamedTuple):
    """A numerical function, and its arguments for a batch of cells.

    - `function`: of one cell.
    - `arguments`: trees of arrays whose first axis is that of cells.
    - `has_slopes`: whether the results depend on floats, and smoothly; otherwise they
        are integers or truth values, or no number is continuous.
    """

    function: Callable
    arguments: tuple
    has_slopes: bool = True


def each(tree: Any) -> Any:
    """The same for every cell."""
    return jax.tree.map(lambda x: np.stack([np.asarray(x)] * CELLS), tree)


def arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


@functools.cache
def posteriors() -> dj.Posterior:
    """A posterior over three trains for every cell, in double precision."""
    rng = np.random.default_rng(0)
    several = [
        dj.Posterior(
            weights=jnp.log(rng.dirichlet([2.0, 2.0], 3)),
            means=jnp.asarray(rng.normal(0, 0.5, (3, 2, 2))),
            factors=jnp.asarray(np.tril(0.3 * rng.uniform(0.5, 1.0, (3, 2, 2, 2)))),
            low=jnp.array([-20.0, 0.0]),
            high=jnp.array([20.0, 20.0]),
            ranks=jnp.asarray(np.tile(np.linspace(0, 1, 11), (3, 1))),
        )
        for _ in range(CELLS)
    ]
    return jax.tree.map(lambda *x: jnp.stack(x), *several)


def trains() -> np.ndarray:
    """Bursts of four and of five spikes, a row per cell, padded with infinity.

    No two intervals are equal, since an order has no slope where numbers are.
    """
    rows, rng = np.full((CELLS, 48), np.inf), np.random.default_rng(4)
    for row, num, isi, period in zip(rows, (4, 5), (6.0, 5.0), (90, 110), strict=True):
        times = period * np.arange(8)[:, None] + isi * np.arange(num)
        row[: times.size] = (times + rng.uniform(0, 1, times.shape)).ravel()
    return rows


def potentials() -> np.ndarray:
    """Sampled answers to a step of current: five spikes on a depolarised level."""
    t = 0.1 * np.arange(1000)
    level = np.where((t > 20) & (t < 80), 10.0, 0.0) + np.sin(t / 7) + np.sin(t / 3)
    at, widths = 25.03 + 11.07 * np.arange(5), np.linspace(0.8, 1.2, 5)
    pairs = zip(at, widths, strict=True)
    spikes = sum(np.exp(-(((t - at) / width) ** 2)) for at, width in pairs)
    return np.stack([-65 + level + height * spikes for height in (90.0, 100.0)])


@functools.cache
def features() -> tuple[dj.Features, dj.Features]:
    """Of every cell, and of what it should fire like."""
    like = trains()[::-1] * 1.02
    return dj.spike_features(trains()), dj.spike_features(like)


@functools.cache
def encoder() -> Encoder:
    sizes = {"width": 8, "num_slots": 2, "num_heads": 2, "latent": 4, "hidden": 8}
    small = random_encoder(dj.EncoderConfig(**sizes, num_components=2))
    return as_dtype(jnp.float64, small)


@functools.cache
def operator() -> dj.Operator:
    return as_dtype(jnp.float64, blank())


MEASURED = measured_as(CELLS).values.astype(np.float64)
DICS = np.random.default_rng(1).uniform((-8.0, 4.0), (8.0, 16.0), (CELLS, 3, 4, 2))
CURRENTS = np.sin(np.arange(40.0) / 5) * np.array([[0.5], [1.0]])
LATER = np.array([3.3, 4.7])  # ms


def of_neuron(name: str, *arguments: Any) -> Case:
    """A method of a neuron, whose own numbers are arguments too."""
    method = lambda neuron, *of: getattr(neuron, name)(*of)
    return Case(method, (each(HH), *arguments))


def of_stimulus(make: Callable, *numbers: Any) -> Case:
    """The current of a stimulus at a time, of its numbers and of the time."""
    current = lambda t, *of: make(*of)(t)
    return Case(current, (LATER, *numbers))


def solved(neuron, g):
    run = dj.solve(neuron, g, TIMES, stimulus=PULSE, max_steps=320)
    return run.V, run.spike_times[:1]


def held(neuron, g):
    return dj.clamp(neuron, g, dj.Step(-20.0), TIMES, dt=0.1).I


def periodic(neuron, g):
    how = {"stimulus": PULSE, "duration": 100.0, "discard": 40.0, "dt": 0.05}
    return dj.rhythm(neuron, g, **how).period


def steps(V):
    return dj.step_response(V, 0.1, 20.0, 80.0, max_spikes=8)


def answering(operator: dj.Operator) -> Callable:
    every = {"every": 0.2, "out_of_range": "try"}
    return lambda current, features: dj.respond(operator, current, features, **every)


def clamped(t, G, reversal):
    current = dj.InjectedConductance(dj.Step(G), reversal)(t)
    assert callable(current)
    return current(HH.initial_state())


def reading(encoder: Encoder) -> Callable:
    return lambda times: encoder(times, jnp.int32(0))


PULLS = np.array([2.0, 3.0])
AMPLITUDES = np.random.default_rng(2).uniform(0.5, 2.0, (CELLS, 7))
NUMERICAL: dict[str, Callable[[], Case]] = {
    "dynamic_input_conductances": lambda: Case(
        dj.dynamic_input_conductances, (each(HH), G, V)
    ),
    "sensitivity": lambda: Case(lambda *of: dj.sensitivity(HH, *of), (G, V)),
    "threshold": lambda: Case(lambda *of: dj.threshold(*of).V, (each(HH), BISTABLE)),
    "solve": lambda: Case(solved, (each(HH), G)),
    "clamp": lambda: Case(held, (each(HH), G)),
    # Of forward mode alone: see its own tests.
    "rhythm": lambda: Case(periodic, (each(HH), G), False),
    "spike_features": lambda: Case(dj.spike_features, (trains(),)),
    "feature_errors": lambda: Case(dj.feature_errors, features()),
    # Truth values have no slopes.
    "is_valid": lambda: Case(dj.is_valid, (*features(), np.full(CELLS, 0.1)), False),
    "step_response": lambda: Case(steps, (potentials(),)),
    "respond": lambda: Case(answering(operator()), (CURRENTS, MEASURED)),
    # Draws depend on a key alone, which is no float.
    "sample": lambda: Case(
        lambda key: dj.sample(key, dj.stg(), 3), (jr.split(jr.key(0), CELLS),), False
    ),
    "Neuron.unit_currents": lambda: of_neuron("unit_currents", V, GATES, CA),
    "Neuron.total_current": lambda: of_neuron("total_current", V, GATES, CA, G),
    "Neuron.calcium_current": lambda: of_neuron("calcium_current", V, GATES, CA, G),
    "Neuron.calcium_rate": lambda: of_neuron("calcium_rate", V, GATES, CA, G),
    "Neuron.steady_gates": lambda: of_neuron("steady_gates", V, CA),
    "Neuron.time_constants": lambda: of_neuron("time_constants", V, CA),
    "Neuron.reference_time_constants": lambda: of_neuron(
        "reference_time_constants", V, CA
    ),
    "Neuron.slowed": lambda: of_neuron("slowed", GATES),
    "Neuron.relax": lambda: of_neuron("relax", V, GATES, CA, np.full(CELLS, 0.1)),
    "Neuron.vector_field": lambda: Case(
        lambda neuron, V, gates, Ca, g, I: neuron.vector_field(
            jnp.zeros(()), dj.State(V, gates, Ca), g, I
        ),
        (each(HH), V, GATES, CA, G, PULLS),
    ),
    "Neuron.initial_state": lambda: of_neuron("initial_state", V, CA),
    "Neuron.steady_calcium": lambda: Case(
        lambda V, g: dj.stg().steady_calcium(V, g),
        (V, np.tile([3200.0, 80.0, 5.0, 12.0, 160.0, 220.0, 0.4, 0.01], (CELLS, 1))),
    ),
    "Neuron.at": lambda: Case(
        lambda T, V, Ca: HH.at(T).time_constants(V, Ca), (np.array([6.0, 9.0]), V, CA)
    ),
    "Step": lambda: of_stimulus(lambda a: dj.Step(a, 1.0, 5.0), PULLS),
    "Ramp": lambda: of_stimulus(
        dj.Ramp, PULLS, PULLS + 1, np.full(CELLS, 1.0), np.full(CELLS, 9.0)
    ),
    "PulseTrain": lambda: of_stimulus(
        lambda a: dj.PulseTrain(a, 1.0, 2.0, 0.5, 9), PULLS
    ),
    "Chirp": lambda: of_stimulus(lambda a: dj.Chirp(a, 1.0, 20.0, 1000.0), PULLS),
    "Waveform": lambda: of_stimulus(lambda x: dj.Waveform(x, 0.5), CURRENTS),
    "NoisyCurrent": lambda: of_stimulus(
        lambda sigma, mean: dj.NoisyCurrent(jr.key(3), sigma, mean), PULLS, -PULLS
    ),
    "FluctuatingCurrent": lambda: of_stimulus(
        lambda sigma: dj.FluctuatingCurrent(jr.key(3), sigma, 5.0), PULLS
    ),
    "InjectedConductance": lambda: Case(clamped, (LATER, PULLS, -PULLS)),
    "Injected": lambda: Case(
        lambda t, V: dj.Injected(lambda t, y: jnp.sin(t) * y.V)(t)(  # pyright: ignore
            HH.initial_state(V)
        ),
        (LATER, V),
    ),
    "Posterior.sample": lambda: Case(lambda p: p.sample(jr.key(0), 5), (posteriors(),)),
    "Posterior.log_prob": lambda: Case(
        lambda p, x: p.log_prob(x), (posteriors(), DICS)
    ),
    "Posterior.interval": lambda: Case(lambda p: p.interval(0.83), (posteriors(),)),
    "Posterior.region": lambda: Case(lambda p: p.region(0.83).floor, (posteriors(),)),
    "Region.contains": lambda: Case(
        lambda p, x: Region(p, jnp.full(3, -5.0)).contains(x),
        (posteriors(), DICS[:, :, 0]),
        False,
    ),
    "Encoder": lambda: Case(reading(encoder()), (trains(),)),
    "Operator.amplitudes": lambda: Case(
        lambda x, operator=operator(): operator.amplitudes(x), (MEASURED,)
    ),
    "Operator.start": lambda: Case(
        lambda V, a, operator=operator(): operator.start(V, a), (V + 0.013, AMPLITUDES)
    ),
}
