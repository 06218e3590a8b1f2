from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj
from dicjax.populations.rhythm_gradient import (
    as_vector,
    cycle,
    cycles,
    ObservedRhythm,
    rhythm_of,
    state_at_onset,
)
from dicjax.populations.sensitivities import Autodiff, Differences, feature_slopes
from dicjax.simulation import in_a_row


STG = dj.stg()
TONIC, BURSTING = (5.0, 4.0), (-8.0, 4.0)


def row(neuron, g):
    """Cells in a row, without a stimulus."""
    return in_a_row(neuron, g, None).row


@pytest.fixture(scope="module")
def members():
    make = lambda target: dj.compensate(jr.key(1), STG, target, num=4).g
    return np.concatenate([make(TONIC), make(BURSTING)])


@pytest.fixture(scope="module")
def by_differences(members):
    return feature_slopes(STG, members, estimator=Differences())


@pytest.mark.slow
def test_a_cycle_is_differentiated_as_finite_differences_do():
    # All of it: gates, calcium, and the time of the spike.
    g = jnp.asarray(dj.compensate(jr.key(0), STG, TONIC, num=1).g[0])
    number = lambda x: jnp.asarray(x, jnp.float64)
    dt, none = number(0.05), number(0.0)
    y = jax.jit(
        lambda: state_at_onset(STG, g, number(2e3), number(60.0), none, dt, none)
    )()
    z, _ = as_vector(STG, y)

    def after(inputs):
        own, tight = jnp.exp(inputs[len(z) :]), number(3e-5)
        end, times, _ = cycle(
            STG, own, inputs[: len(z)], jnp.int32(1), number(100.0), tight, none
        )
        return jnp.append(end, times[0])

    inputs = jnp.concatenate([z, jnp.log(g)])
    exact = jax.jit(jax.jacfwd(after))(inputs)
    # Steps are constants for derivatives, so that these agree as far as steps are fine.
    step, after = 1e-3, jax.jit(after)
    for i in range(len(inputs)):
        h = step * (jnp.abs(inputs[i]) + 1e-3)
        slope = (after(inputs.at[i].add(h)) - after(inputs.at[i].add(-h))) / (2 * h)
        size = np.abs(exact[:, i]).max()
        np.testing.assert_allclose(slope, exact[:, i], atol=5e-3 * size)


@pytest.mark.slow
def test_slopes_are_the_same_whichever_cycle_is_taken(members):
    # Cycles from other states, at other phases of the steps that lead there.
    tonic, bursting = members[:2], members[4:6]
    own = dj.simulate(STG, bursting, 6000.0, discard=3000.0, dt=0.05).spike_times
    seen = rhythm_of(dj.spike_features(own))
    one = ObservedRhythm(np.ones(2, int), np.full(2, 80.0), np.zeros(2))
    rhythm = jax.tree.map(lambda a, b: np.concatenate([a, b]), one, seen)
    g = np.concatenate([tonic, bursting])
    first, second = (
        cycles(row(STG, g), rhythm, settle=settle, dt=dt)
        for settle, dt in ((1500.0, 0.05), (2200.0, 0.08))
    )
    assert first.is_trusted.all() and second.is_trusted.all()
    np.testing.assert_allclose(first.times, second.times, rtol=1e-4)
    size = np.abs(first.slopes).max(axis=2, keepdims=True)
    assert np.max(np.abs(first.slopes - second.slopes) / size) < 5e-3
    assert np.max(first.disagreement) < 0.05


@pytest.mark.slow
def test_slopes_of_a_rhythm_are_those_of_finite_differences(members, by_differences):
    exact = feature_slopes(STG, members, estimator=Autodiff())
    assert np.isfinite(exact).all()
    size = np.abs(by_differences[:, :2]).max(axis=2, keepdims=True)
    away = np.abs(exact - by_differences)[:, :2] / np.maximum(size, 0.05)
    assert np.max(away[:4, 0]) < 0.02  # of tonic members, the interval
    assert np.median(away[4:]) < 0.1  # of bursting ones, the period and the interval
    assert np.all(exact[:, 2] == 0)  # the number of spikes has no derivative


@pytest.mark.slow
def test_single_precision_is_enough(members):
    bursting = dj.compensate(jr.key(1), STG, BURSTING, num=12).g
    g = np.concatenate([members[:4], bursting])
    double = feature_slopes(STG, g, estimator=Autodiff())
    single = feature_slopes(STG, g.astype("f4"), estimator=Autodiff())
    assert single.dtype == np.float32
    assert np.isfinite(double).all() and np.isfinite(single).all()
    away = np.abs(single - double).max(axis=(1, 2)) / np.abs(double).max(axis=(1, 2))
    assert np.median(away) < 0.03 and np.max(away) < 0.05


@pytest.mark.slow
def test_the_scale_of_all_conductances_is_the_inverse_of_the_pace(by_differences):
    # More of every channel is less capacitance: membranes then follow faster, which
    # hardly changes a rhythm that gates and calcium set.
    total = by_differences[:4, 0].sum(axis=1)
    assert np.all(np.abs(total) < 0.5 * np.abs(by_differences[:4, 0]).sum(axis=1))


def test_members_of_other_patterns_have_no_slopes(members):
    (train,) = dj.simulate(STG, members[-1:], 6000.0, discard=3000.0).spike_times
    target = dj.spike_features(train[np.isfinite(train)])
    assert dj.LABELS[int(target.label)] == "bursting"
    slopes = feature_slopes(STG, members[2:6], target, estimator=Differences())
    assert np.isnan(slopes[:2]).all() and np.isfinite(slopes[2:]).all()


@pytest.mark.slow
def test_what_is_no_rhythm_fails_instead_of_misleading(members):
    g = members[:2]
    wrong = ObservedRhythm(np.array([1, 7]), np.array([80.0, 80.0]), np.zeros(2))
    found = cycles(row(STG, g), wrong, settle=2000.0, dt=0.05)
    assert found.is_closed.tolist() == [True, False]
    assert found.is_trusted.tolist() == [True, False]
    silent = np.array(g)
    silent[:, STG.index("Na")[0]] = 0
    assert np.isnan(feature_slopes(STG, silent, estimator=Autodiff())).all()


@pytest.mark.slow
def test_a_neuron_without_calcium_has_slopes_too():
    neuron = dj.pospischil("IB")
    g = np.asarray(neuron.default_g, np.float64)[None]
    exact, differences = (
        feature_slopes(neuron, g, estimator=x) for x in (Autodiff(), Differences())
    )
    assert np.isfinite(exact).all()
    size = np.abs(differences[0, 0]).max()
    np.testing.assert_allclose(exact[0, 0], differences[0, 0], atol=0.1 * size)


def test_rhythms_are_read_off_features():
    times = np.concatenate([np.arange(4) * 10.0 + 200.0 * k for k in range(8)])
    features = dj.spike_features(times[None])
    rhythm = rhythm_of(jax.tree.map(np.asarray, features))
    assert rhythm.num_spikes.tolist() == [4]
    assert rhythm.period[0] == pytest.approx(200.0)
    assert 10.0 < rhythm.onset_isi[0] < 170.0


def test_estimators_were_once_named(members):
    with pytest.raises(ValueError, match="`estimator`.* 'guess'"):
        feature_slopes(STG, members, estimator="guess")
    silent = np.array(members[:1])
    silent[:, STG.index("Na")[0]] = 0
    with pytest.warns(DeprecationWarning, match=r"Differences\(step=0.3"):
        feature_slopes(STG, silent, step=0.3, duration=50.0, discard=0.0)


@pytest.mark.slow
def test_slopes_follow_a_faster_neuron(members):
    # Twice the speed of all kinetics with half the capacitance is twice the pace.
    quick = dj.Temperature(celsius=20.0, reference=10.0, q10=2.0)
    half = STG.capacitance / 2
    fast = eqx.tree_at(lambda n: n.capacitance, STG, half)
    fast = eqx.tree_at(
        lambda n: n.temperature, fast, quick, is_leaf=lambda x: x is None
    )
    rhythm = lambda T: ObservedRhythm(np.ones(2, int), np.full(2, T), np.zeros(2))
    slow = cycles(row(STG, members[:2]), rhythm(80.0), settle=4000.0, dt=0.05)
    twice = cycles(row(fast, members[:2]), rhythm(40.0), settle=2000.0, dt=0.025)
    np.testing.assert_allclose(slow.times, 2 * twice.times, rtol=2e-3)
    np.testing.assert_allclose(slow.slopes, twice.slopes, atol=0.02)


def test_two_steps_of_differences_have_to_agree_if_asked(members):
    # So long a step adds and removes spikes of bursts: half of it says otherwise.
    how: Any = {"duration": 2500.0, "discard": 1500.0}
    some = members[:1], members[4:5]
    plain, checked = (
        [feature_slopes(STG, g, estimator=x, **how) for g in some]
        for x in (Differences(0.3), Differences(0.3, check=True))
    )
    assert np.isfinite(plain[0]).all()
    assert np.isnan(checked[1][0, 2]).all()
    fine = Differences(0.02, check=True)
    trusted = feature_slopes(STG, some[0], estimator=fine, **how)
    half = feature_slopes(STG, some[0], estimator=Differences(0.01), **how)
    np.testing.assert_array_equal(trusted, half)
