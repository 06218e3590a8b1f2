"""Slopes of features by kinetics, stimuli and conductances, with and without a recipe.

Neurons of Hodgkin and Huxley fire regularly under a step of current.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.simulation.stimulus import Together


HH = dj.hodgkin_huxley()
G = np.asarray(HH.default_g) * np.array([[1.0], [1.05]])
I = 10.0  # µA/cm²
TIMES = {"duration": 220.0, "discard": 100.0, "dt": 0.05}
HOW: Any = {"stimulus": dj.Step(I, start=5.0), **TIMES}
EXACT = dj.Autodiff()


def some(cell):
    """µF/cm², °C, mV, µA/cm², and mS/cm²."""
    neuron = cell.neuron
    h = neuron.channels[0].gates[1]
    celsius = neuron.temperature.celsius
    return neuron.capacitance, celsius, h.beta.midpoint, cell.stimulus.amplitude, cell.g


@pytest.fixture(scope="module")
def exact():
    return dj.feature_slopes(HH, G, where=some, estimator=EXACT, **HOW)


def test_derivatives_of_cycles_are_those_of_differences(exact):
    assert exact.shape == (2, 4, 7) and np.isfinite(exact).all()
    assert not exact[:, 1:].any()  # tonic neurons have their interval alone
    fine = dj.Differences(0.005, check=True)
    found = dj.feature_slopes(HH, G, where=some, estimator=fine, **HOW)
    np.testing.assert_allclose(found[:, 0], exact[:, 0], rtol=5e-3)
    half = dj.Differences(0.0025)
    np.testing.assert_array_equal(
        found, dj.feature_slopes(HH, G, where=some, estimator=half, **HOW)
    )


def test_slopes_by_logarithms_are_those_by_numbers_times_the_numbers(exact):
    by_log = dj.feature_slopes(HH, G, estimator=dj.Differences(0.005), **HOW)
    assert by_log.shape == (2, 4, 3)
    np.testing.assert_allclose(by_log[:, 0], exact[:, 0, 4:] * G, rtol=5e-3)


@pytest.mark.slow
def test_cycles_have_the_same_slopes_by_logarithms(exact):
    by_log = dj.feature_slopes(HH, G, estimator=EXACT, **HOW)
    np.testing.assert_allclose(by_log[:, 0], exact[:, 0, 4:] * G, rtol=1e-9)


def test_more_of_every_current_and_of_capacitance_changes_nothing(exact):
    by_g = (exact[:, 0, 4:] * G).sum(axis=1)
    total = by_g + exact[:, 0, 0] * HH.capacitance + exact[:, 0, 3] * I
    np.testing.assert_allclose(total, 0, atol=1e-12)


def by_capacitance(neuron, g, **how):
    where = lambda cell: cell.neuron.capacitance
    return dj.feature_slopes(neuron, g, where=where, **(HOW | how))


def with_capacitance(C):
    return eqx.tree_at(lambda n: n.capacitance, HH, jnp.asarray(C))


def test_numbers_and_stimuli_may_differ_from_cell_to_cell():
    sizes, currents = np.array([0.9, 1.2]), np.array([9.0, 11.0])
    many = with_capacitance(sizes)
    found = by_capacitance(many, G[0], stimulus=dj.Step(currents))
    assert found.shape == (2, 4, 1)
    for i in range(2):
        alone = with_capacitance(sizes[i]), G[0]
        own = by_capacitance(*alone, stimulus=dj.Step(currents[i]))
        assert own.shape == (4, 1) and own[0] > 0.1
        np.testing.assert_allclose(found[i], own, rtol=1e-6)


def test_a_cell_keeps_its_noise_while_its_numbers_move():
    noisy = lambda **numbers: dj.NoisyCurrent(jr.key(0), 1.0, I, **numbers)
    both = by_capacitance(HH, G, stimulus=noisy())
    numbers = {"numbers": jnp.array([1], jnp.int32)}
    alone = by_capacitance(HH, G[1:], stimulus=noisy(**numbers))
    assert alone[0, 0] > 0.05  # another noise would give any slope
    np.testing.assert_allclose(both[1:], alone, rtol=1e-6)


def test_every_number_may_have_its_own_step():
    where = lambda cell: (cell.neuron.capacitance, cell.stimulus.amplitude)
    how = HOW | {"where": where}
    relative = dj.feature_slopes(HH, G, estimator=dj.Differences(0.01), **how)
    own = dj.feature_slopes(HH, G, estimator=dj.Differences((0.01, 0.1)), **how)
    np.testing.assert_allclose(own, relative, rtol=1e-9)
    for step in (0.0, -0.1, np.inf, (0.01,), (0.01, 0.0)):
        with pytest.raises(ValueError, match="`step` must be positive.* 2 numbers"):
            dj.feature_slopes(HH, G, estimator=dj.Differences(step), **how)


NOTHING = "`where` picks {}, but must pick numbers"
REFUSED = {
    NOTHING.format("nothing"): lambda cell: (),
    NOTHING.format("3"): lambda cell: cell.neuron.channels[0].gates[0].exponent,
    NOTHING.format("None"): lambda cell: (cell.neuron.calcium, cell.g),
    r"`cell.stimulus.parts\[0\].numbers`, of int32": (
        lambda cell: cell.stimulus.parts[0].numbers
    ),
    r"`cell.stimulus.parts\[1\].values`, .* 1 axes": (
        lambda cell: cell.stimulus.parts[1].values
    ),
    r"`cell.stimulus.parts\[2\].stop`, which is inf": (
        lambda cell: cell.stimulus.parts[2].stop
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_slope_is_refused(words):
    noise = dj.NoisyCurrent(jr.key(0), numbers=jnp.array([3, 4], jnp.int32))
    parts = noise, dj.Waveform(np.zeros(500), 1.0), dj.Step(I)
    with pytest.raises(ValueError, match=words):
        how = HOW | {"stimulus": Together(parts)}
        dj.feature_slopes(HH, G, where=REFUSED[words], **how)


def test_missing_times_and_a_changing_current_are_refused():
    with pytest.raises(ValueError, match="no recipe.* `duration` and `discard`"):
        dj.feature_slopes(HH, G, dt=0.05)
    until = dj.Step(I, stop=150.0)
    with pytest.raises(ValueError, match="`stimulus`.*constant.*`Step`"):
        by_capacitance(HH, G, stimulus=until, estimator=EXACT)


@pytest.mark.slow
def test_bursts_have_slopes_by_kinetics():
    neuron = dj.stg()
    g = np.asarray(dj.compensate(jr.key(1), neuron, (-8.0, 4.0), num=4).g)

    def where(cell):
        m = cell.neuron.channels[0].gates[0]
        return cell.neuron.calcium.time_constant, m.steady_state.midpoint

    exact = dj.feature_slopes(neuron, g, where=where, estimator=EXACT)
    assert np.isfinite(exact).all()
    steps = dj.Differences((0.04, 0.01))
    times: Any = {"duration": 14_000.0, "discard": 8_000.0, "dt": 0.025}
    found = dj.feature_slopes(neuron, g, where=where, estimator=steps, **times)
    size = np.abs(exact[:, 0]).max(axis=0)
    np.testing.assert_allclose(found[:, 0] / size, exact[:, 0] / size, atol=0.05)
