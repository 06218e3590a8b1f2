from typing import Any, cast

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import Constant, Gate
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import Neuron, State
from dicjax.simulation.integrator import next_step, relax_gates, relax_membrane
from dicjax.simulation.solvers import Membrane, StaggeredMidpoint


# Cells that come to rest or fire slowly: a few ms from their start are smooth.
CELLS = {
    "stg": jnp.array([4000.0, 110.0, 4.0, 10.0, 120.0, 200.0, 0.3, 0.01]),
    "stg-prinz": jnp.array([200.0, 75.0, 5.0, 6.0, 10.0, 30.0, 0.03, 0.02]),
}
DURATION = 4.0


def membrane(neuron, I_ext=None):
    return dfx.ODETerm(cast(Any, Membrane(neuron, I_ext)))


def applied(t):
    return 2 * jnp.sin(2 * t)


def constant(t):
    return jnp.full_like(t, 3.0)


@eqx.filter_jit
def solve(neuron, g, dt, span, I_ext, y0=None):
    return dfx.diffeqsolve(
        membrane(neuron, I_ext),
        StaggeredMidpoint(),
        span[0],
        span[1],
        dt,
        neuron.initial_state() if y0 is None else y0,
        args=g,
        max_steps=4096,
    ).ys


def exact(neuron, g):
    return dfx.diffeqsolve(
        membrane(neuron, applied),
        dfx.Dopri8(),
        0.0,
        DURATION,
        1e-3,
        neuron.initial_state(),
        args=g,
        stepsize_controller=dfx.PIDController(rtol=1e-12, atol=1e-13),
        max_steps=100_000,
    ).ys


def final_values(solution):
    return np.array([leaf[-1] for leaf in jax.tree.leaves(solution)])


def times(*ms):
    return tuple(map(jnp.asarray, ms))


@pytest.mark.parametrize(
    "name", [pytest.param("stg", marks=pytest.mark.slow), "stg-prinz"]
)
def test_errors_fall_with_the_square_of_the_step(name):
    neuron, g = MODELS[name](), CELLS[name]
    truth = final_values(exact(neuron, g))
    assert -90 < truth[0] < 0  # no spike: the problem is smooth
    assert abs(truth[0] - float(neuron.initial_V)) > 1  # but it is not at rest
    steps = np.array([0.1, 0.05, 0.025, 0.0125])
    args = times(0.0, DURATION), applied, neuron.initial_state()
    errors = np.array(
        [
            np.abs(final_values(solve(neuron, g, jnp.asarray(dt), *args)) - truth)
            for dt in steps
        ]
    )
    orders = [np.polyfit(np.log(steps), np.log(error), 1)[0] for error in errors.T]
    assert min(orders) >= 1.8
    assert errors[1, 0] < 0.02  # mV at the step that simulations take


@pytest.mark.parametrize("dt", (0.1, 2.0, 10.0))
def test_a_passive_membrane_follows_the_midpoint_rule(dt):
    na = GatedChannel("Na", (Gate(1, Constant(0.5), Constant(1.0)),), reversal=50.0)
    leak = GatedChannel("leak", reversal=-50.0)
    scales = (Constant(1.0), Constant(2.0), None)
    neuron = Neuron("passive", (na, leak), scales, -50.0, capacitance=2.0)
    I, g = 3.0, 0.2
    args = jnp.asarray(dt), times(0.0, 10.0), constant
    y = solve(neuron, jnp.array([0.0, g]), *args)
    target = -50 + I / g
    z = g * dt / 2  # per step, with a capacitance of 2
    expected = target + (-70 - target) * ((1 - z / 2) / (1 + z / 2)) ** round(10 / dt)
    assert float(final_values(y)[0]) == pytest.approx(expected, rel=1e-12)


def test_a_cell_at_rest_stays_at_rest_whatever_the_step():
    neuron = MODELS["hodgkin-huxley"]()
    g = neuron.default_g
    rest = solve(neuron, g, jnp.asarray(0.02), times(0.0, 80.0), None)
    rest, h = jax.tree.map(lambda x: x[-1], rest), jnp.asarray(3.0)
    after = relax_membrane(neuron, relax_gates(neuron, rest, h), g, h, None)
    for now, then in zip(*map(jax.tree.leaves, (after, rest)), strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-5, atol=1e-7)


@given(
    h=st.floats(1e-3, 1e4),
    V=st.floats(-150, 100),
    Ca=st.floats(0, 1000),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_gate_ever_moves_away_from_its_steady_state(h, V, Ca, seed):
    gates = np.random.default_rng(seed).uniform(0, 1, 11)
    before, after, steady = relaxed(*map(jnp.asarray, (h, V, Ca, gates)))
    off = np.abs(before - steady)
    assert (np.abs(after - steady) <= off + 1e-15).all()
    # Nor past it, in steps that resolve it.
    slow = np.asarray(h <= 2 * time_constants(V, Ca))
    same_side = (after - steady) * (before - steady) >= -1e-15
    assert (same_side | ~slow).all()


@jax.jit
def time_constants(V, Ca):
    return jnp.stack(MODELS["stg"]().time_constants(jnp.asarray(V), jnp.asarray(Ca)))


@given(
    dV=st.floats(-200, 200),
    h=st.floats(1e-3, 4.0),
    dt=st.floats(1e-3, 0.5),
    longest=st.floats(1e-3, 1.0),
)
def test_steps_stay_within_their_bounds(dV, h, dt, longest):
    step = float(jax.jit(next_step)(*map(jnp.asarray, (dV, h, dt, longest))))
    assert step <= max(min(8 * dt, longest), dt / 4) * (1 + 1e-12)
    assert step >= min(dt / 4, longest) * (1 - 1e-12)


@jax.jit
def relaxed(h, V, Ca, gates):
    neuron = MODELS["stg"]()
    y = State(V=V, gates=tuple(gates), Ca=Ca)
    after = jnp.stack(relax_gates(neuron, y, h).gates)
    return gates, after, jnp.stack(neuron.steady_gates(V, Ca))


def test_steps_taken_backwards_undo_those_taken_forwards():
    # A symmetric method is its own inverse, up to rounding.
    neuron, g = MODELS["stg-prinz"](), CELLS["stg-prinz"]
    y0, dt = neuron.initial_state(), jnp.asarray(0.05)
    middle = solve(neuron, g, dt, times(0.0, 1.0), applied, y0)
    middle = jax.tree.map(lambda x: x[-1], middle)
    back = solve(neuron, g, -dt, times(1.0, 0.0), applied, middle)
    assert abs(float(middle.V - y0.V)) > 1
    np.testing.assert_allclose(final_values(back)[0], y0.V, atol=1e-2)


def test_the_solver_declares_its_order():
    assert StaggeredMidpoint().order(membrane(MODELS["stg"]())) == 2
