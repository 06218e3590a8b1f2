"""Members that are refined towards traces and firing rates, with kinetics or without.

Targets are made by the simulator from other numbers, which have to be found again.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import dicjax as dj


HH = dj.hodgkin_huxley()
TRUE = np.array([110.0, 40.0, 0.25], np.float32)
STEP = dj.Step(10.0, start=5.0)
TS = np.arange(0.0, 30.0, 0.1)
CURRENTS = np.array([4.0, 14.0, 25.0])
LASTING: Any = {"duration": 250.0, "discard": 100.0, "dt": 0.05}
REACH = (0.3, 5.0)


def numbers_of(neuron: Any):
    return neuron.capacitance, neuron.channels[0].gates[1].beta.midpoint


def kinetics(cell: Any):
    return numbers_of(cell.neuron)


OTHER = eqx.tree_at(numbers_of, HH, (jnp.asarray(1.1), jnp.asarray(-33.0)))


def perturbed(num, spread=0.15):
    noise = np.asarray(jr.normal(jr.key(0), (num, 3)), np.float32)
    return TRUE * np.exp(spread * noise)


def trace_of(neuron, g=TRUE, dt=0.05, tolerance=0.5):
    V = dj.solve(neuron, g, TS, stimulus=STEP, dt=dt).V
    return dj.VoltageTrace(TS, np.asarray(V), tolerance)


def rates_of(neuron, g):
    how: Any = {"stimulus": dj.Step(CURRENTS), **LASTING}
    run = dj.simulate(neuron, g[..., None, :], how.pop("duration"), **how)
    return np.nan_to_num(np.asarray(dj.spike_features(run.spike_times).rate))


@pytest.fixture(scope="module")
def followed():
    how = {"stimulus": STEP, "dt": 0.05, "estimator": "autodiff"}
    return dj.refine(HH, perturbed(16), trace_of(HH), **how)


def test_members_follow_a_trace_by_their_own_derivatives(followed):
    assert followed.valid_before.sum() <= 2 and followed.valid.sum() >= 15
    assert np.all(followed.score <= followed.score_before)
    # Another program says so too: samples of a simulation.
    how = {"stimulus": STEP, "dt": 0.05, "save_every": 0.1}
    run = dj.simulate(HH, followed.g[followed.valid], TS[-1] + 0.1, **how)
    assert run.ts is not None and run.V is not None
    V = np.stack([np.interp(TS, run.ts, row) for row in run.V])
    off = V - trace_of(HH).V
    assert np.sqrt((off**2).mean(axis=1)).max() < 0.55
    far = np.abs(np.log(followed.g / TRUE)), np.abs(np.log(followed.g_before / TRUE))
    assert np.median(far[0]) < 0.5 * np.median(far[1])
    assert "follow the target's potential within 0.5 mV" in str(followed)
    assert followed.num_slopes > 0 and followed.features.shape == (16, len(TS))


def test_an_ensemble_follows_a_trace():
    how = {"stimulus": STEP, "dt": 0.05}
    found = dj.refine(HH, perturbed(32), trace_of(HH, tolerance=1.0), **how)
    assert found.valid_before.mean() < 0.2 and found.valid.mean() > 0.9


def test_a_capacitance_and_a_midpoint_are_found_from_a_trace(followed):
    how = {"stimulus": STEP, "dt": 0.05, "estimator": "autodiff"}
    how |= {"where": kinetics, "reach": REACH, "max_rounds": 8}
    found = dj.refine(HH, perturbed(16), trace_of(OTHER), **how)
    assert found.valid.mean() > 0.8
    assert found.number_names == ("capacitance", "channels[0].gates[1].beta.midpoint")
    np.testing.assert_array_equal(found.numbers_before, [[1.0, -35.0]] * 16)
    # Each member has its own, near those of the target.
    middle = np.median(found.numbers[found.valid], axis=0)
    assert np.all(np.abs(middle - np.array([1.1, -33.0])) < np.array([0.03, 0.6]))
    for mine, kept in zip(numbers_of(found.neuron), found.numbers.T, strict=True):
        np.testing.assert_allclose(mine, kept)
    assert np.all(
        np.abs(found.numbers - found.numbers_before) <= np.array(REACH) + 1e-6
    )
    assert f"capacitance is {np.median(found.numbers[:, 0]):.4g}" in str(found)
    # The neuron of a result is one to go on from.
    again = dj.refine(
        found.neuron, found.g, trace_of(OTHER), stimulus=STEP, dt=0.05, max_rounds=0
    )
    np.testing.assert_allclose(again.score, found.score, rtol=1e-3)


@pytest.mark.slow
def test_members_find_a_curve_of_firing_rates():
    rates = rates_of(HH, TRUE)
    assert rates[0] == 0 < rates[1]
    target = dj.FiringRates(CURRENTS, rates, tolerance=0.05)
    found = dj.refine(HH, perturbed(32), target, **LASTING)
    assert found.valid_before.mean() < 0.5 and found.valid.mean() > 0.9
    assert found.spike_times.shape[:2] == found.features.shape == (32, 3)
    again = rates_of(HH, found.g)[found.valid]
    allowed = 0.05 * np.maximum(rates, 0.1 * rates.max())
    assert np.all(np.abs(again - rates) <= 1.001 * allowed)


@pytest.mark.slow
def test_a_midpoint_takes_part_in_finding_firing_rates():
    midpoint = lambda cell: numbers_of(cell.neuron)[1]
    shifted = eqx.tree_at(lambda n: numbers_of(n)[1], HH, jnp.asarray(-33.0))
    target = dj.FiringRates(CURRENTS, rates_of(shifted, TRUE), tolerance=0.03)
    g = perturbed(32, 0.01)
    found = dj.refine(HH, g, target, where=midpoint, reach=5.0, **LASTING)
    assert found.valid_before.mean() < 0.3 and found.valid.mean() > 0.9
    assert np.mean(found.numbers[~found.valid_before]) > -34.9
    again = dj.refine(found.neuron, found.g, target, max_rounds=0, **LASTING)
    np.testing.assert_array_equal(again.valid, found.valid)


def steps_of(g, limits):
    how = {"stimulus": dj.Step(STEPS, 20.0, 80.0), "dt": 0.05, "save_every": 0.1}
    run = dj.simulate(HH, g[None], 90.0, **how)
    assert run.V is not None
    response = dj.step_response(jnp.asarray(run.V), 0.1, 19.9, 79.9)
    return dj.StepFeatures(STEPS, response, 20.0, 80.0, limits)


STEPS = np.array([-5.0, 25.0])


@pytest.mark.slow
def test_members_find_responses_to_steps_of_current():
    limits = {"rate": 2.0, "latency": 0.3, "height": 2.0, "rest": 0.5, "sag": 0.05}
    target = steps_of(TRUE, limits)
    found = dj.refine(HH, perturbed(32), target, dt=0.05)
    assert found.valid_before.mean() < 0.3 and found.valid.mean() > 0.8
    for name, limit in limits.items():
        mine = getattr(found.features, name)[found.valid]
        off = np.abs(mine - np.asarray(getattr(target.response, name)))
        assert np.nanmax(off) <= limit
    assert found.score[found.valid].max() <= 1
    assert "respond to steps like the target" in str(found)


@pytest.mark.parametrize(
    "limits, change, message",
    (
        ({"speed": 1.0}, {}, "'speed'"),
        ({"rate": -1.0}, {}, "rate.*-1"),
        ({"rate": 1.0}, {"current": np.ones(3)}, "3 values of rate"),
        ({"rate": 1.0}, {"start": 90.0}, "90.0 to 80.0"),
        ({"rate": 1.0}, {"every": 30.0}, "`every`.*30"),
    ),
)
def test_bad_steps_are_refused_with_the_remedy(limits, change, message):
    response = dj.step_response(jnp.full((2, 900), -65.0), 0.1, 20.0, 80.0)
    how = {"current": STEPS, "start": 20.0, "stop": 80.0, **change}
    with pytest.raises(ValueError, match=message):
        dj.StepFeatures(response=response, limits=limits, **how)


def test_spike_trains_are_for_neurons_without_recipes_too():
    how = {"stimulus": dj.Step(25.0), **LASTING}
    cell = dj.simulate(HH, TRUE[None], 250.0, discard=100.0, stimulus=dj.Step(25.0))
    train = np.asarray(cell.spike_times[0], float)
    found = dj.refine(HH, perturbed(32, 0.1), train[np.isfinite(train)], **how)
    assert found.valid.sum() > found.valid_before.sum()
    assert "fire like the target within 10%" in str(found)


# Requests


@pytest.mark.parametrize(
    "make, message",
    (
        (
            lambda: dj.FiringRates(np.array([1.0, 2.0]), np.array([3.0])),
            r"\(1,\) and \(2,\)",
        ),
        (
            lambda: dj.FiringRates(np.array([1.0, 2.0]), np.array([3.0, -4.0])),
            r"entry 1 is -4",
        ),
        (
            lambda: dj.FiringRates(np.array([1.0, np.nan]), np.array([3.0, 4.0])),
            r"`current`.*nan",
        ),
        (
            lambda: dj.FiringRates(np.array([1.0]), np.array([0.0])),
            "zero.*current under which",
        ),
        (
            lambda: dj.FiringRates(np.array([1.0]), np.array([5.0]), 0.0),
            "`tolerance`.*0.0",
        ),
        (
            lambda: dj.VoltageTrace(np.array([0.0, 2.0, 1.0]), np.zeros(3)),
            "1 ms follows 2 ms",
        ),
        (
            lambda: dj.VoltageTrace(np.array([0.0, 1.0]), np.zeros(3)),
            r"\(3,\) and \(2,\)",
        ),
        (
            lambda: dj.VoltageTrace(np.array([0.0, 1.0]), np.array([0.0, np.nan])),
            "1 ms: leave",
        ),
        (
            lambda: dj.VoltageTrace(np.array([0.0, 1.0]), np.array([0.0, 1.0]), -1.0),
            "`tolerance`.*-1",
        ),
    ),
)
def test_bad_targets_are_refused_with_the_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


RATES = dj.FiringRates(np.array([10.0]), np.array([50.0]))
TRACE = dj.VoltageTrace(np.array([0.0, 1.0]), np.array([-65.0, -65.0]))
TRAIN = np.arange(1, 60) * 80.0


@pytest.mark.parametrize(
    "target, settings, message",
    (
        (TRACE, {"where": kinetics}, "capacitance.*`reach`"),
        (TRACE, {"reach": 1.0}, "`where`"),
        (TRACE, {"where": kinetics, "reach": (1.0,) * 3}, "2 distances"),
        (TRACE, {"where": kinetics, "reach": (1.0, 0.0)}, "positive"),
        (TRACE, {"where": lambda cell: None, "reach": 1.0}, "`where` picks None"),
        (TRACE, {"where": lambda cell: 2 * cell.neuron.V_ref}, "as they are"),
        (TRACE, {"where": lambda cell: (cell.neuron.V_ref,) * 2, "reach": 1.0}, "once"),
        (TRACE, {"where": kinetics, "reach": 1.0, "keep_dics": True}, "`keep_dics`"),
        (TRACE, {"dt": None}, "no recipe.*`dt`"),
        (TRACE, {"duration": 50.0}, "leave out `duration`"),
        (TRACE, {"stimulus": dj.Step(np.ones(2))}, "`stimulus`.*share"),
        (RATES, {}, "no recipe.*`duration` and `discard`"),
        (RATES, {"estimator": "autodiff", **LASTING}, "FiringRates.*ensemble"),
        (TRAIN, {"duration": 100.0, "dt": None}, "`discard` and `dt`"),
        (
            TRAIN,
            {"estimator": "autodiff", "stimulus": dj.Ramp(0, 9, 0, 999), **LASTING},
            "`stimulus` must be constant",
        ),
    ),
)
def test_bad_requests_are_refused_with_the_remedy(target, settings, message):
    settings = {"dt": 0.05, **settings}
    with pytest.raises(ValueError, match=message):
        dj.refine(HH, np.ones((2, 3), np.float32), target, **settings)


@pytest.mark.slow
def test_cycles_have_derivatives_by_kinetics_under_any_current():
    step = dj.Step(10.0)
    how: dict[str, Any] = {"duration": 400.0, "discard": 100.0, "dt": 0.05}
    faster = dj.Step(14.0)
    run: Any = dj.simulate(HH, HH.default_g, 400.0, discard=100.0, stimulus=faster)
    train = np.asarray(run.spike_times)[: int(run.num_spikes)]
    g = np.asarray(HH.default_g) * np.array([[1.0], [1.05]])
    found = dj.refine(
        HH,
        g,
        train,
        estimator="autodiff",
        where=kinetics,
        reach=REACH,
        stimulus=step,
        tolerance=0.02,
        **how,
    )
    assert not found.valid_before.any() and found.valid.all()
    assert (np.abs(found.numbers - found.numbers_before) > 0).all()
