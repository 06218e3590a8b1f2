import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array

import dicjax as dj
from dicjax.neurons.channels import GatedChannel, MarkovChannel, Transition
from dicjax.neurons.curves import Exponential
from dicjax.operator.characteristics import (
    from_coordinates,
    NAMES,
    resting_potentials,
    to_coordinates,
)
from dicjax.operator.config import OperatorConfig
from dicjax.operator.families import Family, find_family
from dicjax.operator.model import (
    HIGHEST,
    LOWEST,
    NUM_NODES,
    Operator,
    REMEMBERED,
    SPACING,
    untrained,
    WIDEST,
)
from dicjax.operator.prediction import feature_ranges, respond


FAMILY = find_family("cortical")
NEURON = FAMILY.neuron
SMALL = OperatorConfig(width=16, num_layers=2)
RANGES = {
    "rest": (-76, -70),
    "resistance": (10, 40),
    "sag": (0.01, 0.2),
    "threshold": (0.5, 2),
    "gain": (5, 40),
    "high_gain": (8, 30),
    "adaptation": (0.01, 0.08),
    "latency": (5, 40),
    "height": (80, 95),
    "width": (2, 4),
    "depth": (-85, -60),
    "rebound": (0.5, 5),
}
CELLS = FAMILY.sample(jr.key(0), 3).astype(float)
DURATION = 240  # ms
LENGTHS = (2, REMEMBERED - 1, REMEMBERED, 2 * REMEMBERED + 1)


class _Known(eqx.Module):
    """A branch that has the conductances of some members by heart."""

    x: Array
    log_g: Array

    def __call__(self, x: Array) -> Array:
        away = jnp.sum((self.x - x[None]) ** 2, axis=1)
        return self.log_g[jnp.argmin(away)]


def _as(dtype, tree):
    return jax.tree.map(
        lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree
    )


@pytest.fixture(scope="module")
def operator() -> Operator:
    """One that has learned nothing, of cells with features drawn from `RANGES`."""
    low, high = np.array([RANGES[name] for name in NAMES], float).T
    values = np.random.default_rng(0).uniform(low, high, (40, len(NAMES)))
    x = np.asarray(to_coordinates(values), np.float32)
    return untrained(jr.key(1), SMALL, FAMILY, NAMES, x, FAMILY.sample(jr.key(2), 40))


@pytest.fixture(scope="module")
def features(operator):
    values = np.array(from_coordinates(operator.library[:3], NAMES))
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def rest():
    return np.asarray(resting_potentials(FAMILY, CELLS))


def _knowing(family, g, rest, step=0.1) -> Operator:
    """An operator that knows these cells by their numbers, in double precision."""
    x, config = _numbered(rest), dataclasses.replace(SMALL, step=step)
    operator = untrained(jr.key(0), config, family, ("rest", "sag"), x, g)
    known = _Known(jnp.asarray(x), jnp.log(jnp.asarray(g)))
    return eqx.tree_at(lambda o: o.branch, _as(jnp.float64, operator), known)


def _numbered(rest):
    """Features by which cells are told: a number is one like others."""
    return np.stack([rest, np.arange(float(len(rest)))], axis=1)


@pytest.fixture(scope="module")
def exact(rest):
    return _knowing(FAMILY, CELLS, rest)


@pytest.fixture(scope="module")
def known(rest):
    return _numbered(rest)


@pytest.fixture(scope="module")
def noisy():
    """Steps and noise that make all of `CELLS` fire, constant within every ms."""
    rng = np.random.default_rng(0)
    steps = np.repeat(rng.uniform(-0.5, 3, DURATION // 30), 30)
    noise = rng.normal(0, 0.4, (3, DURATION))
    return steps * np.array([[0.7], [1.0], [2.0]]) + noise


def _waveform(per_ms):
    """The same current for the simulator, whose samples are joined by lines."""
    every = 0.0125
    num = round(1 / every)
    values = np.repeat(per_ms, num, axis=1)
    values = np.concatenate([values, values[:, -1:]], axis=1)
    # Half-way on the edge, the integral is the same.
    edges = np.arange(num, values.shape[1] - 1, num)
    values[:, edges] = (values[:, edges] + values[:, edges - 1]) / 2
    return dj.Waveform(values, every)


@pytest.fixture(scope="module")
def simulated(noisy, rest):
    """What `CELLS` do, by the simulator, at every ms."""
    run = dj.simulate(
        NEURON,
        CELLS,
        float(DURATION),
        dt=0.0125,
        stimulus=_waveform(noisy),
        V0=rest,
        save="traces",
        save_every=1.0,
    )
    assert run.V is not None and np.all(run.num_spikes >= 3)
    return np.concatenate([rest[:, None], run.V], axis=1)[:, :DURATION]


def _rms(x):
    return np.sqrt(np.mean(np.square(np.asarray(x)), axis=-1))


# What it computes


@pytest.fixture(scope="module")
def by_step(rest, known, noisy):
    """What an operator that knows `CELLS` answers, by its step in ms."""
    steps = (0.05, 0.025, 0.0125, 0.003125)
    answer = lambda step: np.asarray(
        respond(_knowing(FAMILY, CELLS, rest, step), noisy, known, every=1.0).V
    )
    return {step: answer(step) for step in steps}


def test_an_operator_that_knows_cells_answers_as_they_do(by_step, simulated):
    coarse, middle, fine = (
        _rms(by_step[step] - simulated) for step in (0.05, 0.025, 0.0125)
    )
    # Of traces with several spikes of 90 mV: their times are right to some µs.
    assert np.all(fine < 0.1)
    assert np.all(middle < coarse / 3) and np.all(fine < middle)


def test_errors_go_with_the_square_of_the_step(by_step):
    errors = [_rms(by_step[step] - by_step[0.003125]) for step in (0.05, 0.025, 0.0125)]
    for coarse, fine in itertools.pairwise(errors):
        assert np.all((coarse / fine > 3.4) & (coarse / fine < 5))


def test_an_operator_of_cells_with_calcium_follows_it():
    stg = dj.stg()
    around = {name: (0.8 * x, 1.25 * x) for name, x in stg.defaults or ()}
    family = Family("crab", stg, around, hold=-1.0)
    g = family.sample(jr.key(0), 3).astype(float)
    rest = resting_potentials(family, g)
    Ca = np.asarray(jax.vmap(stg.steady_calcium)(jnp.asarray(rest), jnp.asarray(g)))
    steps = np.random.default_rng(0).uniform(-3, 12, (3, 10))
    per_ms = np.repeat(steps, DURATION // 10, axis=1)
    run = dj.simulate(
        stg,
        g,
        float(DURATION),
        dt=0.0125,
        stimulus=dj.Step(family.hold) + _waveform(per_ms),
        V0=rest,
        Ca0=Ca,
        save="traces",
        save_every=1.0,
    )
    assert run.V is not None and np.all(run.num_spikes >= 10)
    truth = np.concatenate([rest[:, None], run.V], axis=1)[:, :DURATION]
    exact = _knowing(family, g, rest, 0.0125)
    answer = respond(exact, per_ms, _numbered(rest), every=1.0)
    assert np.all(_rms(answer.V - truth) < 3)
    assert np.all(answer.memory.Ca > 50 * Ca)  # spikes let it in
    start = exact.start(jnp.asarray(rest), jnp.asarray(g))
    np.testing.assert_allclose(start.Ca, Ca, rtol=1e-4)


def test_silence_keeps_cells_at_rest(exact, known, rest):
    V = np.asarray(respond(exact, np.zeros(1000), known, every=0.5).V)
    assert np.abs(V - rest[:, None]).max() < 0.2
    single, silence = _as(jnp.float32, exact), np.zeros(1000, np.float32)
    V = np.asarray(respond(single, silence, known.astype(np.float32), every=0.5).V)
    assert np.abs(V - rest[:, None]).max() < 0.2


def test_a_small_current_deflects_by_ohms_law(exact, known, rest):
    # Until slow gates follow: leak, and what is open at rest.
    I, capacitance = -0.05, float(NEURON.capacitance)
    V = np.asarray(respond(exact, np.full(20, I), known, every=0.1).V)
    np.testing.assert_allclose(
        V[:, 1] - V[:, 0], I * 0.1 / capacitance, rtol=0.05, atol=1e-4
    )


def test_answers_do_not_depend_on_how_the_current_is_sampled(rest, known):
    exact = _knowing(FAMILY, CELLS, rest, 0.05)
    per_ms = np.random.default_rng(1).normal(1.5, 1.5, 120)
    expected = np.asarray(respond(exact, per_ms, known, every=1.0).V)
    assert expected.max() > 0
    for every, num in ((0.5, 2), (0.1, 10), (0.05, 20)):
        V = respond(exact, np.repeat(per_ms, num), known, every=every).V
        np.testing.assert_allclose(V[:, ::num], expected, atol=1e-6)
    # Samples that the step does not divide are answered in shorter steps.
    V = respond(exact, np.repeat(per_ms, 8), known, every=0.125).V
    assert np.all(_rms(V[:, ::8] - expected) < 1)
    # So are samples that are shorter.
    coarse = _knowing(FAMILY, CELLS, rest, 0.1)
    V = respond(coarse, np.repeat(per_ms, 20), known, every=0.05).V
    np.testing.assert_allclose(V[:, ::20], expected, atol=1e-6)


def test_the_past_does_not_depend_on_the_future(exact, known, noisy):
    before = np.asarray(respond(exact, noisy, known, every=0.5).V)
    for n in (0, 63, 64, 100, DURATION - 2):
        other = noisy.copy()
        other[:, n:] += 5.0
        after = np.asarray(respond(exact, other, known, every=0.5).V)
        np.testing.assert_array_equal(after[:, : n + 1], before[:, : n + 1])
        assert np.all(after[:, n + 1] > before[:, n + 1])


@pytest.mark.parametrize("n", LENGTHS)
def test_a_response_continues_from_its_memory(exact, known, noisy, n):
    whole = respond(exact, noisy, known, every=0.5)
    first = respond(exact, noisy[:, :n], known, every=0.5)
    second = respond(exact, noisy[:, n:], known, every=0.5, memory=first.memory)
    V = np.concatenate([first.V, second.V], axis=1)
    np.testing.assert_allclose(V, whole.V, atol=1e-7)
    np.testing.assert_array_equal(second.V[:, 0], first.memory.V)
    for ours, theirs in zip(
        jax.tree.leaves(second.memory), jax.tree.leaves(whole.memory), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize("num", LENGTHS)
def test_currents_may_have_any_length(exact, known, noisy, num):
    expected = respond(exact, noisy, known, every=0.5).V[:, :num]
    V = respond(exact, noisy[:, :num], known, every=0.5).V
    assert V.shape == (3, num)
    np.testing.assert_allclose(V, expected, atol=1e-7)


def test_neurons_answer_alike_alone_and_among_others(exact, known, noisy):
    together = respond(exact, noisy, known, every=0.5)
    for i in range(3):
        alone = respond(exact, noisy[i], known[i], every=0.5)
        assert alone.V.shape == (DURATION,) and alone.memory.V.shape == ()
        np.testing.assert_allclose(alone.V, together.V[i], atol=1e-7)


def test_leading_axes_of_currents_and_features_are_broadcast(exact, known, noisy):
    both = respond(exact, noisy[:2], known[:, None], every=0.5)
    assert both.V.shape == (3, 2, DURATION) and both.memory.V.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            alone = respond(exact, noisy[j], known[i], every=0.5)
            np.testing.assert_allclose(both.V[i, j], alone.V, atol=1e-7)
    going_on = respond(exact, noisy[:2], known[:, None], every=0.5, memory=both.memory)
    np.testing.assert_array_equal(going_on.V[..., 0], both.memory.V)


def test_strong_currents_leave_potentials_finite(exact, known):
    for strength in (-20.0, 20.0, 100.0):
        I = np.where(np.arange(400) < 200, strength, 0)
        V = np.asarray(respond(exact, I, known, every=0.5).V)
        assert np.isfinite(V).all()


# How it is used


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("other", (np.float32, np.float64))
def test_an_operator_answers_in_its_own_precision(operator, features, dtype, other):
    current = np.linspace(0, 1, 80)
    expected = respond(operator, current.astype(np.float32), features, every=0.25)
    found = respond(operator, current.astype(dtype), features.astype(other), every=0.25)
    assert found.V.dtype == found.memory.units.dtype == jnp.float32
    np.testing.assert_allclose(found.V, expected.V, atol=1e-3)
    double = _as(jnp.float64, operator)
    found = respond(double, current.astype(dtype), features.astype(other), every=0.25)
    assert found.V.dtype == jnp.float64
    np.testing.assert_allclose(found.V, expected.V, atol=0.02)


def test_the_time_between_samples_may_be_any_number(operator, features):
    current = np.ones(70, np.float32)
    expected = respond(operator, current, features, every=0.5).V
    ts = np.arange(70) / 2
    V = respond(operator, current, features, every=ts[1] - ts[0]).V
    np.testing.assert_array_equal(V, expected)


def test_responses_are_the_same_within_transformations(operator, features):
    current = jnp.linspace(0, 1, 80, dtype=jnp.float32)
    features = jnp.asarray(features)
    answer = lambda current, features: (
        respond(operator, current, features, every=0.25).V
    )
    expected = answer(current, features)
    for V in (
        jax.jit(answer)(current, features),
        jax.vmap(answer, (None, 0))(current, features),
        jax.jit(jax.vmap(answer))(jnp.tile(current, (3, 1)), features),
    ):
        np.testing.assert_allclose(V, expected, atol=1e-3)


def test_gradients_are_those_of_finite_differences(operator, features):
    # Below threshold, over more samples than are remembered.
    operator = _as(jnp.float64, operator)
    features = jnp.asarray(features[0], jnp.float64)
    num = 2 * REMEMBERED + 5
    current = 0.3 + 0.2 * jnp.sin(jnp.linspace(0, 20, num))

    def last(current, features):
        return respond(operator, current, features, every=0.5).V[-1]

    assert float(last(current, features)) < -50
    compiled = jax.jit(last)
    by_current, by_features = jax.jit(jax.grad(last, (0, 1)))(current, features)
    for i in (0, 1, REMEMBERED, num - 2):
        h = 1e-6
        up, down = (compiled(current.at[i].add(x), features) for x in (h, -h))
        np.testing.assert_allclose(by_current[i], (up - down) / (2 * h), rtol=1e-3)
    assert by_current[-1] == 0  # which the last potential does not know yet
    for i in range(len(features)):
        h = 1e-6 * abs(features[i])
        up, down = (compiled(current, features.at[i].add(x)) for x in (h, -h))
        slope = (up - down) / (2 * h)
        np.testing.assert_allclose(by_features[i], slope, rtol=1e-3, atol=1e-6)
        assert by_features[i] != 0


def _changed(features, name, value):
    features = np.array(features)
    features[1, NAMES.index(name)] = value
    return features


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(current=np.r_[1.0, np.nan, 1.0]), r"sample \(1,\) is not \(1 such"),
        (dict(current=np.r_[1.0, np.inf]), "`current` must be finite"),
        (dict(current=np.ones(1)), "at least two samples"),
        (dict(every=0.0), "above 0 and at most 1, got 0.0"),
        (dict(every=-0.1), "above 0 and at most 1, got -0.1"),
        (dict(every=5.0), "got 5.0: sample the current more finely"),
        (dict(every=np.nan), "got nan"),
        (dict(features=np.ones((3, 4))), r"last axis of 12, rest, .* shape \(3, 4\)"),
        (dict(rest=np.nan), "rest of neuron 1 is nan: draw it from what is"),
        (dict(width=np.inf), "width of neuron 1 is inf"),
        (dict(rest=-7.0), "rest of neuron 1 is -7, but the operator 'cortical' knows"),
        (dict(threshold=200.0), "threshold of neuron 1 is 200, .*check units"),
        (dict(gain=-5.0), "gain of neuron 1 is -5"),
    ],
)
def test_what_makes_no_sense_is_refused(operator, features, change, message):
    asked = {"current": np.ones(3, np.float32), "features": features, "every": 0.5}
    for name, value in change.items():
        if name in NAMES:
            asked["features"] = _changed(features, name, value)
        else:
            asked[name] = value
    as_single = lambda x: np.asarray(x, np.float32)
    current, features = map(as_single, (asked["current"], asked["features"]))
    with pytest.raises(ValueError, match=message):
        respond(operator, current, features, every=asked["every"])


def test_memory_of_other_neurons_is_refused(operator, features):
    current = np.ones(3, np.float32)
    memory = respond(operator, current, features[:2], every=0.5).memory
    with pytest.raises(ValueError, match=r"cells of shape \(2,\), but .* of \(3,\)"):
        respond(operator, current, features, every=0.5, memory=memory)


def test_features_of_the_library_and_a_little_beyond_are_known(operator):
    low, high = feature_ranges(operator)
    library = np.asarray(from_coordinates(operator.library, NAMES))
    assert np.all((low < library.min(axis=0)) & (high > library.max(axis=0)))
    current = np.ones(3, np.float32)
    for edge in (low, high):
        inside = (0.999 * edge + 0.001 * library.mean(axis=0)).astype(np.float32)
        assert np.isfinite(respond(operator, current, inside, every=0.5).V).all()


# What it is made of


def test_features_that_differ_are_embedded_differently(operator):
    embed = operator.branch.embed
    x = operator.library[:20]
    embedded = np.asarray(jax.vmap(embed)(x))
    assert embedded.shape == (20, len(NAMES) * (1 + 2 * SMALL.num_frequencies))
    away = np.abs(embedded[:, None] - embedded[None]).max(axis=-1)
    assert np.all(away[~np.eye(20, dtype=bool)] > 0.1)
    # A hundredth of what it varies by, of every feature.
    for i in range(len(NAMES)):
        near = x[0].at[i].add(0.01 * operator.branch.spread[i])
        assert np.abs(np.asarray(embed(near)) - embedded[0]).max() > 1e-3
    far = x[0] + 1e3 * operator.branch.spread
    assert np.isfinite(embed(far)).all()


def test_the_embedding_is_scaled_in_frequency_and_amplitude(operator):
    branch = operator.branch
    x = branch.center + 0.6 * branch.spread  # at 0.3
    p, *waves = np.asarray(branch.embed(x)).reshape(-1, len(NAMES))
    np.testing.assert_allclose(p, 0.3, rtol=1e-4)
    for k in range(SMALL.num_frequencies):
        phase = np.pi / 2 * 2**k * 0.3
        np.testing.assert_allclose(waves[2 * k], np.sin(phase), rtol=1e-3)
        np.testing.assert_allclose(waves[2 * k + 1], 0.3 * np.cos(phase), rtol=1e-3)


def test_amplitudes_stay_within_reach_of_the_family(operator):
    far = operator.library + 50.0
    where = lambda o: o.branch.last.weight
    wild = eqx.tree_at(where, operator, replace_fn=lambda w: 1e4 * w)
    center = np.asarray(operator.branch.amplitude_center)
    spread = np.asarray(operator.branch.amplitude_spread)
    z = (np.log(np.asarray(wild.amplitudes(far))) - center) / spread
    assert WIDEST - 0.1 < np.abs(z).max() <= WIDEST + 1e-3


def test_curves_are_the_kinetics_of_the_family(exact):
    table = np.asarray(exact.curves.table())
    assert table.shape == (1, NUM_NODES - 1, 2 * (2 * 8 + 7))
    values, gains = np.split(table[0], 2, axis=1)
    none = jnp.zeros(())
    for V in (-90.0, -70.1, -55.7, -20.0, 30.3):
        at = (V - LOWEST) / SPACING
        i = int(at)
        found = values[i] + (at - i) * gains[i]
        gates = np.stack(NEURON.steady_gates(jnp.asarray(V), none))
        tau = np.stack(NEURON.time_constants(jnp.asarray(V), none))
        opened = (jnp.ones(()),) * 8
        drive = np.stack(NEURON.unit_currents(jnp.asarray(V), opened, none))
        np.testing.assert_allclose(found[:8], gates, rtol=1e-3, atol=2e-6)
        np.testing.assert_allclose(found[8:16], 1 / tau, rtol=1e-3)
        np.testing.assert_allclose(found[16:], drive, rtol=1e-3, atol=1e-4)
    assert LOWEST + (NUM_NODES - 1) * SPACING == HIGHEST


def test_a_correction_of_all_rates_is_a_change_of_temperature(operator):
    warm = Family("warm", NEURON.at(32.0), FAMILY.ranges)
    x = np.asarray(operator.library)[: len(CELLS)]
    other = untrained(jr.key(1), SMALL, warm, NAMES, x, CELLS)
    faster = np.zeros(operator.curves.correction.shape, np.float32)
    faster[:, 8:16] = np.log(3.0)  # the Q10
    corrected = dataclasses.replace(operator.curves, correction=faster)
    found, expected = (
        np.split(curves.table(), 2, axis=-1)[0] for curves in (corrected, other.curves)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_an_operator_starts_with_units_in_equilibrium(exact, rest):
    a = jnp.asarray(CELLS)[:, None]
    memory = exact.start(jnp.asarray(rest)[:, None], a)
    assert memory.V.shape == (3, 1) and memory.units.shape == (3, 1, 8)
    for i, V in enumerate(rest):
        gates = np.stack(NEURON.steady_gates(jnp.asarray(V), jnp.zeros(())))
        np.testing.assert_allclose(memory.units[i, 0], gates, rtol=1e-3, atol=2e-6)


def test_a_family_with_a_kinetic_scheme_is_refused():
    opening, closing = Exponential(0.1, -50.0, 10.0), Exponential(0.1, -50.0, -10.0)
    passages = (Transition("C", "O", opening), Transition("O", "C", closing))
    scheme = MarkovChannel("K", ("C", "O"), passages, ("O",), 5.0, reversal=-85.0)
    leak = GatedChannel("leak", reversal=-70.0)
    neuron = dataclasses.replace(NEURON, channels=(scheme, leak), defaults=None)
    family = Family("odd", neuron, {"K": (1.0, 2.0), "leak": (0.1, 0.2)})
    with pytest.raises(ValueError, match="have gates; K of odd has a kinetic scheme"):
        untrained(jr.key(0), SMALL, family, ("rest",), np.ones((2, 1)), np.ones((2, 2)))
