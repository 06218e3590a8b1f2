"""Trajectories as pure functions: what they hold, and what JAX makes of them."""

import dataclasses
from typing import Any, cast

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dicjax as dj
from dicjax.simulation.stimulus import as_stimulus


HH = dj.hodgkin_huxley()
G = HH.default_g
TS = np.arange(0.5, 30.0, 0.5)
STEP = dj.Step(10.0)


def one(**changes: Any) -> Any:
    how: dict[str, Any] = {"stimulus": STEP} | changes
    return dj.solve(HH, how.pop("g", G), how.pop("ts", TS), **how)


@pytest.fixture(scope="module")
def trajectory():
    return one(states=True, currents=True)


# What a trajectory holds


def test_spikes_and_potentials_are_those_of_simulate(trajectory):
    how: Any = {"save_every": 0.5}
    run = cast(Any, dj.simulate(HH, G, 30.0, stimulus=STEP, **how))
    assert trajectory.num_spikes == run.num_spikes > 1
    np.testing.assert_allclose(
        trajectory.spike_times[: run.num_spikes],
        run.spike_times[: run.num_spikes],
        atol=1e-6,
    )
    np.testing.assert_allclose(trajectory.V, run.V[:-1], atol=0.1)
    assert trajectory.succeeded & ~trajectory.overflowed


def test_currents_and_the_slope_of_the_potential_are_in_balance():
    ts = np.arange(0.02, 30.0, 0.02)
    fine = one(ts=ts, dt=0.01, currents=True)
    slope = np.gradient(fine.V, ts)[1:-1]
    left = slope + np.asarray(fine.currents).sum(axis=1)[1:-1] - 10.0
    assert np.abs(left).max() < 0.02 * np.abs(slope).max()


def test_gates_and_calcium_follow_their_equations():
    stg, g = dj.stg(), np.array([450.0, 5, 5, 120, 100, 150, 0.1, 0.01])
    ts = np.arange(1.0, 60.0)
    found = cast(Any, dj.solve(stg, g, ts, dt=0.01, states=True))
    reference: Any = dfx.diffeqsolve(
        dfx.ODETerm(cast(Any, dj.Membrane(stg))),
        dfx.Tsit5(),
        0.0,
        60.0,
        0.01,
        stg.initial_state(),
        args=jnp.asarray(g),
        stepsize_controller=dfx.PIDController(rtol=1e-8, atol=1e-10),
        saveat=dfx.SaveAt(ts=jnp.asarray(ts)),
        max_steps=100_000,
    ).ys
    assert np.abs(found.V - reference.V).max() < 0.05
    gates = np.stack(reference.gates, axis=1)
    assert np.abs(found.gates - gates).max() < 2e-3
    np.testing.assert_allclose(found.Ca, reference.Ca, rtol=2e-3)


def test_fixed_steps_are_as_many_as_fit():
    fixed = one(is_adaptive=False)
    assert TS[-1] / 0.05 <= int(fixed.num_steps) < TS[-1] / 0.05 + 17


def test_errors_fall_with_the_square_of_the_step():
    fine = one(dt=0.0025, is_adaptive=False).V[-1]
    errors = [abs(one(dt=dt, is_adaptive=False).V[-1] - fine) for dt in (0.04, 0.02)]
    assert 3 < errors[0] / errors[1] < 5.5


# Going on


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(7, marks=pytest.mark.slow),
        20,
        pytest.param(33, marks=pytest.mark.slow),
    ],
)
def test_a_trajectory_in_two_parts_is_the_whole(trajectory, cut):
    first = one(ts=TS[:cut])
    second = one(ts=TS[cut:], start=first.final)
    np.testing.assert_allclose(first.V, trajectory.V[:cut], rtol=1e-12)
    np.testing.assert_allclose(second.V, trajectory.V[cut:], rtol=1e-12)
    times = np.concatenate((first.spike_times, second.spike_times))
    whole = np.asarray(trajectory.spike_times)
    finite = lambda x: x[np.isfinite(x)]
    np.testing.assert_allclose(finite(times), finite(whole), rtol=1e-12)


def test_a_state_is_where_a_cell_starts(trajectory):
    i = 15
    start = dj.State(
        V=trajectory.V[i], gates=tuple(trajectory.gates[i]), Ca=trajectory.Ca[i]
    )
    later = one(ts=TS[i + 1 : i + 9] - TS[i], start=start)
    np.testing.assert_allclose(later.V, trajectory.V[i + 1 : i + 9], atol=0.5)


# Transformations


def fires(x):
    """Numbers of a cell that fires, from everything that can be changed about it."""
    neuron = dataclasses.replace(HH, capacitance=x["capacitance"])
    gates = cast(Any, HH.channels[0]).gates
    stretched = dj.Scaled(gates[0].alpha, x["slowness"])
    neuron = eqx.tree_at(lambda n: n.channels[0].gates[0].alpha, neuron, stretched)
    found = dj.solve(
        neuron,
        x["g"],
        TS[:40],
        stimulus=dj.Step(x["amplitude"], start=x["onset"]),
        start=neuron.initial_state(x["V0"]),
        max_spikes=2,
    )
    return jnp.array([jnp.mean(found.V**2), found.spike_times[0]])


AT = {
    "g": G,
    "amplitude": jnp.asarray(10.0),
    "onset": jnp.asarray(3.03),
    "V0": jnp.asarray(-64.0),
    "capacitance": jnp.asarray(1.0),
    "slowness": jnp.asarray(1.0),
}


def test_derivatives_of_both_modes_are_those_of_differences():
    compiled = jax.jit(fires)
    forward, reverse = jax.jit(jax.jacfwd(fires))(AT), jax.jit(jax.jacrev(fires))(AT)
    for name, x in AT.items():
        step = jnp.asarray(1e-6 * (1 + np.abs(x)))
        up, down = (compiled(AT | {name: x + sign * step}) for sign in (1, -1))
        along = lambda of, name=name, step=step: np.sum(
            (np.asarray(of[name]) * np.asarray(step)).reshape(2, -1), axis=1
        )
        expected = (up - down) / 2
        np.testing.assert_allclose(along(forward), expected, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(along(reverse), along(forward), rtol=1e-8)


@pytest.mark.slow
def test_vectorising_cells_and_neurons_changes_nothing(trajectory):
    cells = jnp.outer(jnp.array([1.0, 1.1, 0.9]), G)
    together = one(g=cells).V
    np.testing.assert_allclose(together[0], trajectory.V, rtol=1e-9)
    mapped = jax.vmap(lambda g: one(g=g).V)(cells)
    np.testing.assert_allclose(mapped, together, rtol=1e-9)
    warmer = dataclasses.replace(HH, capacitance=jnp.array([1.0, 1.3, 0.7]))
    axes = jax.tree.map(lambda x: 0 if x.ndim else None, warmer)
    of_neuron = lambda neuron, g: dj.solve(neuron, g, TS, stimulus=STEP).V
    mapped = jax.vmap(of_neuron, (axes, 0))(warmer, cells)
    np.testing.assert_allclose(mapped[0], trajectory.V, rtol=1e-9)
    alone = of_neuron(dataclasses.replace(HH, capacitance=0.7), cells[2])
    np.testing.assert_allclose(mapped[2], alone, rtol=1e-9)


def test_single_precision_stays_single_at_late_times():
    g = G.astype(jnp.float32)
    first = one(g=g, ts=np.array([2000.0]))
    late = one(g=g, ts=2000 + TS, start=first.final)
    assert late.V.dtype == late.spike_times.dtype == jnp.float32
    whole = dj.simulate(HH, np.asarray(g), 2030.0, discard=2000.0, stimulus=STEP)
    num = int(whole.num_spikes)
    assert late.num_spikes == num > 0
    times = np.asarray(late.spike_times[:num])
    np.testing.assert_allclose(times, whole.spike_times[:num], atol=2e-3)


# Currents of one's own


class Spring(eqx.Module):
    stiffness: jax.Array

    def __call__(self, t, y):
        return self.stiffness * (-60.0 - y.V)


@pytest.mark.slow
def test_a_function_of_the_state_is_a_current():
    springs = [
        dj.InjectedConductance(dj.Step(0.4), -60.0),
        lambda t, y: 0.4 * (-60.0 - y.V),
        Spring(jnp.asarray(0.4)),
    ]
    V = [one(stimulus=spring).V for spring in springs]
    np.testing.assert_allclose(V[1], V[0], rtol=1e-9)
    np.testing.assert_allclose(V[2], V[0], rtol=1e-9)
    # A channel that is always open is the same.
    leak = dj.GatedChannel("shunt", reversal=dj.Constant(-60.0))
    shunted = dataclasses.replace(HH, channels=(*HH.channels, leak), defaults=None)
    own = dj.solve(shunted, jnp.append(G, 0.4), TS)
    np.testing.assert_allclose(own.V, V[0], rtol=1e-9)
    how: Any = {"stimulus": springs[0], "save_every": 0.1}
    clamped = cast(Any, dj.simulate(HH, G, 30.0, **how))
    np.testing.assert_allclose(clamped.V[4::5][:-1], V[0], atol=0.1)


def test_currents_add_up_whether_or_not_they_depend_on_the_state():
    both = STEP + dj.InjectedConductance(dj.Step(0.4), -60.0)
    function = lambda t, y: 10.0 + 0.4 * (-60.0 - y.V)
    np.testing.assert_allclose(
        one(stimulus=both).V, one(stimulus=function).V, rtol=1e-9
    )


# What does not work is said


def test_what_is_not_known_is_nan_and_not_a_success():
    short = one(max_steps=128)
    assert not short.succeeded
    known = np.isfinite(short.V)
    assert known[0] & ~known[-1]
    assert np.all(np.diff(known.astype(int)) <= 0)
    full = one(max_spikes=1)
    assert full.overflowed & (full.num_spikes > 1)


def test_there_is_room_for_the_steps_of_the_fastest_cells():
    cell = dj.pospischil("FS")
    fast = dj.solve(cell, cell.default_g, np.array([50.0]), stimulus=dj.Step(60.0))
    assert fast.num_spikes > 15 and fast.succeeded


def test_times_that_fall_under_jit_are_no_success():
    compiled = jax.jit(lambda ts: one(ts=ts, max_steps=2000).succeeded)
    ts = jnp.asarray(TS)
    assert compiled(ts) & ~compiled(ts[::-1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"g": G[:2]}, "last axis of 3"),
        ({"ts": TS[:0]}, "at least one time"),
        ({"ts": TS[::-1]}, "must rise, but 29 ms follows 29.5 ms"),
        ({"ts": np.array([-1.0, 2.0])}, "from 0 on"),
        ({"dt": 1.0}, "between 0 and 0.5"),
        ({"max_steps": 0}, "`max_steps` must be at least 1"),
        ({"stimulus": dj.Waveform(np.zeros(3), 1.0)}, "lasts 2 ms"),
        ({"start": dj.State(jnp.asarray(-60.0), (), jnp.asarray(0.0))}, "0 gates"),
        ({"start": HH.initial_state(jnp.asarray(500.0))}, "`V0`"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        one(**changes)


def test_what_is_no_stimulus_is_refused():
    with pytest.raises(TypeError, match=r"got 3\.0"):
        as_stimulus(3.0)


def test_traced_times_need_room_for_steps():
    with pytest.raises(TypeError, match="max_steps"):
        jax.jit(lambda ts: one(ts=ts).V)(jnp.asarray(TS))
