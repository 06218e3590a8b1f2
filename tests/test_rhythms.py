"""Rhythms that JAX differentiates, beside solvers and formulas that know no dicjax."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import dicjax as dj


HH = dj.hodgkin_huxley()
HOW = {"duration": 220.0, "discard": 100.0, "dt": 0.05}
# Capacitance (µF/cm²), temperature (°C), half-inactivation of Na (mV), conductances
# (mS/cm²), and current (µA/cm²).
NUMBERS = np.array([1.0, 6.3, -35.0, 120.0, 36.0, 0.3, 10.0])


def rhythm_with(numbers):
    def changed(n):
        h = n.channels[0].gates[1]
        return n.capacitance, n.temperature.celsius, h.beta.midpoint

    cell = eqx.tree_at(changed, HH, tuple(numbers[:3]))
    stimulus = dj.Step(numbers[6], start=5.0)
    found = dj.rhythm(cell, numbers[3:6], stimulus=stimulus, **HOW)
    return found.period, found


@pytest.fixture(scope="module")
def differentiated():
    return jax.jacfwd(rhythm_with, has_aux=True)(jnp.asarray(NUMBERS))


def published_period(numbers):
    """The period of the equations of Hodgkin and Huxley, by another solver."""
    C, celsius, V_half, g_Na, g_K, g_leak, I = map(float, numbers)
    speed = 3 ** ((celsius - 6.3) / 10)
    exp = math.exp

    def rates(_, y):
        V, m, h, n = y
        a_m = 0.1 * (V + 40) / (1 - exp(-(V + 40) / 10))
        a_n = 0.01 * (V + 55) / (1 - exp(-(V + 55) / 10))
        b_m, b_n = 4 * exp(-(V + 65) / 18), 0.125 * exp(-(V + 65) / 80)
        a_h, b_h = 0.07 * exp(-(V + 65) / 20), 1 / (1 + exp(-(V - V_half) / 10))
        total = g_Na * m**3 * h * (V - 50) + g_K * n**4 * (V + 77)
        total += g_leak * (V + 54.387)
        return (
            (I - total) / C,
            speed * (a_m * (1 - m) - b_m * m),
            speed * (a_h * (1 - h) - b_h * h),
            speed * (a_n * (1 - n) - b_n * n),
        )

    def rises(_, y):
        return y[0] - 10

    rises.direction = 1  # pyright: ignore
    start = (-65.0, 0.0529, 0.5961, 0.3177)
    how = {"method": "LSODA", "rtol": 1e-9, "atol": 1e-11, "events": rises}
    found = solve_ivp(rates, (0.0, 200.0), start, **how)
    times = found.t_events[0]
    return (times[-1] - times[-6]) / 5


@pytest.mark.slow
def test_periods_and_their_derivatives_are_those_of_the_published_equations(
    differentiated,
):
    slopes, found = differentiated
    assert found.is_trusted and found.num_spikes == 1
    np.testing.assert_allclose(found.period, published_period(NUMBERS), rtol=1e-5)
    for i, number in enumerate(NUMBERS):
        step = 1e-3 * abs(number)
        away = step * np.eye(len(NUMBERS))[i]
        above, below = (published_period(NUMBERS + x) for x in (away, -away))
        np.testing.assert_allclose(slopes[i], (above - below) / (2 * step), rtol=1e-4)


@pytest.mark.slow
def test_more_of_every_channel_and_of_the_current_is_less_capacitance(differentiated):
    slopes, _ = differentiated
    by_capacitance, by_scale = slopes[0], slopes[3:] @ NUMBERS[3:]
    assert float(by_scale) == pytest.approx(-float(by_capacitance), rel=1e-6)


@pytest.mark.slow
def test_cells_side_by_side_have_rhythms_or_none(differentiated):
    _, alone = differentiated
    g = np.stack([HH.default_g, HH.default_g * np.array([0.1, 1, 1])])
    found = dj.rhythm(HH, g, stimulus=dj.Step(jnp.array([10.0, 10.0])), **HOW)
    assert found.is_trusted.tolist() == [True, False]
    assert found.num_spikes.tolist() == [1, 0]
    assert float(found.period[0]) == pytest.approx(float(alone.period), rel=1e-6)
    assert float(found.mean_isi[0]) == float(found.period[0])
    assert found.burst_duration[0] == 0 and np.isnan(found.period[1])


def test_numbers_of_the_neuron_may_differ_from_cell_to_cell(differentiated):
    _, alone = differentiated
    of = lambda C: eqx.tree_at(lambda n: n.capacitance, HH, jnp.array(C))
    # The last two are the same cell, with more of everything or less.
    currents = dj.Step(jnp.array([10.0, 13.0, 10.0]))
    g = np.asarray(HH.default_g) / np.array([[1.0], [1.0], [1.3]])
    found = dj.rhythm(of([1.0, 1.3, 1.0]), g, stimulus=currents, **HOW)
    assert found.is_trusted.all() and found.period[0] > found.period[1]
    expected = alone.period, found.period[2]
    np.testing.assert_allclose(found.period[:2], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"\(3,\) for `g` and \(2,\) for"):
        dj.rhythm(of([1.0, 1.3]), g, stimulus=dj.Step(10.0), **HOW)


def test_a_changing_current_is_found_where_conductances_are_traced():
    until = dj.Step(10.0, stop=150.0)
    period = lambda g: dj.rhythm(HH, g, stimulus=until, **HOW).period
    for transformed in (jax.jacfwd(period), jax.jit(period)):
        with pytest.raises(ValueError, match="`stimulus`.*constant.*`Step`"):
            transformed(HH.default_g)


@pytest.mark.slow
def test_derivatives_that_are_not_trusted_are_nan(monkeypatch):
    # No two cycles agree to the last digit.
    monkeypatch.setattr("dicjax.populations.rhythm_gradient.AGREEMENT", 0.0)

    def of(I):
        stimulus = dj.Step(I) + dj.Step(0.0)  # which compiles a program of its own
        return dj.rhythm(HH, HH.default_g, stimulus=stimulus, **HOW).period

    value, slope = jax.jvp(of, (jnp.asarray(10.0),), (jnp.asarray(1.0),))
    assert np.isfinite(value) and np.isnan(slope)


def test_a_changing_current_and_missing_times_are_refused():
    with pytest.raises(ValueError, match="`stimulus`.*constant.*`Step`"):
        dj.rhythm(HH, HH.default_g, stimulus=dj.Step(10.0, stop=150.0), **HOW)
    with pytest.raises(ValueError, match="`duration` and `dt`"):
        dj.rhythm(HH, HH.default_g, discard=10.0)


@pytest.mark.slow
def test_bursts_have_derivatives_by_conductances_and_kinetics():
    neuron: Any = dj.stg()
    g = jnp.asarray(dj.compensate(jr.key(1), neuron, (-8.0, 4.0), num=1).g[0])

    def times(log_tau, log_g):
        tau = neuron.calcium.time_constant * jnp.exp(log_tau)
        cell = eqx.tree_at(lambda n: n.calcium.time_constant, neuron, tau)
        found = dj.rhythm(cell, jnp.exp(log_g))
        return jnp.log(jnp.stack([found.period, found.burst_duration]))

    at = jnp.zeros(()), jnp.log(g)
    by_tau, by_g = jax.jacfwd(times, (0, 1))(*at)
    slopes = dj.feature_slopes(neuron, np.asarray(g[None]), estimator=dj.Autodiff())
    np.testing.assert_allclose(by_g[0], slopes[0, 0], atol=0.01)

    def simulated(log_tau):
        tau = neuron.calcium.time_constant * np.exp(log_tau)
        cell = eqx.tree_at(lambda n: n.calcium.time_constant, neuron, tau)
        run = dj.simulate(cell, g[None], 14000.0, discard=8000.0, dt=0.025)
        return np.log(dj.spike_features(run.spike_times).period[0])

    difference = (simulated(2e-3) - simulated(-2e-3)) / 4e-3
    assert float(by_tau[0]) == pytest.approx(float(difference), rel=0.02)
