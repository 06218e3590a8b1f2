import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
from hypothesis import given, strategies as st

from dicjax.neurons.models import MODELS
from dicjax.simulation.noise import Drive, FluctuatingCurrent, NoisyCurrent
from dicjax.simulation.simulate import simulate
from dicjax.simulation.stimulus import (
    cell_axes,
    Chirp,
    for_members,
    per_cell,
    Ramp,
    Step,
    Together,
    Waveform,
)


EVERY = 0.05  # ms


def current(stimulus, num=1, duration=2000, h=1e-3):
    """What `num` cells receive, every 0.05 ms: averages over `h` ms."""
    own = for_members(per_cell(stimulus, (num,)), jnp.arange(num))
    t = jnp.asarray(EVERY * np.arange(round(1 / EVERY)))

    def one(own, whole):
        prepared = own.prepare(whole, 2.0)
        return jax.vmap(lambda t: own.average(prepared, t, jnp.asarray(h)))(t)

    ms = jnp.asarray(np.arange(duration, dtype=np.int32))
    axes = cell_axes(own)
    if not jax.tree.leaves(axes):
        whole = jax.jit(jax.vmap(one, (None, 0)))
        return np.asarray(whole(own, ms)).reshape(1, -1)
    each = jax.vmap(lambda own: jax.vmap(lambda ms: one(own, ms))(ms), (axes,))
    return np.asarray(jax.jit(each)(own)).reshape(num, -1)


TS = EVERY * np.arange(2000 / EVERY)


def test_a_step_lasts_from_start_to_stop():
    I = current(Step(3.0, 100.0, 250.0))[0]
    inside = (TS > 100) & (TS < 249.9)
    np.testing.assert_allclose(I[inside], 3.0, rtol=1e-12)
    np.testing.assert_array_equal(I[(TS < 99.9) | (TS > 250)], 0.0)


@jax.jit
def delivered(start, stop, t, h):
    step = Step(2.0, start, stop)
    return step.average(step.prepare(jnp.asarray(0), 2.0), t, h)


@given(
    start=st.floats(0, 2),
    length=st.floats(0.01, 2),
    t=st.floats(0, 1),
    h=st.floats(0.01, 1),
)
def test_a_step_delivers_its_exact_charge(start, length, t, h):
    average = delivered(*map(jnp.asarray, (start, start + length, t, h)))
    ts = t + h * (np.arange(20_000) + 0.5) / 20_000
    expected = 2 * np.mean((ts > start) & (ts < start + length))
    assert float(average) == pytest.approx(expected, abs=1e-3)


def test_a_ramp_runs_straight_between_its_ends():
    I = current(Ramp(-1.0, 4.0, 200.0, 700.0))[0]
    expected = np.interp(TS + 5e-4, [200, 700], [-1, 4])
    np.testing.assert_allclose(I, expected, atol=1e-9)


def test_a_chirp_sweeps_its_band():
    I = current(Chirp(2.0, low=5.0, high=80.0, rise=2000.0))[0]
    expected = scipy.signal.chirp(TS / 1000, 5.0, 2.0, 80.0, phi=-90)
    np.testing.assert_allclose(I, 2 * expected, atol=2e-3)


@pytest.mark.parametrize("every", (0.1, 0.3, 1.0, 2.5))
def test_a_waveform_goes_through_its_samples(every):
    values = np.random.default_rng(0).normal(size=(round(2100 / every),))
    I = current(Waveform(values, every))[0]
    expected = np.interp(TS + 5e-4, every * np.arange(len(values)), values)
    np.testing.assert_allclose(I, expected, atol=1e-6)


def test_stimuli_add_up():
    both = Step(1.0) + Ramp(0.0, 1.0, 0.0, 1000.0) + NoisyCurrent(jr.key(0), 2.0)
    parts = Step(1.0), Ramp(0.0, 1.0, 0.0, 1000.0), NoisyCurrent(jr.key(0), 2.0)
    total = sum(current(part, 2) for part in parts)
    np.testing.assert_allclose(current(both, 2), total, atol=1e-9)
    assert isinstance(both, Together)
    assert (Waveform(np.zeros(11), 1.0) + Step(1.0)).duration == 10
    assert both.longest_step == NoisyCurrent(jr.key(0), 2.0).longest_step


def test_every_cell_can_have_its_own_values():
    I = current(Step(np.array([1.0, 2.0, 3.0])), 3, 10)
    np.testing.assert_allclose(I, np.repeat([[1.0], [2.0], [3.0]], 200, 1))
    rows = np.random.default_rng(1).normal(size=(3, 40))
    I = current(Waveform(rows, 0.5), 3, 10)
    alone = [current(Waveform(row, 0.5), 1, 10)[0] for row in rows]
    np.testing.assert_allclose(I, alone, rtol=1e-9)


def test_noise_has_the_mean_and_the_spread_asked_for():
    I = current(NoisyCurrent(jr.key(0), sigma=3.0, mean=1.5), 16)
    num_nodes = I.size / 10
    assert I.mean() == pytest.approx(1.5, abs=4 * 3 * np.sqrt(1.5 / num_nodes))
    assert I.std() == pytest.approx(3.0, rel=0.02)
    assert np.abs(np.corrcoef(I) - np.eye(16)).max() < 0.1


def test_noise_nodes_are_gaussian_and_independent():
    I = current(NoisyCurrent(jr.key(3), sigma=1.0), 64, h=0.0)
    nodes = I[:, :: round(0.5 / EVERY)] / np.sqrt(1.5)
    assert scipy.stats.kstest(nodes.ravel(), "norm").pvalue > 1e-3
    for lag in (1, 2, 3, 64):
        r = np.mean(nodes[:, :-lag] * nodes[:, lag:])
        assert abs(r) < 4 / np.sqrt(nodes.size)
    r = np.mean(nodes[:-1] * nodes[1:])  # of neighbouring cells
    assert abs(r) < 4 / np.sqrt(nodes.size)


def test_noise_is_white_at_low_frequencies_and_dies_out_above_a_kilohertz():
    I = current(NoisyCurrent(jr.key(0), sigma=3.0), 16)
    f, power = scipy.signal.welch(I, fs=20.0, nperseg=400)  # kHz
    power = power.mean(0)
    share = lambda low, high: power[(f > low) & (f <= high)].sum() / power.sum()
    assert share(2, 10) < 0.02
    assert share(3, 10) < 0.01
    assert share(0, 0.2) == pytest.approx(share(0.2, 0.4), rel=0.2)


def test_noise_is_continuous_from_one_millisecond_to_the_next():
    I = current(NoisyCurrent(jr.key(0), sigma=3.0), 4, 200)
    # Straight lines between nodes 0.5 ms apart, so nothing changes faster than that.
    steps = np.abs(np.diff(I))
    assert steps.max() < 2 * 5 * 3 * np.sqrt(1.5) * EVERY / 0.5


def test_the_noise_of_a_cell_depends_on_its_key_and_index_only():
    few = current(NoisyCurrent(jr.key(1), sigma=3.0), 3, 50)
    many = current(NoisyCurrent(jr.key(1), sigma=3.0), 17, 50)
    other = current(NoisyCurrent(jr.key(2), sigma=3.0), 3, 50)
    np.testing.assert_array_equal(many[:3], few)
    assert np.abs(other - few).max() > 1
    shared = NoisyCurrent(jr.key(1), sigma=3.0, numbers=jnp.asarray(2, jnp.int32))
    np.testing.assert_array_equal(current(shared, 3, 50), np.tile(few[2], (3, 1)))


def test_waveforms_that_cannot_be_followed_are_refused():
    with pytest.raises(ValueError, match=r"\(1,\)"):
        Waveform(np.zeros(1), 0.1)
    with pytest.raises(ValueError, match=r"sample \(2,\) is not"):
        Waveform(np.array([0.0, 1.0, np.nan]), 0.1)
    with pytest.raises(ValueError, match="every=0.0"):
        Waveform(np.zeros(4), 0.0)


@pytest.mark.parametrize(
    "stimulus",
    (
        Step(10.0, 20.0, 180.0),
        pytest.param(Ramp(0.0, 20.0, 0.0, 200.0), marks=pytest.mark.slow),
        pytest.param(
            Chirp(10.0, low=1.0, high=50.0, rise=200.0), marks=pytest.mark.slow
        ),
        Waveform(np.full(2001, 10.0), 0.1),
        NoisyCurrent(jr.key(0), sigma=3.0, mean=10.0),
    ),
    ids=lambda s: type(s).__name__,
)
def test_a_resting_axon_fires_where_it_is_stimulated(stimulus):
    axon = MODELS["hodgkin-huxley"]()
    g = np.asarray(axon.default_g, np.float32)
    still, driven = (
        simulate(axon, g, 200.0),
        simulate(axon, g, 200.0, stimulus=stimulus),
    )
    assert still.num_spikes == 0 and driven.num_spikes >= 2


def fluctuations(num, duration, sigma=2.0, tau=5.0, interval=0.5, seed=0):
    stimulus = FluctuatingCurrent(jr.key(seed), sigma, tau, interval)
    return current(stimulus, num, duration, h=0.0)


@pytest.mark.parametrize("tau, interval", ((1.0, 0.5), (5.0, 1.0), (40.0, 8.0)))
def test_fluctuations_correlate_over_time_as_ornstein_uhlenbeck_does(tau, interval):
    I = fluctuations(256, 2000, 2.0, tau, interval) / 2
    assert I.mean() == pytest.approx(0, abs=5 * np.sqrt(2 * tau / I.size / EVERY))
    assert I.var() == pytest.approx(1, rel=0.02)
    every = max(tau / 5, interval)
    values = I[:, :: round(every / EVERY)]
    # Values are raised by what straight lines between them lack.
    at = values * np.sqrt((2 + np.exp(-every / tau)) / 3)
    assert scipy.stats.kstest(at[:, ::64].ravel(), "norm").pvalue > 1e-3
    for lag in (1, 2, 5, 11, 31, 32, 33, 50):
        r = np.mean(at[:, :-lag] * at[:, lag:])
        error = 4 * np.sqrt(2 * tau / every / at.size)
        assert r == pytest.approx(np.exp(-lag * every / tau), abs=error + 2e-3)


def test_fluctuations_are_straight_between_values_wherever_a_dispatch_begins():
    I = fluctuations(4, 400, tau=7.3)
    ts = EVERY * np.arange(I.shape[1])
    every = round(8 * 7.3 / 5) / 8
    values = np.arange(0, 390, every)
    knots = np.array([np.interp(values, ts, row) for row in I])
    between = np.array([np.interp(ts, values, row) for row in knots])
    seen = ts < values[-1]
    np.testing.assert_allclose(I[:, seen], between[:, seen], atol=0.06)


def test_fluctuations_after_an_hour_are_as_fine_as_at_first():
    stimulus = FluctuatingCurrent(jr.key(0), np.float32(1.0), np.float32(5.0), 1.0)
    own = jax.tree.map(lambda x: x[0], for_members(stimulus, jnp.arange(1)).key)
    own = FluctuatingCurrent(own, np.float32(1.0), np.float32(5.0), 1.0)

    def steps(whole):
        prepared = own.prepare(jnp.asarray(whole, jnp.int32), 8.0)
        t = jnp.linspace(0, 8, 161, dtype=jnp.float32)
        I = jax.vmap(lambda t: own.average(prepared, t, jnp.float32(0)))(t)
        return np.abs(np.diff(np.asarray(I), 2))

    # Second differences of straight lines vanish but at the values.
    for whole in (0, 3_600_000):
        assert (steps(whole) > 1e-4).mean() == pytest.approx(8 / 159, abs=0.03)


def test_cells_may_fluctuate_alike_or_each_by_itself():
    alone = fluctuations(3, 50)
    np.testing.assert_array_equal(fluctuations(17, 50)[:3], alone)
    assert np.abs(np.corrcoef(fluctuations(16, 2000)) - np.eye(16)).max() < 0.2
    tau = np.array([2.0, 5.0, 50.0])
    shared = FluctuatingCurrent(jr.key(0), 2.0, tau, numbers=np.array([1, 1, 1]))
    I = current(shared, 3, 50, h=0.0)
    np.testing.assert_array_equal(I[1], alone[1])
    with pytest.raises(ValueError, match="got 0.3"):
        FluctuatingCurrent(jr.key(0), 1.0, 5.0, 0.3)


def test_a_drive_has_a_mean_a_fast_and_a_slow_part():
    drive = Drive(np.array([0.5, -1.0]), 3.0, 5.0, 2.0, 500.0)
    I = current(drive.stimulus(jr.key(0)), 2, 60_000)[:, ::4]
    np.testing.assert_allclose(I.mean(1), [0.5, -1.0], atol=0.8)
    fast = I - scipy.ndimage.uniform_filter1d(I, 500, axis=1)
    # The average of 100 ms keeps a tenth of the variance of 5 ms.
    assert fast.std() == pytest.approx(3.0 * np.sqrt(0.9), rel=0.03)
    # After 100 ms, nothing of the fast part is left.
    away = I - [[0.5], [-1.0]]
    slow = np.mean(away[:, 500:] * away[:, :-500])
    assert slow == pytest.approx(4 * np.exp(-0.2), rel=0.4)
    calm = Drive(np.array([0.5, -1.0]), 0.0, 5.0, 0.0, 500.0).stimulus(jr.key(0))
    np.testing.assert_array_equal(current(calm, 2, 10), [[0.5] * 200, [-1.0] * 200])
