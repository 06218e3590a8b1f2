import dataclasses
import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, strategies as st

import dicjax as dj
from dicjax.operator.cell_comparison import measure_cell
from dicjax.recordings.current_clamp.steps import find_steps
from dicjax.recordings.current_clamp.sweeps import Sweeps
from dicjax.simulation.detection import detect_spike
from dicjax.spikes.detection import (
    find_spikes,
    list_spikes,
    mark_shortfalls,
    mark_spikes,
    spike_trains,
)


HH = dj.hodgkin_huxley()
EVERY = 0.1


def by_state_machine(V, every=EVERY, up=10.0, down=0.0):
    """The rule, sample by sample: indices and times of confirmed crossings."""
    pending, found = None, []
    for i in range(len(V) - 1):
        if pending is None and V[i] < up <= V[i + 1]:
            pending = i, every * (i + (up - V[i]) / (V[i + 1] - V[i]))
        if pending is not None and V[i + 1] < down:
            found.append(pending)
            pending = None
    return found


def shortfalls_by_state_machine(V, every=EVERY, up=10.0, down=0.0):
    """Steps that end an upstroke which stayed below `up`."""
    level, rising, found = min(down, -30.0), False, []
    for i, (before, after) in enumerate(itertools.pairwise(V)):
        if rising and after < level:
            found.append(i)
        if after < level or after >= up:
            rising = False
        elif before < level <= after:
            rising = after - before > 10.0 * every
    return found


# Few different values, so that traces often linger around both levels.
LEVELS = st.sampled_from([-60.0, -0.1, 0.0, 5.0, 9.9, 10.0, 10.1, 40.0, np.nan])
PAIRS = st.sampled_from([(10.0, 0.0), (-20.0, -30.0), (0.0, -45.0), (30.0, 20.0)])
# Of few lengths, since each is compiled anew.
TRACES = st.sampled_from((2, 5, 40)).flatmap(
    lambda num: st.lists(LEVELS, min_size=num, max_size=num)
)


@given(TRACES)
def test_marks_are_those_of_a_state_machine(trace):
    V = np.array(trace)
    (index,) = np.nonzero(mark_spikes(jnp.asarray(V)))
    assert index.tolist() == [i for i, _ in by_state_machine(V)]


@given(st.integers(0, 2**31), st.floats(1.0, 40.0), PAIRS)
def test_levels_and_upstrokes_are_those_of_a_state_machine(seed, size, pair):
    V = -30 + size * np.random.default_rng(seed).standard_normal(40)
    levels = dict(zip(("V_spike", "V_rearm"), pair, strict=True))
    (index,) = np.nonzero(mark_spikes(jnp.asarray(V), **levels))
    expected = [i for i, _ in by_state_machine(V, EVERY, *pair)]
    assert index.tolist() == expected
    # Steps of 2 ms are slow enough that some rise slower than a spike does.
    for every in (EVERY, 2.0):
        (index,) = np.nonzero(mark_shortfalls(jnp.asarray(V), every, **levels))
        expected = shortfalls_by_state_machine(V, every, *pair)
        assert index.tolist() == expected


@jax.jit
def first_spikes(V):
    return find_spikes(V, EVERY, max_spikes=8)


@given(st.integers(0, 2**31), st.floats(0.1, 30.0))
def test_times_are_those_of_a_state_machine_in_noise(seed, size):
    rng = np.random.default_rng(seed)
    slow = 40 * np.sin(np.arange(400) / 15) - 10
    V = slow + size * rng.standard_normal(400)
    expected = by_state_machine(V)
    found = jax.tree.map(np.asarray, first_spikes(jnp.asarray(V)))
    assert found.num == len(expected)
    kept = min(8, len(expected))
    assert found.index[:kept].tolist() == [i for i, _ in expected[:8]]
    np.testing.assert_allclose(found.times[:kept], [t for _, t in expected[:8]])
    assert np.isinf(found.times[kept:]).all() and (found.index[kept:] == -1).all()


@jax.jit
def running(neuron, V, every):
    """The time of the spike that each step confirms, infinite if it confirms none, and
    whether it ends a shortfall."""

    def step(pending, sample):
        i, before, after = sample
        found = detect_spike(neuron, before, after, every * i, every, pending)
        time = jnp.where(found.is_spike, found.time, jnp.inf)
        return found.pending, (time, found.is_shortfall)

    samples = jnp.arange(len(V) - 1, dtype=float), V[:-1], V[1:]
    return jax.lax.scan(step, jnp.asarray(jnp.inf), samples)[1]


@given(st.integers(0, 2**31), st.sampled_from((EVERY, 2.0)), PAIRS)
def test_the_running_detector_finds_what_is_in_the_trace(seed, every, pair):
    V = 25 * np.random.default_rng(seed).standard_normal(200) - 20
    up, down = map(jnp.asarray, pair)
    neuron = dataclasses.replace(HH, V_spike=up, V_rearm=down)
    times, is_short = map(np.asarray, running(neuron, jnp.asarray(V), every))
    times = times[np.isfinite(times)]
    expected = by_state_machine(V, every, *pair)
    np.testing.assert_allclose(times, [t for _, t in expected])
    expected = shortfalls_by_state_machine(V, every, *pair)
    assert np.flatnonzero(is_short).tolist() == expected


def test_cells_of_a_batch_are_found_alone():
    V = 25 * np.random.default_rng(0).standard_normal((3, 4, 100))
    marks = np.asarray(mark_spikes(jnp.asarray(V)))
    assert marks.shape == (3, 4, 99) and marks.any()
    for i in np.ndindex(3, 4):
        np.testing.assert_array_equal(marks[i], mark_spikes(jnp.asarray(V[i])))
    np.testing.assert_array_equal(marks, jax.vmap(mark_spikes)(jnp.asarray(V)))


def test_lists_and_trains_hold_the_same_spikes():
    V = 25 * np.random.default_rng(0).standard_normal((5, 100))
    V[2] = -60.0
    ts = 3.0 + EVERY * np.arange(100)
    cells, times = list_spikes(ts, V)
    trains = spike_trains(ts, V)
    assert [len(train) for train in trains] == np.bincount(cells, minlength=5).tolist()
    np.testing.assert_array_equal(np.concatenate(trains), times)
    for row, train in zip(V, trains, strict=True):
        np.testing.assert_allclose(train, [3 + t for _, t in by_state_machine(row)])
    assert spike_trains(ts, V[:0]) == []


@pytest.mark.parametrize("num", (0, 1))
def test_traces_of_no_or_one_sample_have_no_steps(num):
    assert mark_spikes(jnp.zeros((2, num))).shape == (2, 0)


def noisy_sweeps():
    """Two sweeps with a step, whose spikes cross 10 mV several times each in noise."""
    t = 0.25 * np.arange(8000)
    on = (t >= 400) & (t < 1500)
    V = np.full((2, len(t)), -60.0)
    for row, period in zip(V, (170.0, 70.0), strict=True):
        phase = (t - 400) % period
        row[on & (phase > 30) & (phase < 45)] = 10.0
    V += 2.5 * np.asarray(jr.normal(jr.key(0), V.shape))
    return Sweeps(np.array([[50.0], [100.0]]) * on, V, 0.25)


def test_step_responses_and_recorded_cells_count_alike_in_noise():
    sweeps = noisy_sweeps()
    crossings = ((sweeps.V[:, :-1] < 10) & (sweeps.V[:, 1:] >= 10)).sum(axis=1)
    response = dj.step_response(jnp.asarray(sweeps.V), 0.25, 400.0, 1400.0)
    assert (crossings > 2 * np.asarray(response.num_spikes)).all()
    counts = np.asarray(response.num_spikes)
    assert counts.min() > 5
    measured = measure_cell(sweeps, find_steps(sweeps), 100.0)
    # The gain is that of the line through both sweeps, whose counts hold what is left
    # of an interval: less than a spike each.
    slope = np.diff(counts) / 0.5
    assert abs(measured["gain"] - slope[0]) < 2 / 0.5
