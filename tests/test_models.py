import functools
from typing import Any, cast

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from hypothesis import example, given, strategies as st
from jaxtyping import TypeCheckError

from dicjax.dics.conductances import (
    dics_of_one_cell,
    dynamic_input_conductances,
    normaliser,
    sensitivity,
    steady_state_slope,
    threshold,
)
from dicjax.dics.sampling import compensate, sample
from dicjax.neurons.models import MODELS, pospischil, stg_prinz
from dicjax.neurons.neuron import State
from dicjax.simulation.simulate import simulate
from dicjax.simulation.solvers import Membrane, StaggeredMidpoint
from dicjax.simulation.stimulus import Step
from dicjax.spikes.features import spike_features
from dicjax.spikes.patterns import BURSTING, TONIC


# The published equations once more, in plain numpy: currents per conductance, and
# derivatives of the gates. Nothing here comes from the package.


def linear(x, width):
    return x / (1 - np.exp(-x / width))


def sigmoid(V, A, B, C, D):
    return A + B / (1 + np.exp((V + D) / C))


def between(alpha, beta, x):
    return alpha * (1 - x) - beta * x


def squid(V, gates):
    m, h, n = gates
    I = m**3 * h * (V - 50), n**4 * (V + 77), V + 54.387
    return I, (
        between(0.1 * linear(V + 40, 10), 4 * np.exp(-(V + 65) / 18), m),
        between(0.07 * np.exp(-(V + 65) / 20), 1 / (1 + np.exp(-(V + 35) / 10)), h),
        between(0.01 * linear(V + 55, 10), 0.125 * np.exp(-(V + 65) / 80), n),
    )


def crab_walking_leg(V, gates):
    m, h, n, a, b = gates
    I = m**3 * h * (V - 55), n**4 * (V + 72), a**3 * b * (V + 75), V + 17
    top = 0.0761 * np.exp(0.0314 * (V + 94.22))
    a_inf = (top / (1 + np.exp(0.0346 * (V + 1.17)))) ** (1 / 3)
    b_inf = (1 / (1 + np.exp(0.0688 * (V + 53.3)))) ** 4
    return I, (
        between(0.38 * linear(V + 29.7, 10), 15.2 * np.exp(-0.0556 * (V + 54.7)), m),
        between(
            0.266 * np.exp(-0.05 * (V + 48)), 3.8 / (1 + np.exp(-0.1 * (V + 18))), h
        ),
        between(0.02 * linear(V + 45.7, 10), 0.25 * np.exp(-0.0125 * (V + 55.7)), n),
        (a_inf - a) / (0.3632 + 1.158 / (1 + np.exp(0.0497 * (V + 55.96)))),
        (b_inf - b) / (1.24 + 2.678 / (1 + np.exp(0.0624 * (V + 50)))),
    )


def cortex(V, gates, kind):
    V_T = {"rs": -56.2, "fs": -55.0, "ib": -56.2, "lts": -50.0}[kind]
    slowest = {"rs": 608.0, "fs": 502.0, "ib": 608.0, "lts": 4000.0}[kind]
    E_leak = {"rs": -70.3, "fs": -70.0, "ib": -70.0, "lts": -50.0}[kind]
    m, h, n, p, *rest = gates
    v = V - V_T
    tau_p = slowest / (3.3 * np.exp((V + 35) / 20) + np.exp(-(V + 35) / 20))
    dx = [
        between(0.32 * linear(v - 13, 4), 0.28 * linear(40 - v, 5), m),
        between(0.128 * np.exp((17 - v) / 18), 4 / (1 + np.exp((40 - v) / 5)), h),
        between(0.032 * linear(v - 15, 5), 0.5 * np.exp((10 - v) / 40), n),
        (1 / (1 + np.exp(-(V + 35) / 10)) - p) / tau_p,
    ]
    I = [m**3 * h * (V - 50), n**4 * (V + 90), p * (V + 90)]
    if kind == "ib":
        q, r = rest
        I.append(q**2 * r * (V - 120))
        beta_r = 0.0065 / (1 + np.exp(-(V + 15) / 28))
        dx += [
            between(0.055 * linear(V + 27, 3.8), 0.94 * np.exp(-(V + 75) / 17), q),
            between(4.57e-4 * np.exp(-(V + 13) / 50), beta_r, r),
        ]
    if kind == "lts":
        (u,), w = rest, V - 7
        s = 1 / (1 + np.exp(-(w + 57) / 6.2))
        I.append(s**2 * u * (V - 120))
        tau_u = 30.8 + (211.4 + np.exp((w + 113.2) / 5)) / (1 + np.exp((w + 84) / 3.2))
        dx.append((1 / (1 + np.exp((w + 81) / 4)) - u) / (tau_u / 3**1.2))
    return (*I, V - E_leak), dx


def tau_m_published(V):
    """Sodium's activation in the dopamine neuron, in its published, rounded form."""
    alpha = -(15.6504 + 0.4043 * V) / (np.exp(-19.565 - 0.5052 * V) - 1)
    return 0.01 + 1 / (alpha + 3.0212 * np.exp(-0.007463 * V))


def midbrain(V, gates):
    m, h, n, l, c, o, i = gates
    x = 0.5052 * (V + 38.70987)
    alpha = 0.4043 / 0.5052 * linear(x, 1)
    tau_m = 0.01 + 1 / (alpha + 3.0212 * np.exp(-0.007463 * V))
    rates = 5.0754e-4 * np.exp(-0.063213 * V) + 9.7529 * np.exp(0.13442 * V)
    a0, b0 = 0.0036 * np.exp(0.0759 * V), 1.2523e-5 * np.exp(-0.0671 * V)
    ai, bi = 0.1 * np.exp(0.1189 * V), 0.003 * np.exp(-0.0733 * V)
    I = (
        m**3 * h * (V - 60),
        n**3 * (V + 85),
        l**2 * (V - 60),
        c * (V - 60),
        o * (V + 85),
        V / (1 + 1.4 * np.exp(-0.08 * V) / 10),
        V + 50,
    )
    return I, (
        (sigmoid(V, 0, 1, -9.7264, 30.0907) - m) / tau_m,
        (sigmoid(V, 0, 1, 10.7665, 54.0289) - h) / (0.4 + 1 / rates),
        (sigmoid(V, 0, 1, -12, 25) - n) / sigmoid(V, 20, -18, -10, 38),
        (sigmoid(V, 0, 1, -2, 50) - l) / sigmoid(V, 30, -28, -3, 45),
        (sigmoid(V, 0, 1, -7, 30) - c) / sigmoid(V, 30, -25, -6, 55),
        a0 * (1 - o - i) + bi * i - o * (ai + b0),
        ai * o - bi * i,
    )


REFERENCES = {
    "da": midbrain,
    "hodgkin-huxley": squid,
    "connor-stevens": crab_walking_leg,
    **{
        f"pospischil-{kind}": lambda V, gates, kind=kind: cortex(V, gates, kind)
        for kind in ("rs", "fs", "ib", "lts")
    },
}
NEURONS = {name: make() for name, make in MODELS.items()}
PUBLISHED = {name: np.asarray(neuron.default_g) for name, neuron in NEURONS.items()}
NUM_GATES = {name: len(NEURONS[name].initial_state().gates) for name in REFERENCES}


def rest(name, V):
    """Gates at rest. They are affine in themselves but for ERG: Newton's method."""
    x = np.full(NUM_GATES[name], 0.3)
    rates = lambda x: np.array(REFERENCES[name](V, x)[1], float)
    columns = [rates(x + e) - rates(x) for e in np.eye(len(x))]
    return x - np.linalg.solve(np.transpose(columns), rates(x))


def static_current(name, V, g):
    return np.dot(g, REFERENCES[name](V, rest(name, V))[0])


def fire(name, g, applied, duration, V0=-65.0):
    """Spike times and the potential every 0.1 ms, by LSODA on the numpy equations."""

    def field(t, y):
        I, dx = REFERENCES[name](y[0], y[1:])
        return np.r_[applied(t) - np.dot(g, I), dx]

    y0 = np.r_[V0, rest(name, V0)]
    ts = np.arange(0, duration, 0.1)
    solution = scipy.integrate.solve_ivp(
        field, (0, duration), y0, "LSODA", ts, rtol=1e-7, atol=1e-9, max_step=5.0
    )
    V = solution.y[0]
    return ts[1:][(V[:-1] < 0) & (V[1:] >= 0)], V


def defaults(name):
    return np.asarray(MODELS[name]().default_g)


# Equations


@pytest.mark.parametrize("name", REFERENCES)
def test_the_vector_field_is_that_of_the_published_equations(name):
    neuron, rng, num = MODELS[name](), np.random.default_rng(0), 64
    V = rng.uniform(-95, 45, num)
    gates = rng.dirichlet(np.ones(NUM_GATES[name] + 1), num)[:, :-1]
    g = rng.uniform(0.5, 2, (num, len(neuron.channels)))
    one = lambda y, g: neuron.vector_field(jnp.asarray(0.0), y, g, jnp.asarray(1.5))
    y = State(
        V=jnp.asarray(V), gates=tuple(jnp.asarray(gates.T)), Ca=jnp.full(num, 0.05)
    )
    dy = jax.jit(jax.vmap(one))(y, jnp.asarray(g))
    for i in range(num):
        I, dx = REFERENCES[name](V[i], gates[i])
        np.testing.assert_allclose(dy.V[i], 1.5 - np.dot(g[i], I), rtol=1e-9)
        np.testing.assert_allclose([x[i] for x in dy.gates], dx, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_neurons_start_in_equilibrium_at_their_potential(name):
    y = MODELS[name]().initial_state()
    np.testing.assert_allclose(y.gates, rest(name, float(y.V)), rtol=1e-9, atol=1e-12)


def test_the_dopamine_neuron_departs_from_its_published_rounding_at_the_pole_only():
    tau = MODELS["da"]().timescales[0]
    mapped = jax.jit(jax.vmap(lambda V: tau(V, jnp.zeros(()))))
    ours = lambda V: np.asarray(mapped(V))
    assert tau_m_published(np.array([-38.7262])) < 0
    far = np.linspace(-100, 60, 200)
    far = far[np.abs(far + 38.727) > 0.2]
    np.testing.assert_allclose(ours(far), tau_m_published(far), rtol=0.018)
    near = ours(np.linspace(-38.74, -38.70, 4001))
    assert (near > 0).all() and np.ptp(near) < 0.01 * near.mean()


def test_calcium_of_the_prinz_neuron_feeds_back_on_its_own_reversal():
    neuron = stg_prinz()
    g = 0.5 * jnp.asarray(neuron.box)
    V, pool = jnp.asarray(-35.0), neuron.calcium
    assert pool is not None
    Ca = neuron.steady_calcium(V, g)
    balance = lambda Ca: neuron.calcium_rate(V, neuron.steady_gates(V, Ca), Ca, g)
    assert abs(float(balance(Ca))) < 1e-12 * float(Ca)
    explicit = pool.baseline + pool.time_constant * (
        balance(pool.baseline)
    )  # were the reversal that of calcium at rest
    assert float(explicit) > 1.1 * float(Ca)


# Dynamic input conductances


@pytest.mark.parametrize("name", MODELS)
@given(
    V=st.floats(-90, 30, width=32),
    scale=st.lists(st.floats(0.1, 4), min_size=8, max_size=8),
)
@example(V=-38.72724, scale=[1.0] * 8)
@example(V=-40.0, scale=[1.0] * 8)
def test_dynamic_input_conductances_sum_to_the_slope_of_the_steady_current(
    name, V, scale
):
    g = PUBLISHED[name] * scale[: len(PUBLISHED[name])]
    total, slope, scale = summed(NEURONS[name], g, V)
    assert float(total) == pytest.approx(float(slope / scale), rel=1e-8, abs=1e-8)


@jax.jit
def summed(neuron, g, V):
    dics = dics_of_one_cell(neuron, g, V)
    return dics.sum(), steady_state_slope(neuron, g, V), normaliser(neuron, g)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_steady_current_is_that_of_the_published_equations(name):
    g, h = defaults(name), 1e-4
    for V in (-80.3, -61.7, -50.2, -38.1, -12.4, 10.0):
        rise = static_current(name, V + h, g) - static_current(name, V - h, g)
        total, *_ = summed(NEURONS[name], g, V)
        expected = rise / (2 * h) / g[-1]  # the leak comes last
        assert float(total) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_erg_is_ultraslow_and_nmda_fast():
    neuron, V = MODELS["da"](), -55.5
    g = neuron.default_g
    erg, nmda = neuron.index("ERG", "NMDA")
    share = np.asarray(jax.jit(sensitivity)(neuron, g, V))
    fast, slow, ultraslow = share[:, erg]
    assert fast > 0 and slow == 0 and ultraslow > 0  # `fast`: driving force
    fast, slow, ultraslow = share[:, nmda]
    assert fast < 0 and slow == ultraslow == 0


def test_two_timescales_leave_nothing_ultraslow():
    for name in ("hodgkin-huxley", "connor-stevens"):
        neuron = MODELS[name]()
        dics = dynamic_input_conductances(neuron, neuron.default_g, -55.0)
        assert dics[2] == 0 and (dics[:2] != 0).all()


# Published conductances


@pytest.mark.parametrize("name", MODELS)
def test_published_conductances_come_in_the_order_of_the_channels(name):
    neuron = MODELS[name]()
    values = dict(neuron.defaults or ())
    assert list(neuron.default_g) == [values[c] for c in neuron.channel_names]


def test_every_model_is_known_by_its_own_name():
    assert {name: make().name for name, make in MODELS.items()} == {
        name: name for name in MODELS
    }
    with pytest.raises((ValueError, TypeCheckError), match="(?s)RS.*XX|XX.*RS"):
        pospischil(cast(Any, "XX"))


# What they do


def test_the_squid_axon_fires_at_68_hz_and_rests_without_current():
    g = defaults("hodgkin-huxley")
    spikes, V = fire("hodgkin-huxley", g, lambda t: 0.0, 200)
    assert len(spikes) == 0 and V[-1] == pytest.approx(-65, abs=0.1)
    spikes, _ = fire("hodgkin-huxley", g, lambda t: 10.0, 300)
    assert 1000 / np.diff(spikes)[-5:].mean() == pytest.approx(68.3, abs=0.3)
    # It starts firing at a high rate: type II.
    spikes, _ = fire("hodgkin-huxley", g, lambda t: 7.0, 300)
    assert 1000 / np.diff(spikes)[-3:].mean() > 50


def test_the_a_current_lets_a_neuron_fire_slowly():
    g = defaults("connor-stevens")
    slow, _ = fire("connor-stevens", g, lambda t: 8.2, 1200, V0=-68.0)
    assert 250 < np.diff(slow)[-1] < 400  # ms between spikes
    none, _ = fire("connor-stevens", g, lambda t: 8.0, 600, V0=-68.0)
    assert len(none) == 0
    without, _ = fire("connor-stevens", g * (1, 1, 0, 1), lambda t: 8.2, 300)
    assert np.diff(without).max() < 8


def test_regular_spiking_cells_adapt_and_fast_spiking_ones_do_not():
    isi = {
        kind: np.diff(
            fire(f"pospischil-{kind}", defaults(f"pospischil-{kind}"), applied, 600)[0]
        )
        for kind, applied in (("rs", lambda t: 2.0), ("fs", lambda t: 5.0))
    }
    assert isi["rs"][-1] > 1.7 * isi["rs"][0]
    assert len(isi["fs"]) > 15
    np.testing.assert_allclose(isi["fs"][2:], isi["fs"][-1], rtol=0.02)


def test_intrinsically_bursting_cells_begin_with_a_burst():
    spikes, _ = fire(
        "pospischil-ib", defaults("pospischil-ib"), lambda t: 0.5, 800, V0=-70.0
    )
    isi = np.diff(spikes)
    assert len(isi) > 6 and isi[-1] > 3 * isi[0]


def test_low_threshold_spiking_cells_rebound():
    g = defaults("pospischil-lts")
    pulse = lambda t: -0.8 if 300 < t < 800 else 0.0
    spikes, V = fire("pospischil-lts", g, pulse, 1200, V0=-54.0)
    assert V[7900] < -75
    assert len(spikes) >= 1 and 800 < spikes[0] < 1000
    rs, _ = fire("pospischil-rs", defaults("pospischil-rs"), pulse, 1200, V0=-70.0)
    assert len(rs) == 0


def test_the_dopamine_neuron_fires_slowly_and_regularly_by_itself():
    spikes, _ = fire("da", defaults("da"), lambda t: 0.0, 6000, V0=-90.0)
    isi = np.diff(spikes)[1:]
    assert len(isi) >= 4
    assert 0.5 < 1000 / isi.mean() < 2
    assert isi.std() < 0.02 * isi.mean()


@pytest.mark.parametrize(
    "name, applied",
    (
        ("hodgkin-huxley", 10.0),
        pytest.param("connor-stevens", 9.0, marks=pytest.mark.slow),
        ("da", 0.5),
    ),
)
def test_our_integrator_fires_when_lsoda_does(name, applied):
    neuron, duration, dt = MODELS[name](), 200.0, 0.005
    g, V0 = defaults(name), float(neuron.initial_V)
    expected, _ = fire(name, g, lambda t: applied, duration, V0)
    term = dfx.ODETerm(cast(Any, Membrane(neuron, lambda t: jnp.full_like(t, applied))))
    V = dfx.diffeqsolve(
        term,
        StaggeredMidpoint(),
        0.0,
        duration,
        dt,
        neuron.initial_state(),
        args=jnp.asarray(g),
        saveat=dfx.SaveAt(ts=jnp.arange(0, duration, 0.1), fn=lambda t, y, g: y.V),
        max_steps=100_000,
    ).ys
    V = np.asarray(V)
    ts = np.arange(0, duration, 0.1)
    spikes = ts[1:][(V[:-1] < 0) & (V[1:] >= 0)]
    assert len(expected) > 1
    np.testing.assert_allclose(spikes, expected, atol=0.21)


# Populations of the dopamine neuron


@functools.cache
def seeded(dtype):
    at_seed = np.array((0.5, 5.0))
    key, da = jax.random.key(0), MODELS["da"]()
    return compensate(key, da, at_seed, num=48, dtype=jnp.dtype(dtype))


@pytest.mark.parametrize(
    "dtype", (pytest.param("float32", marks=pytest.mark.slow), "float64")
)
@pytest.mark.parametrize(
    "target, solved",
    (
        ((-3.0, 5.0), ("ERG", "CaL")),
        ((0.5, 5.0), ("ERG", "Kd")),
        ((10.0, 10.0), ("ERG", "Kd")),
    ),
)
def test_dopamine_populations_hit_their_targets(target, solved, dtype):
    da, key = MODELS["da"](), jax.random.key(0)
    population = compensate(key, da, np.array(target), num=48, dtype=jnp.dtype(dtype))
    assert population.num_ok == 48
    g = jnp.asarray(population.g, jnp.float64)
    dics = np.asarray(dynamic_input_conductances(da, g, float(da.V_ref)))
    tolerance = 1e-6 if dtype == "float64" else 2e-3
    assert np.abs(dics[:, 1:] - target).max() < tolerance
    seed = seeded(dtype)
    changed = {
        name
        for name, a, b in zip(da.channel_names, population.g.T, seed.g.T, strict=True)
        if not np.allclose(a, b, rtol=1e-4)
    }
    assert changed == (set(solved) if target != (0.5, 5.0) else set())


def test_dopamine_populations_have_the_published_means_and_thresholds():
    da = MODELS["da"]()
    at_seed, parts = np.array((0.5, 5.0)), range(0, 512, 64)  # of one program
    key = jax.random.key(0)
    made = [compensate(key, da, at_seed, num=64, first=first) for first in parts]
    g = np.concatenate([part.g for part in made])
    mean = dict(zip(da.channel_names, g.mean(0), strict=True))
    for name, value in da.defaults or ():
        assert mean[name] == pytest.approx(value, rel=0.05)
    found = threshold(da, g)
    assert (np.asarray(found.status) == 0).all()
    assert np.abs(np.asarray(found.V) + 62.7).max() < 2
    assert (np.asarray(sample(jax.random.key(1), da, 8)) <= da.box).all()


# Populations of the intrinsically bursting cell


@pytest.mark.slow
def test_bursting_cortical_cells_are_compensated_through_kd_and_m_within_the_box():
    neuron, rng = pospischil("IB"), np.random.default_rng(0)
    low, high = np.transpose((neuron.required_recipe.g_s, neuron.required_recipe.g_u))
    targets = rng.uniform(low, high, (64, 2))
    population = compensate(jax.random.key(0), neuron, targets)
    assert population.num_ok == 64
    assert (population.g <= neuron.box).all()
    dics = dynamic_input_conductances(neuron, population.g, float(neuron.V_ref))
    np.testing.assert_allclose(dics[:, 1:], targets, atol=1e-6)


def test_bursting_cortical_cells_fire_in_both_patterns_under_their_current():
    neuron = pospischil("IB")
    recipe = neuron.required_recipe
    g = sample(jax.random.key(0), neuron, 96, dtype=jnp.dtype(jnp.float32))
    run = simulate(
        neuron,
        g,
        3000.0,
        discard=recipe.discard,
        dt=recipe.dt,
        stimulus=Step(recipe.current),
    )
    label = np.asarray(spike_features(run.spike_times).label)
    assert (label == BURSTING).mean() > 0.08
    assert (label == TONIC).mean() > 0.4
    assert np.median(np.asarray(run.num_spikes)[label > 0]) > 20  # in 1 s
