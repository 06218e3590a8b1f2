from typing import Any, cast

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from test_neuron import BOXES, random_cells

from dicjax.channels import GatedChannel
from dicjax.gating import Constant, Gate
from dicjax.models import MODELS
from dicjax.neuron import Neuron, State
from dicjax.solvers import Membrane, relax_gates, StaggeredExponential


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


@eqx.filter_jit
def solve(neuron, g, dt, duration, I_ext):
    return dfx.diffeqsolve(
        membrane(neuron, I_ext),
        StaggeredExponential(),
        jnp.zeros_like(duration),
        duration,
        dt,
        neuron.initial_state(),
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


@pytest.mark.parametrize("name", MODELS)
def test_errors_fall_with_the_square_of_the_step(name):
    neuron, g = MODELS[name](), CELLS[name]
    truth = final_values(exact(neuron, g))
    assert -90 < truth[0] < 0  # no spike: the problem is smooth
    assert abs(truth[0] - float(neuron.initial_V)) > 1  # but it is not at rest
    steps = np.array([0.1, 0.05, 0.025, 0.0125])
    args = jnp.asarray(DURATION), applied
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
def test_a_passive_membrane_is_solved_exactly_by_any_step(dt):
    na = GatedChannel("Na", (Gate(1, Constant(0.5), Constant(1.0)),), reversal=50.0)
    leak = GatedChannel("leak", reversal=-50.0)
    scales = (Constant(1.0), Constant(2.0), None)
    neuron = Neuron("passive", (na, leak), scales, -50.0, capacitance=2.0)
    I, g = 3.0, 0.2
    constant = lambda t: jnp.full_like(t, I)
    args = jnp.asarray(dt), jnp.asarray(10.0), constant
    y = solve(neuron, jnp.array([0.0, g]), *args)
    target = -50 + I / g
    expected = target + (-70 - target) * np.exp(-g * 10 / 2)
    assert float(final_values(y)[0]) == pytest.approx(expected, rel=1e-12)


@given(
    h=st.floats(1e-3, 1e4),
    V=st.floats(-150, 100),
    Ca=st.floats(0, 1000),
    seed=st.integers(0, 2**32 - 1),
)
def test_gates_relax_towards_their_steady_state_and_never_past_it(h, V, Ca, seed):
    gates = np.random.default_rng(seed).uniform(0, 1, 11)
    before, after, steady = relaxed(*map(jnp.asarray, (h, V, Ca, gates)))
    assert ((after >= 0) & (after <= 1)).all()
    low, high = np.minimum(before, steady), np.maximum(before, steady)
    assert ((after >= low - 1e-15) & (after <= high + 1e-15)).all()


@jax.jit
def relaxed(h, V, Ca, gates):
    neuron = MODELS["stg"]()
    y = State(V=V, gates=tuple(gates), Ca=Ca)
    after = jnp.stack(relax_gates(neuron, y, h).gates)
    return gates, after, jnp.stack(neuron.steady_gates(V, Ca))


@pytest.mark.parametrize("dt", (0.5, 5.0))
@pytest.mark.parametrize("name", MODELS)
def test_large_steps_stay_finite_with_gates_between_zero_and_one(name, dt):
    neuron = MODELS[name]()
    cells = np.concatenate((random_cells(name, 7), BOXES[name][None]))

    @eqx.filter_jit
    def all_cells(g, dt):
        term = membrane(neuron)
        solver, rest = StaggeredExponential(), (g, None, False)

        def step(y, i):
            y, *_ = solver.step(term, i * dt, (i + 1) * dt, y, *rest)
            return y, y

        return jax.lax.scan(step, neuron.initial_state(), jnp.arange(40.0))[1]

    y = jax.vmap(all_cells, (0, None))(jnp.asarray(cells), jnp.asarray(dt))
    gates = np.stack(y.gates)
    assert ((gates >= 0) & (gates <= 1)).all()
    assert np.isfinite(y.V).all() and np.isfinite(y.Ca).all()
    assert (np.abs(y.V) < 200).all()


def test_steps_taken_backwards_undo_those_taken_forwards():
    # A symmetric method is its own inverse, up to rounding.
    neuron, g = MODELS["stg"](), CELLS["stg"]
    y0 = neuron.initial_state()
    run = lambda y, t0, t1: (
        dfx.diffeqsolve(
            membrane(neuron, applied),
            StaggeredExponential(),
            t0,
            t1,
            0.05 if t1 > t0 else -0.05,
            y,
            args=g,
        ).ys
    )
    middle = jax.tree.map(lambda x: x[-1], run(y0, 0.0, 1.0))
    back = run(middle, 1.0, 0.0)
    assert abs(float(middle.V - y0.V)) > 1
    np.testing.assert_allclose(final_values(back)[0], y0.V, atol=1e-2)


def test_the_solver_declares_its_order():
    assert StaggeredExponential().order(membrane(MODELS["stg"]())) == 2
