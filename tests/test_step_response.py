import efel
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import dicjax as dj


EVERY, START, STOP = 0.05, 400.0, 1200.0
CURRENTS = np.array([-0.5, 0.3, 0.6, 1.0, 2.0])


@pytest.fixture(scope="module")
def traces():
    neuron = dj.MODELS["pospischil-rs"]()
    g = np.tile(neuron.default_g, (len(CURRENTS), 1))
    step = dj.Step(CURRENTS, START, STOP)
    run = dj.simulate(neuron, g, 1500.0, stimulus=step, save_every=EVERY, dt=0.01)
    return run.V


@pytest.fixture(scope="module")
def response(traces):
    return dj.step_response(traces, EVERY, START, STOP)


@pytest.fixture(scope="module")
def by_efel(traces):
    efel.reset()
    efel.set_setting("Threshold", 10.0)
    efel.set_setting("DerivativeThreshold", 10.0)
    efel.set_setting("interp_step", EVERY)
    efel.set_setting("strict_stiminterval", True)
    ts = np.arange(traces.shape[1]) * EVERY
    asked = [
        {"T": ts, "V": V, "stim_start": [START], "stim_end": [STOP]} for V in traces
    ]
    names = [
        "spike_count_stimint",
        "time_to_first_spike",
        "all_ISI_values",
        "AP_amplitude",
        "AP_duration_half_width",
        "voltage_base",
        "steady_state_voltage_stimend",
        "min_between_peaks_values",
        "sag_ratio1",
    ]
    found = efel.get_feature_values(asked, names, None, True, raise_warnings=False)
    return {name: [row[name] for row in found] for name in names}


@pytest.mark.parametrize(
    "ours, name, close",
    [
        ("num_spikes", "spike_count_stimint", 0),
        ("rest", "voltage_base", 1e-3),
        ("steady", "steady_state_voltage_stimend", 0.02),
        ("latency", "time_to_first_spike", 0.35),  # eFEL's is that of the peak
        ("height", "AP_amplitude", 0.3),
        ("width", "AP_duration_half_width", EVERY),
    ],
)
def test_features_are_those_of_efel(response, by_efel, ours, name, close):
    for i, expected in enumerate(by_efel[name]):
        if expected is not None:
            found = float(getattr(response, ours)[i])
            assert abs(found - np.mean(expected)) <= close


def test_intervals_and_troughs_are_those_of_efel(response, by_efel):
    for i in (3, 4):
        intervals = by_efel["all_ISI_values"][i]
        np.testing.assert_allclose(response.rate[i], 1000 / intervals.mean(), rtol=1e-3)
        change = np.diff(intervals) / (intervals[1:] + intervals[:-1])
        assert abs(response.adaptation[i] - change.mean()) < 2e-3
        troughs = by_efel["min_between_peaks_values"][i][: len(intervals)]
        np.testing.assert_allclose(response.depth[i], troughs.mean(), atol=0.05)


def test_what_a_silent_cell_lacks_is_nan(response):
    assert response.num_spikes[0] == 0 and response.rate[0] == 0
    for name in ("latency", "adaptation", "height", "width", "depth"):
        assert np.isnan(getattr(response, name)[0])


def test_only_a_hyperpolarised_cell_has_a_sag(response):
    assert abs(response.sag[0]) < 1e-3
    assert np.isnan(response.sag[1:]).all()


def test_sag_is_the_part_of_the_deflection_that_is_lost():
    t = np.arange(0, 1000, 0.1)
    sagging = -20 + 5 * (1 - np.exp(-np.clip(t - 300, 0, None) / 30))
    V = -70 + np.where((t >= 300) & (t < 800), sagging, 0)
    response = dj.step_response(jnp.asarray(V), 0.1, 300.0, 800.0)
    np.testing.assert_allclose(response.sag, 5 / 20, rtol=1e-4)
    np.testing.assert_allclose(response.steady, -85, rtol=1e-4)


def _with_spikes(times, every, height=40.0, flank=1.0, duration=400.0):
    """Triangles from -60 mV to `height`, `flank` ms to either side."""
    t = np.arange(0, duration, every)
    V = np.full(len(t), -60.0)
    for time in times:
        V = np.maximum(V, height - (height + 60) * np.abs(t - time) / flank)
    return V


@settings(max_examples=20)
@given(
    st.lists(st.integers(25, 340), min_size=1, max_size=8, unique=True).filter(
        lambda x: min(np.diff(sorted(x)), default=9) > 4
    ),
    st.sampled_from([0.01, 0.025, 0.05]),
)
def test_triangles_have_their_heights_widths_and_times(times, every):
    V = jnp.asarray(_with_spikes(times, every))
    response = dj.step_response(V, every, 20.0, 380.0)
    assert response.num_spikes == len(times)
    np.testing.assert_allclose(response.height, 100, atol=100 * every)
    np.testing.assert_allclose(response.width, 1.0, atol=2 * every)
    crossing = min(times) - 1 + 70 / 100  # of 10 mV
    np.testing.assert_allclose(response.latency, crossing - 20, atol=every)
    if len(times) > 1:
        rate = 1000 * (len(times) - 1) / (max(times) - min(times))
        np.testing.assert_allclose(response.rate, rate, rtol=1e-3)


def test_a_spike_counts_once_until_it_has_fallen():
    V = _with_spikes([100, 100.9, 200], 0.05, flank=2.0)  # two peaks, no fall below 0
    assert dj.step_response(jnp.asarray(V), 0.05, 20.0, 380.0).num_spikes == 2
    V[-1000:] = 20.0  # what never falls is no spike
    assert dj.step_response(jnp.asarray(V), 0.05, 20.0, 400.0).num_spikes == 2


@pytest.mark.parametrize(
    "every, start, stop, message",
    [
        (0.0, 1.0, 2.0, "every=0.0"),
        (0.1, 5.0, 5.0, "from 5.0 to 5.0 ms.* 10 ms"),
        (0.1, 5.0, 11.0, "from 5.0 to 11.0 ms"),
        (0.1, -1.0, 5.0, "from -1.0 to 5.0 ms"),
    ],
)
def test_a_step_outside_of_the_trace_is_refused(every, start, stop, message):
    with pytest.raises(ValueError, match=message):
        dj.step_response(jnp.full(100, -70.0), every, start, stop)


def test_leading_axes_stay(traces):
    response = dj.step_response(traces[None, 2:], EVERY, START, STOP)
    assert response.width.shape == (1, 3)


def test_single_precision_is_enough(traces, response):
    single = dj.step_response(traces.astype("f4"), EVERY, START, STOP)
    assert single.rate.dtype == np.float32
    for name in ("rate", "width", "height", "rest"):
        np.testing.assert_allclose(
            getattr(single, name), getattr(response, name), rtol=2e-3
        )


def test_spikes_of_a_recorded_cell_are_counted(data):
    with np.load(data / "current_clamp" / "C010302A1_IDRest.npz") as file:
        V = jnp.asarray(file["voltage_mV"], float)
    response = dj.step_response(V, 0.25, 700.0, 2700.0)
    assert response.num_spikes.tolist() == [8, 9, 11, 13, 15, 18, 21, 24, 27, 30]
    assert np.all(np.diff(response.rate) > 0) and np.all(np.diff(response.latency) < 0)
    assert np.all(response.adaptation > 0)
    assert np.all((response.height > 60) & (response.height < 100))
