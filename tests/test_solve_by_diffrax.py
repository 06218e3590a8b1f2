"""Trajectories by diffrax solvers: the same cells, and derivatives of every kind."""

import dataclasses
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dicjax as dj


HH = dj.hodgkin_huxley()
G = HH.default_g
TS = np.arange(1.0, 16.0)
STEP = dj.Step(10.0)


def one(**changes: Any) -> Any:
    how: dict[str, Any] = {"stimulus": STEP, "solver": dfx.Tsit5()} | changes
    return dj.solve(HH, how.pop("g", G), how.pop("ts", TS), **how)


@pytest.fixture(scope="module")
def trajectory():
    return one(tolerance=1e-8, states=True, currents=True)


def test_our_own_steps_come_near_the_finer_the_nearer(trajectory):
    errors = []
    for dt in (0.04, 0.02):
        own = one(solver=None, dt=dt, states=True, currents=True)
        assert own.num_spikes == trajectory.num_spikes == 1
        errors.append(np.abs(own.V - trajectory.V).max())
        pairs = ((own.gates, trajectory.gates), (own.currents, trajectory.currents))
        for mine, theirs in pairs:
            size = np.abs(theirs).max()
            np.testing.assert_allclose(mine, theirs, atol=2 * dt * size)
    assert errors[1] < 0.3 * errors[0] < 0.3
    # Samples are 0.05 ms apart.
    np.testing.assert_allclose(own.spike_times[0], trajectory.spike_times[0], atol=1e-3)
    assert trajectory.succeeded and not trajectory.fell_short


@pytest.mark.slow
def test_an_implicit_solver_and_fixed_steps_agree(trajectory):
    implicit = one(solver=dfx.Kvaerno5())
    np.testing.assert_allclose(implicit.V, trajectory.V, atol=0.05)
    fixed = one(solver=dfx.Heun(), tolerance=None, dt=0.01)
    assert fixed.num_steps == pytest.approx(TS[-1] / 0.01, abs=2)
    np.testing.assert_allclose(fixed.V, trajectory.V, atol=0.15)


# Shortly after its beginning, a spike is not confirmed yet.
@pytest.mark.parametrize("shift", (0.4, pytest.param(6.0, marks=pytest.mark.slow)))
def test_a_trajectory_in_two_parts_is_the_whole(trajectory, shift):
    cut = float(trajectory.spike_times[0]) + shift
    ts = np.sort(np.append(TS, cut))
    is_early = ts <= cut
    first = one(ts=ts[is_early], tolerance=1e-8)
    second = one(ts=ts[~is_early], tolerance=1e-8, start=first.final)
    V = np.concatenate((first.V, second.V))[ts != cut]
    np.testing.assert_allclose(V, trajectory.V, atol=1e-3)
    assert first.num_spikes + second.num_spikes == 1
    times = np.minimum(first.spike_times[0], second.spike_times[0])
    np.testing.assert_allclose(times, trajectory.spike_times[0], atol=0.01)


def test_our_own_steps_go_on_from_a_solver(trajectory):
    first = one(ts=TS[:6], tolerance=1e-8)
    second = one(ts=TS[6:], start=first.final, solver=None, dt=0.01)
    np.testing.assert_allclose(second.V, trajectory.V[6:], atol=0.05)
    with pytest.raises(ValueError, match="`start`"):
        one(ts=TS[6:], start=one(ts=TS[:6], solver=None).final)


@pytest.mark.slow
def test_late_times_keep_their_digits():
    g = jnp.asarray(G, jnp.float32)
    rest = one(g=g, stimulus=None, ts=np.array([20.0])).final
    early = one(g=g, ts=20 + TS, start=rest).V
    late = eqx.tree_at(
        lambda x: x.until.whole, rest, replace_fn=lambda x: x + 1_000_000
    )
    found = one(g=g, ts=1_000_020 + TS, start=late)
    assert found.V.dtype == jnp.float32 and found.succeeded
    np.testing.assert_allclose(found.V, early, atol=1e-3)


@pytest.mark.slow
def test_derivatives_of_every_kind_are_those_of_differences():
    def peak(x, adjoint=None):
        neuron = dj.hodgkin_huxley()
        found = dj.solve(
            neuron,
            x["g"],
            TS[:5],
            stimulus=dj.Step(x["amplitude"]),
            solver=dfx.Tsit5(),
            tolerance=1e-9,
            adjoint=adjoint,
            max_spikes=1,
        )
        return jnp.array([found.V[-1], found.spike_times[0]])

    at = {"g": jnp.asarray(G), "amplitude": jnp.asarray(10.0)}
    compiled = jax.jit(peak)
    reverse = jax.jacrev(peak)(at)
    forward = jax.jacfwd(lambda x: peak(x, dfx.ForwardMode()))(at)
    for name, x in at.items():
        step = 1e-5 * jnp.asarray(x)
        up, down = (compiled(at | {name: x + sign * step}) for sign in (1, -1))
        slope = (up - down) / 2
        for found in (reverse, forward):
            along = np.tensordot(found[name], step, axes=x.ndim)
            np.testing.assert_allclose(along, slope, rtol=1e-4)


@pytest.mark.slow
def test_cells_are_followed_side_by_side():
    g = np.stack([G, 1.1 * G])
    both = one(g=g, max_spikes=4)
    assert both.spike_times.shape == (2, 4)
    for i in range(2):
        alone = one(g=g[i], max_spikes=4)
        np.testing.assert_allclose(both.V[i], alone.V, atol=1e-3)


def test_too_few_steps_are_no_success():
    found = one(max_steps=50)
    assert not found.succeeded and np.isnan(found.V[-1])


@pytest.mark.parametrize("tolerance", (0.0, 1e-8, 2.0, np.nan))
def test_a_tolerance_that_single_precision_cannot_reach_is_refused(tolerance):
    g = np.asarray(G, np.float32)
    with pytest.raises(ValueError, match=f"`tolerance`.*float32.*{tolerance}"):
        one(g=g, tolerance=tolerance)
    with pytest.raises(ValueError, match=f"`tolerance`.*float32.*{tolerance}"):
        dj.simulate(HH, g, 10.0, solver=dfx.Tsit5(), tolerance=tolerance)


def test_a_neuron_without_gates_is_left_to_our_own_steps():
    leak = HH.channels[2]
    passive = dataclasses.replace(HH, channels=(leak,), defaults=None, name="passive")
    found: Any = dj.solve(passive, np.array([0.3]), TS, stimulus=STEP)
    end = -54.387 + 10 / 0.3
    exact = end + (-65.0 - end) * np.exp(-0.3 * TS)
    np.testing.assert_allclose(found.V, exact, atol=0.01)
    with pytest.raises(ValueError, match="passive has no gates"):
        dj.solve(passive, np.array([0.3]), TS, solver=dfx.Tsit5())


def test_traced_times_are_refused():
    with pytest.raises(TypeError, match="`ts`"):
        jax.jit(lambda ts: one(ts=ts, max_steps=1000).V)(TS)
