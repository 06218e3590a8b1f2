"""Cells that differ in numbers of the neuron, in the stimulus and in the start."""

from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import dicjax as dj
from dicjax.neurons.members import by_member, member_axes, member_shape, ranks, varying


HH = dj.hodgkin_huxley()
G = np.asarray(HH.default_g)
SIZES = np.array([0.8, 1.3])
STEP = dj.Step(10.0)


def with_capacitance(C):
    return eqx.tree_at(lambda n: n.capacitance, HH, jnp.asarray(C))


MANY = with_capacitance(SIZES)


class Table(dj.AbstractCurve):
    """A curve whose numbers are an array."""

    values: Float[Array, " points"]

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        del Ca
        return jnp.mean(self.values) * jnp.ones_like(V)


def test_numbers_of_a_neuron_are_scalars_unless_they_are_declared_otherwise():
    assert set(ranks(HH)) == {0} and not any(varying(HH))
    gate = dj.Gate(1, Table(jnp.ones(3)), dj.Constant(2.0))
    channel = dj.GatedChannel("K", (gate,), reversal=dj.Constant(-80.0))
    assert sorted(ranks(channel)) == [0, 0, 1]


def test_members_have_their_numbers_side_by_side():
    assert member_shape(HH) == () and member_shape(MANY) == (2,)
    wide = eqx.tree_at(lambda n: n.initial_V, MANY, jnp.full((3, 1), -64.0))
    assert member_shape(wide) == (3, 2)
    flat = by_member(wide, (3, 2))
    np.testing.assert_array_equal(flat.capacitance, np.tile(SIZES, 3))
    np.testing.assert_array_equal(flat.initial_V, np.full(6, -64.0))
    assert member_axes(flat).capacitance == 0 and member_axes(flat).V_ref is None
    unequal = eqx.tree_at(lambda n: n.initial_V, MANY, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\)"):
        member_shape(unequal)


@pytest.fixture(scope="module")
def each():
    return [dj.simulate(with_capacitance(C), G, 60.0, stimulus=STEP) for C in SIZES]


def assert_same(run, each):
    counts = [int(one.num_spikes) for one in each]
    assert run.num_spikes.tolist() == counts and len(set(counts)) > 1
    for times, one in zip(run.spike_times, each, strict=True):
        num = int(one.num_spikes)
        np.testing.assert_allclose(times[:num], one.spike_times[:num], rtol=1e-9)


def test_neurons_of_other_numbers_are_simulated_as_each_would_be(each):
    assert_same(dj.simulate(MANY, G, 60.0, stimulus=STEP), each)
    # Conductances of each cell, and another order of axes.
    g = np.tile(G, (2, 1))
    assert_same(dj.simulate(MANY, g, 60.0, stimulus=STEP), each)


def test_kinetics_are_numbers_too():
    gate: Any = lambda n: n.channels[0].gates[0].alpha
    one = lambda x: eqx.tree_at(gate, HH, dj.Scaled(gate(HH), jnp.asarray(x)))
    run = dj.simulate(one(SIZES), G, 60.0, stimulus=STEP)
    alone = [dj.simulate(one(x), G, 60.0, stimulus=STEP) for x in SIZES]
    times = [x.spike_times[0] for x in alone]
    np.testing.assert_allclose(run.spike_times[:, 0], times, rtol=1e-9)
    assert times[0] != times[1]


@pytest.mark.slow
def test_a_solver_of_diffrax_takes_them_as_well(each):
    run = dj.simulate(MANY, G, 60.0, stimulus=STEP, solver=dfx.Tsit5())
    for times, one in zip(run.spike_times, each, strict=True):
        np.testing.assert_allclose(times[0], one.spike_times[0], atol=0.05)


@pytest.mark.slow
def test_trajectories_of_many_neurons_are_those_that_vmap_gives():
    ts = np.arange(0.0, 20.0, 0.5)
    axes = member_axes(MANY)
    mapped = jax.vmap(lambda n: dj.solve(n, G, ts, stimulus=STEP).V, (axes,))(MANY)
    np.testing.assert_allclose(
        dj.solve(MANY, G, ts, stimulus=STEP).V, mapped, rtol=1e-9
    )


def test_conductances_stimuli_and_starts_are_broadcast():
    g = np.stack([G, 1.05 * G])[:, None]
    run = dj.simulate(HH, g, 40.0, stimulus=dj.Step(np.array([0.0, 9.0, 12.0])))
    assert run.num_spikes.shape == (2, 3)
    assert (np.diff(run.num_spikes, axis=1) >= 0).all()
    single = dj.simulate(HH, g[1, 0], 40.0, stimulus=dj.Step(12.0))
    np.testing.assert_array_equal(run.spike_times[1, 2][:2], single.spike_times[:2])
    starts = dj.simulate(HH, G, 10.0, V0=np.array([-70.0, -20.0]))
    assert starts.num_spikes.tolist() == [
        dj.simulate(HH, G, 10.0, V0=V0).num_spikes for V0 in (-70.0, -20.0)
    ]
    with pytest.raises(ValueError, match=r"\(2,\) for `g`.*\(3,\) for Step"):
        dj.simulate(HH, g[:, 0], 40.0, stimulus=dj.Step(np.ones(3)))
    with pytest.raises(ValueError, match=r"\(3,\) for `g`.*\(2,\) for hodgkin-huxley"):
        dj.simulate(MANY, np.ones((3, 3)), 40.0)


def test_a_time_step_is_short_enough_for_every_member():
    fast = dj.Gate(1, dj.Constant(0.5), dj.Constant(1.0))
    channels = (
        dj.GatedChannel("Na", (fast,), reversal=dj.Constant(50.0)),
        dj.GatedChannel("leak", reversal=dj.Constant(-50.0)),
    )
    scales = (dj.Constant(1.0), dj.Constant(2.0), None)
    neuron = dj.Neuron("fast", channels, scales, -50.0)
    tau = lambda n: n.channels[0].gates[0].time_constant.value
    neuron = eqx.tree_at(tau, neuron, jnp.array([1.0, 0.01]))
    with pytest.raises(ValueError, match="0.01 ms"):
        dj.simulate(neuron, np.ones(2), 10.0, dt=0.2)


def test_what_a_curve_of_ones_own_holds_is_shared():
    gate = dj.Gate(1, dj.Sigmoid(-40.0, -5.0), Table(jnp.array([1.0, 2.0, 3.0])))
    kd = dj.GatedChannel("Kd", (gate,), reversal=dj.Constant(-80.0))
    leak = dj.GatedChannel("leak", reversal=dj.Constant(-50.0))
    scales = dj.Constant(1.0), dj.Constant(2.0), None
    neuron = dj.Neuron("own", (kd, leak), scales, -50.0)
    run = dj.simulate(neuron, np.ones((2, 2)), 20.0, save_every=1.0)
    assert run.succeeded.shape == (2,) and run.succeeded.all()
    varied = eqx.tree_at(lambda n: n.capacitance, neuron, jnp.asarray(SIZES))
    V: Any = dj.simulate(varied, np.ones((2, 2)), 20.0, save_every=1.0).V
    alone = eqx.tree_at(lambda n: n.capacitance, neuron, jnp.asarray(1.3))
    expected: Any = dj.simulate(alone, np.ones(2), 20.0, save_every=1.0).V
    np.testing.assert_allclose(V[1], expected, rtol=1e-9)
