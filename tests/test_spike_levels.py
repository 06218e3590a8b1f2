"""What a spike is belongs to the neuron: its levels, and cells that fall short of them.

Butera, Rinzel and Smith (1999), Models of respiratory rhythm generation in the
pre-Bötzinger complex, I, J. Neurophysiol. 82, 382-397: spikes of model 1 stay below
10 mV. Its conductances are divided by its capacitance of 21 pF here.
"""

import dataclasses

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from cells import spikes_of, STG, twelve_cells

import dicjax as dj
from dicjax.inference.dataset_store import neuron_hash
from dicjax.populations.rhythm_gradient import cycles, ObservedRhythm
from dicjax.simulation import in_a_row
from dicjax.spikes import V_REARM, V_SPIKE


LOW = {"V_spike": -20.0, "V_rearm": -30.0}
HH = dj.hodgkin_huxley()
G_HH = np.asarray(HH.default_g)
E_LEAK = -57.5  # mV
START = -50.0  # mV
G_BUTERA = np.array([28.0, 2.8, 11.2, 2.8]) / 21  # Na, NaP, K, leak


def with_levels(neuron, V_spike, V_rearm):
    return dataclasses.replace(neuron, V_spike=V_spike, V_rearm=V_rearm)


def butera(**levels):
    tau_n = dj.Bell((-29.0, 8.0), (-29.0, -8.0), 0.0, 20.0)  # 10 / cosh
    tau_h = dj.Bell((-48.0, 12.0), (-48.0, -12.0), 0.0, 20_000.0)
    persistent = dj.Gate(1, dj.Sigmoid(-48.0, 6.0), tau_h)
    inactivation = dj.Gate(1, dj.Sigmoid(-29.0, 4.0), tau_n)  # 1 - n
    activation = dj.Power(dj.Sigmoid(-34.0, -5.0), 3)
    return dj.Neuron(
        "butera",
        (
            dj.GatedChannel("Na", (inactivation,), reversal=50.0, factor=activation),
            dj.GatedChannel(
                "NaP", (persistent,), reversal=50.0, factor=dj.Sigmoid(-40.0, -6.0)
            ),
            dj.GatedChannel(
                "K", (dj.Gate(4, dj.Sigmoid(-29.0, -4.0), tau_n),), reversal=-85.0
            ),
            dj.GatedChannel("leak", reversal=E_LEAK),
        ),
        (dj.Constant(0.1), tau_n, tau_h),
        V_ref=-50.0,
        initial_V=START,
        **levels,
    )


def butera_by_scipy(duration):
    """Times and potentials of the model as it was published, by LSODA."""
    open_part = lambda V, half, width: 1 / (1 + np.exp((V - half) / width))

    def slopes(t, y):
        V, n, h = y
        I = 28 * open_part(V, -34, -5) ** 3 * (1 - n) * (V - 50)
        I += 2.8 * open_part(V, -40, -6) * h * (V - 50)
        I += 11.2 * n**4 * (V + 85) + 2.8 * (V - E_LEAK)
        dn = (open_part(V, -29, -4) - n) * np.cosh((V + 29) / 8) / 10
        dh = (open_part(V, -48, 6) - h) * np.cosh((V + 48) / 12) / 10_000
        return [-I / 21, dn, dh]

    y0 = [START, open_part(START, -29, -4), open_part(START, -48, 6)]
    ts = np.arange(0, duration, 0.02)
    how = {"method": "LSODA", "rtol": 1e-9, "atol": 1e-9, "t_eval": ts}
    return ts, scipy.integrate.solve_ivp(slopes, (0, duration), y0, **how).y[0]


# What a spike is


def test_small_spikes_are_counted_at_the_level_of_the_neuron():
    ts, V = butera_by_scipy(600.0)
    assert -20 < V.max() < 10
    expected = ts[:-1][(V[:-1] < -20) & (V[1:] >= -20)]
    run = dj.simulate(butera(**LOW), G_BUTERA, 600.0, dt=0.01)
    assert run.num_spikes == len(expected) > 5
    np.testing.assert_allclose(spikes_of(run), expected, rtol=1e-3)
    assert run.succeeded and not run.fell_short


@pytest.mark.slow
def test_small_spikes_at_the_usual_level_are_flagged_in_every_way():
    neuron = butera()
    run = dj.simulate(neuron, G_BUTERA, 200.0)
    assert run.num_spikes == 0 and run.succeeded and run.fell_short
    other = dj.simulate(neuron, G_BUTERA, 200.0, solver=dfx.Tsit5())
    assert other.num_spikes == 0 and other.fell_short
    found = dj.solve(neuron, G_BUTERA, np.array([200.0]))
    assert found.num_spikes == 0 and found.fell_short


def test_a_lower_level_finds_the_same_spikes_earlier():
    step = dj.Step(10.0)
    usual = dj.simulate(HH, G_HH, 100.0, stimulus=step)
    low = dj.simulate(with_levels(HH, **LOW), G_HH, 100.0, stimulus=step)
    assert usual.num_spikes == low.num_spikes > 3
    earlier = spikes_of(usual) - spikes_of(low)
    assert (earlier > 0.05).all() and (earlier < 1).all()
    assert not usual.fell_short and not low.fell_short


def test_all_ways_to_simulate_use_the_levels():
    neuron, step = with_levels(HH, **LOW), dj.Step(10.0)
    ours = dj.simulate(neuron, G_HH, 60.0, stimulus=step, dt=0.01)
    tsit = dj.simulate(neuron, G_HH, 60.0, stimulus=step, solver=dfx.Tsit5())
    found = dj.solve(neuron, G_HH, np.array([60.0]), stimulus=step, dt=0.01)
    assert ours.num_spikes == tsit.num_spikes == found.num_spikes > 2
    times = spikes_of(ours)
    np.testing.assert_allclose(spikes_of(tsit), times, atol=0.02)
    np.testing.assert_allclose(found.spike_times[: len(times)], times, atol=1e-6)


@pytest.mark.slow
def test_spike_times_can_be_differentiated_by_the_level():
    def first(V_spike):
        neuron = dataclasses.replace(HH, V_spike=V_spike)
        found = dj.solve(neuron, G_HH, np.array([12.0]), stimulus=dj.Step(10.0))
        return found.spike_times[0]

    at, h = jnp.asarray(5.0), 1e-3
    slope = jax.jit(jax.grad(first))(at)
    assert slope > 0
    np.testing.assert_allclose(
        slope, (first(at + h) - first(at - h)) / (2 * h), rtol=1e-3
    )


@pytest.mark.slow
def test_a_rhythm_has_its_slopes_at_any_level():
    g = G_HH[None]
    run = dj.simulate(HH, g, 400.0, stimulus=dj.Step(10.0), dt=0.05)
    period = np.diff(spikes_of(run))[-1:]
    rhythm = ObservedRhythm(np.array([1]), period, np.zeros(1))
    row = lambda neuron: in_a_row(neuron, g, dj.Step(10.0)).row
    of = lambda neuron: cycles(row(neuron), rhythm, settle=200.0, dt=0.05)
    usual, low = of(HH), of(with_levels(HH, **LOW))
    assert usual.is_trusted.all() and low.is_trusted.all()
    np.testing.assert_allclose(low.times, usual.times, rtol=1e-3)
    np.testing.assert_allclose(low.slopes, usual.slopes, atol=0.02)


def test_traces_are_measured_at_the_levels_of_the_neuron():
    neuron = butera(**LOW)
    run = dj.simulate(neuron, G_BUTERA, 300.0, save_every=0.05)
    V = jnp.asarray(run.V)
    measure = lambda **levels: dj.step_response(V, 0.05, 10.0, 290.0, **levels)
    own, usual = measure(**neuron.spike_levels), measure()
    inside = (spikes_of(run) >= 10) & (spikes_of(run) < 290)
    assert own.num_spikes == inside.sum() > 2 and usual.num_spikes == 0
    assert own.height > 20 and np.isnan(usual.height)


def test_exported_scripts_have_the_levels_of_the_neuron(tmp_path):
    neuron = with_levels(HH, -20.5, -31.25)
    for simulator in ("neuron", "brian2", "jaxley", "neuroml"):
        getattr(dj, f"export_{simulator}")(neuron, G_HH, tmp_path / simulator)
        script = (tmp_path / simulator / "run.py").read_text()
        assert "-20.5" in script
        assert ("-31.25" in script) == (simulator != "neuron")  # it has one level
        assert "-20.5 mV" in (tmp_path / simulator / "README.txt").read_text()


# What falls short


def test_what_rises_and_falls_without_a_spike_is_not_flagged():
    leak = dj.GatedChannel("leak", reversal=-65.0)
    passive = dj.Neuron("passive", (leak,), (*HH.timescales[:2], None), -60.0)
    pulses = dj.Step(np.linspace(-20.0, 20.0, 9), 5.0, 40.0)
    pulses = pulses + dj.Step(np.linspace(20.0, -20.0, 9), 60.0, 80.0)
    g = np.full((9, 1), 0.3)
    for V0 in (-120.0, -65.0, 20.0):
        run = dj.simulate(passive, g, 120.0, stimulus=pulses, V0=V0)
        assert not run.fell_short.any()
    resting = dj.simulate(HH, G_HH, 100.0, stimulus=dj.Step(1.5, 20.0, 60.0))
    assert resting.num_spikes == 0 and not resting.fell_short


def test_neurons_that_fire_as_they_should_are_not_flagged():
    run = dj.simulate(STG, twelve_cells(), 1500.0, discard=500.0)
    assert (run.num_spikes > 3).all() and not run.fell_short.any()


def test_what_fell_short_before_the_result_begins_does_not_count():
    # It spikes once, up to 39 mV.
    neuron = with_levels(HH, 45.0, 0.0)
    step = dj.Step(5.0, 20.0)
    flagged = [
        [
            dj.simulate(
                neuron, G_HH, 120.0, stimulus=step, discard=x, solver=solver
            ).fell_short
            for x in (0.0, 60.0)
        ]
        for solver in (None, dfx.Tsit5())
    ]
    assert np.array(flagged).tolist() == 2 * [[True, False]]


def test_flags_do_not_depend_on_neighbours():
    g = np.concatenate([np.tile(G_BUTERA, (40, 1)), 0 * G_BUTERA[None] + [0, 0, 0, 1]])
    run = dj.simulate(butera(), g, 100.0)
    assert run.fell_short[:40].all() and not run.fell_short[40]


# Declarations


def test_levels_are_ten_and_zero_by_default():
    assert (float(HH.V_spike), float(HH.V_rearm)) == (V_SPIKE, V_REARM) == (10.0, 0.0)


@pytest.mark.parametrize(
    "levels", [(-20.0, 0.0), (10.0, 10.0), (np.nan, 0.0), (np.inf, 0.0)]
)
def test_impossible_levels_are_refused(levels):
    with pytest.raises(ValueError, match=rf"hodgkin-huxley is {levels[1]:g} mV"):
        with_levels(HH, *levels)


def test_neurons_of_other_levels_have_another_hash():
    hashes = {neuron_hash(with_levels(HH, *x)) for x in ((10, 0), (9, 0), (10, -1))}
    assert len(hashes) == 3 and neuron_hash(HH) in hashes
