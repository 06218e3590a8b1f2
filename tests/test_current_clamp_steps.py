import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from test_current_clamp import edited

from dicjax.recordings import (
    find_steps,
    passive_membrane,
    read_sweeps,
    Steps,
    Sweeps,
)


@st.composite
def stepped(draw, max_sweeps=6):
    """Currents with a step in white noise, and where and how large it is."""
    every = draw(st.sampled_from((0.05, 0.1, 0.25)))
    n = draw(st.integers(400, 3000))
    a = draw(st.integers(20, n - 200))
    b = draw(st.integers(a + 100, n - 20))
    size = st.floats(30, 500)
    sign = st.sampled_from((-1.0, 0.0, 1.0))
    count = draw(st.integers(1, max_sweeps))
    amplitude = np.array([draw(sign) * draw(size) for _ in range(count)])
    amplitude[draw(st.integers(0, count - 1))] = draw(size)
    holding = np.array([draw(st.floats(-100, 100)) for _ in range(count)])
    random = np.random.default_rng(draw(st.integers(0, 9999)))
    is_in = (np.arange(n) >= a) & (np.arange(n) < b)
    current = holding[:, None] + amplitude[:, None] * is_in
    noise = random.normal(size=current.shape)
    V = np.full_like(current, -70.0)
    return Sweeps(current, V, every), noise, (a, b), amplitude, holding


@settings(max_examples=10)
@given(case=stepped())
def test_steps_up_down_and_of_zero_are_found_exactly_without_noise(case):
    sweeps, _, (a, b), amplitude, holding = case
    steps = find_steps(sweeps)
    assert steps.start == pytest.approx(a * sweeps.every, abs=1e-9)
    assert steps.stop == pytest.approx(b * sweeps.every, abs=1e-9)
    np.testing.assert_allclose(steps.amplitude, amplitude, atol=1e-9)
    np.testing.assert_allclose(steps.holding, holding, atol=1e-9)


@settings(max_examples=10)
@given(case=stepped())
def test_noise_that_is_quantised_moves_steps_by_one_sample_at_most(case):
    sweeps, noise, (a, b), amplitude, holding = case
    current = 3.125 * np.round((sweeps.current + 3 * noise) / 3.125)
    steps = find_steps(edited(sweeps, current=current))
    assert abs(steps.start / sweeps.every - a) < 1.01
    assert abs(steps.stop / sweeps.every - b) < 1.01
    inside = 5 * 3.2 / np.sqrt(np.minimum(a, b - a)) + 0.1
    np.testing.assert_allclose(steps.holding, holding, atol=inside)
    np.testing.assert_allclose(steps.amplitude, amplitude, atol=2 * inside)


@pytest.mark.parametrize("num_sweeps", (1, 5))
@settings(max_examples=10)
@given(seed=st.integers(0, 9999), scale=st.floats(0.01, 100))
def test_noise_holds_no_step(num_sweeps, seed, scale):
    noise = np.random.default_rng(seed).normal(size=(num_sweeps, 2000)) * scale
    with pytest.raises(ValueError, match="no single step"):
        find_steps(Sweeps(noise, np.full_like(noise, -70.0), 0.1))


X = np.linspace(0, 1, 2000)


def between(start, stop):
    return ((start <= X) & (stop > X)) * 1.0


@pytest.mark.parametrize("has_noise", (False, True))
@pytest.mark.parametrize(
    "current, match",
    (
        (X, "no single step"),
        (np.clip(X, 0.3, 0.7), "no single step"),
        (between(0.3, 0.7) * (X - 0.3), "no single step"),
        (np.minimum(X, 1 - X), "no single step"),
        (np.sin(2 * np.pi * X), "no single step"),
        (np.sin(np.pi * X), "no single step"),
        (np.sin(20 * X), "no single step"),
        (np.sin(40 * X**2), "no single step"),
        (between(0.2, 0.4) + between(0.6, 0.8), "no single step"),
        (between(0.2, 0.4) - between(0.6, 0.8), "no single step"),
        (between(0.2, 0.6) + between(0.4, 0.6), "no single step"),
        (between(0.4, 2), "before, in or after"),
        (between(-1, 0.4), "before, in or after"),
        (between(0.4, 0.4025), "before, in or after"),
    ),
)
def test_what_is_no_step_is_refused(current, match, has_noise):
    noise = np.random.default_rng(0).normal(size=(3, X.size)) * has_noise
    current = 200 * current * np.array([[-0.5], [0.5], [1.0]]) + 2 * noise
    with pytest.raises(ValueError, match=match):
        find_steps(Sweeps(current, np.full_like(current, -70.0), 0.1))


def test_a_constant_current_is_no_step():
    levels = np.array([[0.1], [50.0]]) * np.ones(2000)
    with pytest.raises(ValueError, match="constant"):
        find_steps(Sweeps(levels, np.full_like(levels, -70.0), 0.1))


def test_of_several_steps_one_is_found_within_a_window():
    current = (30 + 50 * between(0.2, 0.4) - 80 * between(0.6, 0.8))[None]
    sweeps = Sweeps(current, np.full_like(current, -70.0), 0.1)
    for within, start, amplitude in (
        ((0.0, 100.0), 0.2, 50),
        ((100.0, 200.0), 0.6, -80),
    ):
        steps = find_steps(sweeps, within=within)
        assert steps.start == pytest.approx(200 * start, abs=0.11)
        assert steps.stop - steps.start == pytest.approx(40, abs=0.11)
        assert steps.amplitude == pytest.approx(amplitude)
        assert steps.holding == pytest.approx(30)
    for within in ((-1.0, 100.0), (100.0, 201.0), (100.0, 100.0), (100.0, 102.0)):
        with pytest.raises(ValueError, match="`within`"):
            find_steps(sweeps, within=within)


# The membrane


def charging(resistance, tau, amplitude, *, every=0.1, rest=-70.0, jump=0.0):
    """An RC membrane's answers to steps from 100 to 400 ms of 600 ms."""
    t = np.arange(round(600 / every)) * every
    rise = lambda t: np.where(t >= 0, 1 - np.exp(-np.maximum(t, 0) / tau), 0)
    is_in = (t >= 100 - 1e-9) & (t < 400 - 1e-9)
    unit = 1e-3 * (resistance * (rise(t - 100) - rise(t - 400)) + jump * is_in)
    amplitude = np.asarray(amplitude, float)[:, None]
    return Sweeps(20 + amplitude * is_in, rest + amplitude * unit, every)


resistances = st.floats(20, 400)
amplitudes = st.lists(
    st.floats(-80, 80).filter(lambda x: abs(x) > 5), min_size=1, max_size=5
)


@settings(max_examples=10)
@given(resistance=resistances, tau=st.floats(2, 55), amplitude=amplitudes)
def test_a_known_membrane_is_measured(resistance, tau, amplitude):
    sweeps = charging(resistance, tau, amplitude)
    found = passive_membrane(sweeps, find_steps(sweeps))
    assert found.resistance == pytest.approx(resistance, rel=0.01)
    assert found.time_constant == pytest.approx(tau, rel=0.02)
    assert found.capacitance == pytest.approx(1e3 * tau / resistance, rel=0.02)


@settings(max_examples=10)
@given(resistance=st.floats(80, 400), tau=st.floats(5, 40), seed=st.integers(0, 999))
def test_it_is_measured_in_noise(resistance, tau, seed):
    sweeps = charging(resistance, tau, [-60.0, -30.0, 0.0, 30.0])
    noise = np.random.default_rng(seed).normal(size=(2, *sweeps.V.shape))
    V, current = sweeps.V + 0.1 * noise[0], sweeps.current + 3 * noise[1]
    sweeps = edited(sweeps, V=V, current=current)
    found = passive_membrane(sweeps, find_steps(sweeps))
    assert found.resistance == pytest.approx(resistance, rel=0.02)
    assert found.time_constant == pytest.approx(tau, rel=0.05)


@settings(max_examples=10)
@given(resistance=st.floats(50, 400), tau=st.floats(5, 50), jump=st.floats(-20, 20))
def test_an_unbalanced_electrode_leaves_the_time_constant_alone(resistance, tau, jump):
    sweeps = charging(resistance, tau, [-40.0], jump=jump)
    found = passive_membrane(sweeps, find_steps(sweeps))
    assert found.time_constant == pytest.approx(tau, rel=0.03)
    assert found.resistance == pytest.approx(resistance + jump, rel=0.01)


def test_sweeps_with_spikes_are_left_out():
    sweeps = charging(150.0, 20.0, [-50.0, 150.0])
    V = sweeps.V.copy()
    V[1, 1500:3900:200] = 30.0
    V[0, 4500] = 30.0  # a rebound after the step
    found = passive_membrane(edited(sweeps, V=V), find_steps(sweeps))
    assert found.resistance == pytest.approx(150, rel=1e-3)
    assert found.time_constant == pytest.approx(20, rel=1e-3)


def test_a_sweep_below_threshold_is_needed():
    sweeps = charging(150.0, 20.0, [0.0, 150.0, 200.0])
    V = sweeps.V.copy()
    V[1:, 1500:3900:200] = 30.0
    sweeps = edited(sweeps, V=V)
    with pytest.raises(ValueError, match="capacitance"):
        passive_membrane(sweeps, find_steps(sweeps))


def test_what_does_not_charge_is_refused():
    slow = charging(150.0, 90.0, [-50.0])
    with pytest.raises(ValueError, match="300 ms"):
        passive_membrane(slow, find_steps(slow))
    fast = charging(150.0, 0.02, [-50.0])
    with pytest.raises(ValueError, match="300 ms"):
        passive_membrane(fast, find_steps(fast))
    against = charging(-150.0, 20.0, [-50.0])
    with pytest.raises(ValueError, match="-150 MΩ"):
        passive_membrane(against, find_steps(against))
    good = charging(150.0, 20.0, [-50.0, 50.0])
    steps = find_steps(good)
    with pytest.raises(ValueError, match="1 steps.* 2 sweeps"):
        passive_membrane(
            good, Steps(steps.amplitude[:1], steps.holding[:1], steps.start, steps.stop)
        )


# Real recordings


def recorded(data, name):
    return read_sweeps(data / "current_clamp" / f"C010302A1_{name}.npz")


def test_steps_of_a_real_cell_are_found(data):
    sweeps = recorded(data, "IDRest")
    assert (sweeps.V.shape, sweeps.every) == ((10, 12_000), 0.25)
    assert sweeps.name == "C010302A1_IDRest"
    with np.load(data / "current_clamp" / "C010302A1_IDRest.npz") as file:
        assert np.array_equal(sweeps.V, file["voltage_mV"])
        assert np.array_equal(sweeps.current, file["current_pA"])
    steps = find_steps(sweeps)
    # The first sample of either change is half way, the recorder being slow.
    assert (steps.start, steps.stop) == (700.25, 2700.25)
    within = sweeps.current[:, 2810:10_790].mean(axis=1)
    before = sweeps.current[:, :2790].mean(axis=1)
    np.testing.assert_allclose(steps.holding, before, atol=0.15)
    np.testing.assert_allclose(steps.amplitude, within - before, atol=0.2)
    np.testing.assert_allclose(steps.amplitude[[0, -1]], [134.4, 338.8], atol=0.2)
    with pytest.raises(ValueError, match="capacitance"):
        passive_membrane(sweeps, steps)


def test_the_membrane_of_a_real_cell_is_measured(data):
    sweeps = recorded(data, "IRrest")
    steps = find_steps(sweeps)
    assert (steps.start, steps.stop) == (520.5, 720.25)
    assert steps.amplitude == pytest.approx(-22.3, abs=0.1)
    found = passive_membrane(sweeps, steps)
    # As after the step, whose end has the potential return by as much.
    V = sweeps.V[0]
    back = V[3600:].mean() - V[2801:2881].mean()
    assert found.resistance == pytest.approx(1e3 * back / 22.3, rel=0.03)
    assert 30 < found.time_constant < 40
    assert 150 < found.capacitance < 190


def test_real_pulses_of_differing_times_are_no_step(data):
    with pytest.raises(ValueError, match="no single step"):
        find_steps(recorded(data, "SpikeRec"))
    steps = find_steps(recorded(data, "APWaveform"))
    assert steps.start == pytest.approx(5.1, abs=0.05)
    assert steps.stop == pytest.approx(55.1, abs=0.05)
