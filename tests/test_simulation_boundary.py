"""What `simulate` refuses, where cells start, and curves of a user's own."""

from typing import cast

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import resistor, STG, twelve_cells
from jaxtyping import Array, Float

import dicjax as dj
from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import AbstractCurve, Constant, Gate, Sigmoid
from dicjax.neurons.neuron import Neuron
from dicjax.simulation.lanes import CompiledNeuron
from dicjax.simulation.simulate import simulate
from dicjax.simulation.stimulus import Step, Waveform


@pytest.fixture(scope="module")
def g():
    return twelve_cells()


@pytest.mark.parametrize(
    "value, message",
    ((-1.0, r"Kd is -1.0 mS/cm² in cell \(3,\).*1 such"), (np.nan, r"Kd is nan")),
)
def test_bad_conductances_are_named_by_channel_and_cell(g, value, message):
    bad = g.copy()
    bad[3, 1] = value
    with pytest.raises(ValueError, match=message):
        simulate(STG, bad, 100.0)


@pytest.mark.parametrize(
    "options, message",
    (
        ({"duration": 0.0}, "`duration`.* 0.0"),
        ({"duration": np.inf}, "`duration`"),
        ({"discard": 100.0}, "`discard`.*100.0"),
        ({"discard": -1.0}, "`discard`.*-1.0"),
        ({"dt": 0.0}, "`dt`.*0.0"),
        ({"dt": 1.0}, "`dt`.* 1.0"),
        ({"save_every": 0.0}, "`save_every`.*0.0"),
        ({"save_every": 200.0}, "`save_every`.*200.0"),
        ({"max_spikes": 0}, "`max_spikes`.*0"),
        ({"stimulus": Waveform(np.zeros(100), 0.5)}, "49.5 ms.* 100 ms"),
        ({"stimulus": Step(np.ones(3))}, r"\(12,\) for `g`.*\(3,\) for Step"),
    ),
)
def test_times_that_make_no_sense_are_refused(g, options, message):
    with pytest.raises(ValueError, match=message):
        simulate(STG, g, **{"duration": 100.0, **options})


def test_conductances_of_another_model_or_of_no_cell_are_refused(g):
    with pytest.raises(ValueError, match=r"`g`.*'KCa'.*\(12, 7\)"):
        simulate(STG, g[:, :7], 100.0)
    with pytest.raises(ValueError, match=r"`g`.*\(0, 8\)"):
        simulate(STG, g[:0], 100.0)


def test_tracing_is_refused_with_what_to_do_instead(g):
    with pytest.raises(TypeError, match="`g`.*`vmap`"):
        jax.vmap(lambda g: simulate(STG, g, 10.0).num_spikes)(jnp.asarray(g))


class Polynomial(AbstractCurve):
    """A curve of a user's own, whose constants are an array."""

    coefficients: Float[Array, " degree"]

    def __call__(self, V: Float[Array, ""], Ca: Float[Array, ""]) -> Float[Array, ""]:
        del Ca
        return jnp.polyval(self.coefficients.astype(V.dtype), V / 100)


def test_a_curve_of_a_users_own_may_hold_an_array():
    tau = Polynomial(jnp.array([1.0, 0.0, 2.0]))
    gate = Gate(1, Sigmoid(-40.0, -5.0), tau)
    kd = GatedChannel("Kd", (gate,), reversal=-80.0)
    leak = GatedChannel("leak", reversal=-50.0)
    scales = Constant(1.0), Constant(2.0), None
    neuron = Neuron("own", (kd, leak), scales, -50.0)
    assert simulate(neuron, np.ones((3, 2)), 20.0).succeeded.all()
    assert not CompiledNeuron(neuron).is_scalar and CompiledNeuron(STG).is_scalar


def test_a_step_too_long_for_the_model_is_refused():
    fast = Neuron(
        "fast",
        (
            GatedChannel(
                "Na", (Gate(1, Constant(0.5), Constant(0.01)),), reversal=50.0
            ),
            GatedChannel("leak", reversal=-50.0),
        ),
        (Constant(1.0), Constant(2.0), None),
        -50.0,
    )
    with pytest.raises(ValueError, match="`dt`.* fast.* 0.01 ms.* 0.08"):
        simulate(fast, np.ones(2), 10.0, dt=0.2)
    assert simulate(fast, np.ones(2), 10.0, dt=0.08).succeeded


def test_cells_start_where_they_are_told_to():
    # Without a current a passive cell falls back from wherever it starts.
    V0 = np.array([-90.0, -60.0, -30.0])
    cell = resistor("passive")
    run = simulate(cell, np.full((3, 1), 0.1), 40.0, V0=V0, save_every=0.1, dt=0.01)
    assert run.V is not None and run.ts is not None
    expected = V0[:, None] * np.exp(-0.1 * run.ts)
    np.testing.assert_allclose(run.V, expected, rtol=1e-4)


@pytest.mark.slow
def test_solvers_of_diffrax_start_where_they_are_told_to(g):
    V0 = np.linspace(-90.0, -40.0, len(g))
    run = lambda **how: cast(
        np.ndarray, simulate(STG, g, 5.0, V0=V0, save_every=0.1, **how).V
    )
    np.testing.assert_allclose(run(dt=0.005), run(solver=dfx.Tsit5()), atol=0.3)


def test_a_start_that_is_no_potential_is_refused(g):
    with pytest.raises(ValueError, match="`V0`.* nan"):
        simulate(STG, g, 20.0, V0=np.nan)
    with pytest.raises(ValueError, match="`Ca0`.* -1.0"):
        simulate(STG, g, 20.0, Ca0=-1.0)


def test_a_cell_in_equilibrium_stays_there():
    # Everything cancels, calcium with it, so nothing moves.
    g = jnp.asarray([0.0, 0.0, 0.3, 0.3, 10.0, 0.0, 0.01, 0.1])
    V = jnp.linspace(-80, -40, 4001)
    Ca = jax.vmap(STG.steady_calcium, (0, None))(V, g)
    current = lambda V, Ca: STG.total_current(V, STG.steady_gates(V, Ca), Ca, g)
    rest = int(jnp.argmax(jax.vmap(current)(V, Ca) > 0))
    run = lambda **how: cast(
        np.ndarray,
        simulate(STG, g[None], 200.0, V0=float(V[rest]), save_every=0.1, **how).V,
    )
    assert np.abs(run(Ca0=float(Ca[rest])) - float(V[rest])).max() < 0.05
    assert np.abs(run(Ca0=20.0) - float(V[rest])).max() > 0.05


def test_results_show_what_happened_and_what_they_hold():
    times = np.full((2, 30), np.inf)
    times[0, :3] = 5.0, 6.0, 99.0
    lost = np.array([True, False])
    run = dj.Run(times, np.array([31, 0]), ~lost, lost, lost)
    first, *fields = repr(run).splitlines()
    assert first == "Run: 2 cells, 31 spikes, 1 failed, spikes missing in 1"
    assert fields[0].strip() == "spike_times: float64[2, 30], 5 to 99"
    assert fields[1].strip() == "num_spikes: [31, 0]"
    fine = dj.Run(times[0], np.array(3), *map(np.array, (True, False, False)))
    assert repr(fine).startswith("Run: 1 cell, 3 spikes, all succeeded")
    without_values = jax.eval_shape(lambda: fine)
    assert repr(without_values).startswith("Run\n")
    neuron = dj.hodgkin_huxley()
    way = dj.solve(neuron, neuron.default_g, np.linspace(0.0, 5.0, 3))
    assert "Trajectory: 1 cell, 0 spikes, all succeeded" in repr(way)
    assert "ts: [0. , 2.5, 5. ]" in repr(way)
    assert "final: SavedState: at 5 ms" in repr(way)
