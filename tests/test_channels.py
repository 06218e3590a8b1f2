import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, strategies as st
from jax.extend.core import jaxprs_in_params

from dicjax.dics.conductances import dynamic_input_conductances
from dicjax.neurons.channels import GatedChannel, MarkovChannel, Transition
from dicjax.neurons.curves import (
    CalciumSaturation,
    Constant,
    Exponential,
    Gate,
    GoldmanHodgkinKatz,
    MagnesiumBlock,
    RateGate,
    Relaxation,
    Sigmoid,
)
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import Calcium, Neuron


ZERO = jnp.asarray(0.0)
NAMES = "abcdef"


def random_scheme(seed, num, decades=2.0):
    """Rates between every two of `num` states, some of them missing, as a matrix."""
    rng = np.random.default_rng(seed)
    rates = 10 ** rng.uniform(-decades, decades, (num, num))
    missing = rng.random((num, num)) < 0.4
    ring = np.roll(np.eye(num, dtype=bool), 1, axis=1)
    rates[(missing & ~ring) | np.eye(num, dtype=bool)] = 0
    return rates


def scheme(rates):
    """The channel, and the generator `Q` of `x' = Q x`."""
    num = len(rates)
    transitions = tuple(
        Transition(NAMES[i], NAMES[j], Constant(rates[i, j]))
        for i in range(num)
        for j in range(num)
        if rates[i, j] > 0
    )
    channel = MarkovChannel(
        "X", tuple(NAMES[:num]), transitions, ("b",), 10.0, reversal=-85.0
    )
    return channel, rates.T - np.diag(rates.sum(axis=1))


def scalars(x):
    return tuple(jnp.asarray(x))


def with_first(states):
    states = np.asarray(states)
    return np.r_[1 - states.sum(), states]


seeds, sizes = st.integers(0, 2**31), st.integers(2, 6)


# Kinetic schemes


@given(seed=seeds, num=sizes)
def test_a_scheme_in_equilibrium_does_not_move(seed, num):
    channel, Q = scheme(random_scheme(seed, num))
    x = with_first(channel.steady_states((ZERO,), ZERO))
    assert (x >= -1e-15).all()
    null = scipy.linalg.null_space(Q, rcond=1e-12)[:, 0]
    np.testing.assert_allclose(x, null / null.sum(), rtol=1e-8, atol=1e-14)
    dx = channel.derivatives(ZERO, scalars(x[1:]), ZERO)
    assert np.abs(dx).max() < 1e-12 * np.abs(Q).max()


@given(seed=seeds, num=sizes)
def test_occupancies_move_along_the_transitions(seed, num):
    channel, Q = scheme(random_scheme(seed, num))
    x = np.random.default_rng(seed).dirichlet(np.ones(num))
    dx = channel.derivatives(ZERO, scalars(x[1:]), ZERO)
    np.testing.assert_allclose(dx, (Q @ x)[1:], rtol=1e-9, atol=1e-12 * np.abs(Q).max())


def relaxed(channel, x, h):
    states = channel.relax(ZERO, scalars(x[1:]), ZERO, jnp.asarray(h))
    return with_first(states)


@pytest.mark.parametrize("num", (2, 3, 4, 6))
def test_schemes_relax_to_second_order(num):
    channel, Q = scheme(random_scheme(num, num, decades=0.5))
    x0 = np.random.default_rng(num).dirichlet(np.ones(num))
    steps = 0.1 / np.abs(Q).max() / 2.0 ** np.arange(5)
    errors = [
        np.abs(relaxed(channel, x0, h) - scipy.linalg.expm(h * Q) @ x0).max()
        for h in steps
    ]
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(3, abs=0.15)  # of one step: one more than of many


@given(seed=seeds, num=sizes, log_h=st.floats(-4, 6))
def test_no_step_is_too_long_for_a_scheme(seed, num, log_h):
    channel, Q = scheme(random_scheme(seed, num))
    rng = np.random.default_rng(seed)
    x = rng.dirichlet(np.ones(num))
    h = 10**log_h / np.abs(Q).max()
    after = relaxed(channel, x, h)
    # The approximant itself, with all states and pivots.
    M = np.eye(num) - h * Q + h * h * Q @ Q / 2
    np.testing.assert_allclose(after, np.linalg.solve(M, x), atol=1e-6)
    assert np.abs(after).max() < 2
    if h * np.sort(np.abs(np.linalg.eigvals(Q)))[1] > 1e5:
        steady = with_first(channel.steady_states((ZERO,), ZERO))
        np.testing.assert_allclose(after, steady, atol=1e-4)


@pytest.mark.parametrize("h", (0.01, 0.05, 0.2, 0.4))
def test_steps_of_simulations_leave_erg_between_zero_and_one(h):
    erg = MODELS["da"]().channels[4]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.dirichlet(np.ones(3), 2000).T)
    V = jnp.asarray(rng.uniform(-90, 50, 2000))
    step = lambda V, o, i: erg.relax(V, (o, i), ZERO, jnp.asarray(h))
    o, i = jax.vmap(step)(V, x[1], x[2])
    least = min(float(o.min()), float(i.min()), float((1 - o - i).min()))
    assert least > (-1e-12 if h <= 0.05 else -0.06)


def test_two_states_are_a_gate():
    alpha, beta = Exponential(-40.0, 10.0, 0.3), Exponential(-50.0, -15.0, 0.1)
    gate = GatedChannel("X", (RateGate(1, alpha, beta),), reversal=-85.0)
    transitions = Transition("shut", "open", alpha), Transition("open", "shut", beta)
    scheme = MarkovChannel(
        "X",
        ("shut", "open"),
        transitions,
        ("open",),
        Relaxation(alpha, beta),
        reversal=-85.0,
    )
    V, x = jnp.asarray(-52.0), (jnp.asarray(0.3),)
    for ask in (
        lambda c: c.steady_states((V,), ZERO),
        lambda c: c.derivatives(V, x, ZERO),
        lambda c: c.time_constants(V, ZERO),
        lambda c: (c.current(V, x, ZERO),),
    ):
        np.testing.assert_allclose(ask(scheme), ask(gate), rtol=1e-12)
    leak = GatedChannel("leak", reversal=-50.0)
    scales = Constant(0.5), Constant(5.0), Constant(50.0)
    g, V = jnp.array([2.0, 0.1]), jnp.linspace(-80.0, 20.0, 21)
    dics = lambda channel: dynamic_input_conductances(
        Neuron("x", (channel, leak), scales, -50.0), jnp.tile(g, (21, 1)), V
    )
    np.testing.assert_allclose(dics(scheme), dics(gate), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_steps_are_made_of_scalars_only(name):
    # An array in the inner loop would not vectorise over cells.
    neuron = MODELS[name]()
    y = neuron.initial_state()

    def step(y, h, g):
        states = neuron.relax(y.V, y.gates, y.Ca, h)
        return neuron.total_current(y.V, states, y.Ca, g)

    g = (jnp.asarray(1.0),) * len(neuron.channels)
    shapes = []

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            shapes.extend(v.aval.shape for v in equation.outvars)
            for sub in jaxprs_in_params(equation.params):
                visit(sub)

    visit(jax.make_jaxpr(step)(y, jnp.asarray(0.05), g).jaxpr)
    assert set(shapes) == {()}
    assert len(shapes) < 400


# What opens, blocks or drives at once


def test_a_factor_multiplies_the_current_and_counts_as_fast():
    block = MagnesiumBlock(1.4, 10.0, 12.5)
    nmda = GatedChannel("NMDA", factor=block, reversal=0.0)
    leak = GatedChannel("leak", reversal=-50.0)
    V = jnp.asarray(-40.0)
    assert nmda.num_states == 0
    assert nmda.current(V, (), ZERO) == V * block(V, ZERO)
    neuron = Neuron(
        "x", (nmda, leak), (Constant(0.5), Constant(5.0), Constant(50.0)), -50.0
    )
    g = jnp.array([0.3, 0.1])
    fast, slow, ultraslow = dynamic_input_conductances(neuron, g, V)
    slope = jax.grad(lambda V: V * block(V, ZERO))(V)
    assert float(fast) == pytest.approx(float(0.3 * slope / 0.1 + 1), rel=1e-12)
    assert slow == ultraslow == 0


def test_a_factor_of_calcium_counts_with_the_time_constant_of_calcium():
    cat = GatedChannel(
        "CaT", (Gate(1, Sigmoid(-40.0, -7.0), Constant(0.5)),), reversal=80.0
    )
    sk = GatedChannel("SK", factor=CalciumSaturation(3.0), reversal=-80.0)
    leak = GatedChannel("leak", reversal=-50.0)
    pool = lambda tau: Calcium(("CaT",), influx=1.0, baseline=0.05, time_constant=tau)
    scales = Constant(0.5), Constant(5.0), Constant(50.0)
    channels, g = (cat, sk, leak), jnp.array([1.0, 2.0, 0.1])
    at = lambda tau: np.asarray(
        dynamic_input_conductances(
            Neuron("x", channels, scales, -50.0, calcium=pool(tau)), g, -45.0
        )
    )
    quick, middle, lazy = at(0.5), at(5.0), at(50.0)
    np.testing.assert_allclose([quick.sum(), middle.sum()], lazy.sum(), rtol=1e-10)
    np.testing.assert_allclose(quick[1:], 0, atol=1e-9)
    assert quick[0] > lazy[0] and middle[1] > 1 and lazy[2] > 1
    assert middle[2] == pytest.approx(0, abs=1e-9) == lazy[1]


def test_a_driving_force_takes_the_place_of_the_reversal():
    force = GoldmanHodgkinKatz(outside=2000.0, temperature=309.0)
    gate = Gate(2, Constant(0.5), Constant(1.0))
    channel = GatedChannel("CaL", (gate,), driving_force=force)
    V, Ca, x = jnp.asarray(-20.0), jnp.asarray(0.1), jnp.asarray(0.4)
    assert float(channel.current(V, (x,), Ca)) == pytest.approx(
        0.16 * float(force(V, Ca)), rel=1e-14
    )


# Declarations


SHUT = Transition("shut", "open", Constant(1.0))
BACK = Transition("open", "shut", Constant(1.0))


@pytest.mark.parametrize(
    "states, transitions, open_states, message",
    (
        (("open",), (), ("open",), "two or more states"),
        (("shut", "shut"), (), ("shut",), "different names"),
        (("shut", "open"), (SHUT, BACK), ("ajar",), "no state 'ajar'"),
        (("shut", "open"), (SHUT, BACK), (), "a state in which it is open"),
        (("shut", "open"), (SHUT,), ("open",), "cannot pass from open to shut"),
        (
            ("shut", "open", "blocked"),
            (SHUT, BACK),
            ("open",),
            "cannot pass from shut to blocked",
        ),
    ),
)
def test_a_scheme_that_cannot_settle_is_refused(
    states, transitions, open_states, message
):
    with pytest.raises(ValueError, match=message):
        MarkovChannel("X", states, transitions, open_states, 1.0, reversal=0.0)


def test_a_transition_leads_elsewhere():
    with pytest.raises(ValueError, match="must leave its state 'open'"):
        Transition("open", "open", Constant(1.0))


@pytest.mark.parametrize(
    "options", ({}, {"reversal": -50.0, "driving_force": Constant(1.0)})
)
def test_a_channel_is_driven_in_one_way(options):
    with pytest.raises(ValueError, match="Na must have either a reversal.*or a driv"):
        GatedChannel("Na", **options)
