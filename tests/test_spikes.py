import dataclasses
import sys
import types

import elephant.statistics as statistics
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import neo
import numpy as np
import pytest
import quantities as pq
from hypothesis import example, given
from jax.test_util import check_grads
from made_trains import (
    burster,
    bursting,
    features_of,
    KINDS,
    metronome,
    paused,
    poisson,
    tonic,
    trains,
    WIDTH,
)
from numpy.typing import ArrayLike

import dicjax as dj
from dicjax.simulation.simulate import Run
from dicjax.spikes.features import burst_gap, spike_features
from dicjax.spikes.patterns import LABELS
from dicjax.spikes.trains import pad_trains, SpikeTrain, times_of


trains_module = sys.modules["dicjax.spikes.trains"]
FIELDS = (
    *("label", "num_spikes", "rate", "mean_isi", "cv", "cv2", "lv", "isi_quartiles"),
    *("num_bursts", "period", "intra_burst_isi", "spikes_per_burst"),
    *("burst_duration", "duty_cycle", "period_cv", "spikes_per_burst_sd"),
    *("intra_burst_cv", "serial_correlation"),
)


def label_of(times, **kwargs):
    return LABELS[int(features_of(times, **kwargs).label)]


def assert_same(a, b, rtol=1e-9, atol=1e-12):
    for field in FIELDS:
        x, y = (np.asarray(getattr(f, field), np.float64) for f in (a, b))
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=field)


# The definition, written to be read


def split_into_bursts(times, threshold):
    bursts = [[times[0]]]
    for before, time in zip(times[:-1], times[1:], strict=True):
        if time - before > threshold:
            bursts.append([])
        bursts[-1].append(time)
    return bursts


def widest_gap(isi):
    """How many times as wide as it must be the widest gap is, and its middle."""
    isi, widest = np.sort(isi), (0.0, np.inf)
    for k in range(1, len(isi)):
        longer = len(isi) - k
        if longer < max(2, len(isi) / 200) or 3 * k + 3 < len(isi):
            continue
        strays = min(k, longer) // 5
        for below, above, least in (
            *((0, 0, 1.8), (0, strays, 2.2), (strays, 0, 2.2)),
            (strays // 2, strays - strays // 2, 2.2),
        ):
            low, high = isi[k - 1 - below], isi[k + above]
            if high / low / least > widest[0]:
                widest = (high / low / least, np.sqrt(low * high))
    return widest


def bursts_of(times):
    if len(times) < 6:
        return None
    clearness, middle = widest_gap(np.diff(times))
    counts = np.array([len(b) for b in split_into_bursts(times, middle)])
    complete, many = counts[1:-1], counts[1:-1][counts[1:-1] > 1]
    if clearness < 1 or len(counts) < 3 or complete.mean() < 1.5:
        return None
    if many.std() >= 0.7 * many.mean() > 0:
        return None
    pauses = np.diff(times)[np.diff(times) > middle]
    if pauses.std() >= 1.5 * pauses.mean():
        return None
    outer = max(counts[0], counts[-1])
    if outer > 3 * complete.mean() and 2 * complete.sum() < len(times):
        return None
    return split_into_bursts(times, middle)


def is_regular_but_for_some(times):
    isi = np.diff(times)
    near = isi[(isi <= 1.4 * ordinary(isi)) & (1.4 * isi > ordinary(isi))]
    if near.std() >= 0.15 * near.mean() or len(times) < 6:
        return False
    if len(near) < 0.8 * len(isi) or near.mean() < 0.85 * isi.mean():
        return False
    clearness, middle = widest_gap(isi)
    runs = np.array([len(b) for b in split_into_bursts(times, middle)][1:-1])
    if clearness >= 0.8 and len(runs) > 2 and runs.std() < 0.5 * runs.mean():
        return False
    long = isi[isi > 1.4 * ordinary(isi)] / ordinary(isi)
    are_multiples = np.abs(long - np.round(long)) < 0.25
    return bursts_of(times) is None or not len(long) or are_multiples.mean() >= 0.6


def ordinary(isi):
    return np.sort(isi)[(len(isi) - 1) // 2]


@dataclasses.dataclass
class Reference:
    num_spikes: int
    label: int = 0
    rate: ArrayLike = np.nan
    mean_isi: ArrayLike = np.nan
    cv: ArrayLike = np.nan
    cv2: ArrayLike = np.nan
    lv: ArrayLike = np.nan
    isi_quartiles: ArrayLike = (np.nan, np.nan, np.nan)
    num_bursts: int = 0
    period: ArrayLike = np.nan
    intra_burst_isi: ArrayLike = np.nan
    spikes_per_burst: ArrayLike = np.nan
    burst_duration: ArrayLike = np.nan
    duty_cycle: ArrayLike = np.nan
    period_cv: ArrayLike = np.nan
    spikes_per_burst_sd: ArrayLike = np.nan
    intra_burst_cv: ArrayLike = np.nan
    serial_correlation: ArrayLike = np.nan


def reference(times):
    r = Reference(len(times))
    isi, cv = np.diff(times), np.nan
    if len(isi) > 0:
        r.mean_isi = np.mean(isi)
        r.rate = 1000 / np.mean(isi)
        r.isi_quartiles = np.exp(np.percentile(np.log(isi), [25, 50, 75]))
    if len(isi) > 1:
        change = np.abs(np.diff(isi)) / (isi[1:] + isi[:-1])
        r.cv = cv = np.std(isi) / np.mean(isi)
        r.cv2 = np.mean(2 * change)
        r.lv = np.mean(3 * change**2)
        away = np.log(isi) - np.mean(np.log(isi))
        if np.mean(away**2) > 1e-10:
            r.serial_correlation = np.mean(away[1:] * away[:-1]) / np.mean(away**2)
    bursts = bursts_of(times)
    if len(times) < 3:
        r.label = LABELS.index("silent")
    elif cv < 0.15 or is_regular_but_for_some(times):
        r.label = LABELS.index("tonic")
    elif bursts is None:
        r.label = LABELS.index("irregular")
    else:
        r.label = LABELS.index("bursting")
        complete = bursts[1:-1]
        r.num_bursts = len(complete)
        onsets = [burst[0] for burst in bursts[1:]]
        durations = [burst[-1] - burst[0] for burst in complete]
        r.period = np.mean(np.diff(onsets))
        r.intra_burst_isi = np.mean(np.concatenate([np.diff(b) for b in complete]))
        r.spikes_per_burst = np.mean([len(b) for b in complete])
        r.burst_duration = np.mean(durations)
        r.duty_cycle = np.mean(durations) / np.mean(np.diff(onsets))
        within = np.concatenate([np.diff(burst) for burst in complete])
        r.intra_burst_cv = np.std(within) / np.mean(within)
        if len(complete) > 1:
            r.period_cv = np.std(np.diff(onsets)) / np.mean(np.diff(onsets))
            r.spikes_per_burst_sd = np.std([len(b) for b in complete])
    return r


@given(times=trains())
@example(times=np.array([]))
@example(times=np.array([5.0]))
@example(times=np.array([5.0, 7.0]))
@example(times=burster(num=2))
@example(times=burster(num=3))
@example(times=burster(spikes=1, num=WIDTH))
def test_features_follow_their_definition(times):
    assert_same(features_of(times), reference(times))


def test_every_pattern_is_among_the_trains_that_test_the_definition():
    rng = np.random.default_rng(0)
    labels = {LABELS[reference(kind(rng)).label] for kind in KINDS for _ in range(20)}
    assert labels == set(LABELS)


def test_a_long_train_follows_the_definition():
    rng = np.random.default_rng(0)
    times = bursting(rng, num=700)[:3000]
    assert_same(features_of(times, width=3000), reference(times))


# Known limits


@pytest.mark.parametrize("spikes", (2, 5, 8))
def test_the_burst_gap_lies_between_intervals_and_pauses(spikes):
    f = features_of(burster(400.0, spikes, 40.0))
    assert LABELS[int(f.label)] == "bursting"
    pause = 400.0 - 40.0 * (spikes - 1)
    assert burst_gap(f) == pytest.approx(np.sqrt(40.0 * pause), rel=1e-4)
    assert 40.0 < float(burst_gap(f)) < pause


@given(period=st.floats(1, 5000), num=st.integers(3, WIDTH))
def test_a_train_of_equal_intervals_is_tonic(period, num):
    f = features_of(metronome(period, num))
    assert LABELS[int(f.label)] == "tonic"
    np.testing.assert_allclose([f.cv, f.cv2, f.lv], 0, atol=1e-9)
    np.testing.assert_allclose([f.mean_isi, *f.isi_quartiles], period)
    assert jnp.isnan(f.period) & (f.num_bursts == 0)


@given(
    period=st.floats(500, 5000),
    spikes=st.integers(2, 8),
    isi=st.floats(2, 20),
    num=st.integers(3, 8),
)
def test_a_constructed_burster_gives_its_numbers_back(period, spikes, isi, num):
    if spikes * num < 6 or isi * 1.8 * spikes > period:
        return
    f = features_of(burster(period, spikes, isi, num))
    assert LABELS[int(f.label)] == "bursting"
    assert f.num_bursts == num - 2
    np.testing.assert_allclose(f.period, period)
    np.testing.assert_allclose(f.spikes_per_burst, spikes)
    np.testing.assert_allclose(f.intra_burst_isi, isi)
    np.testing.assert_allclose(f.burst_duration, isi * (spikes - 1))
    np.testing.assert_allclose(f.duty_cycle, isi * (spikes - 1) / period)


def test_cut_bursts_at_the_ends_do_not_count():
    whole = burster(num=8)
    fields = ("period", "intra_burst_isi", "spikes_per_burst", "burst_duration")
    for times in (whole, whole[3:], whole[:-4], whole[1:-1]):
        for field in fields:
            expected = getattr(features_of(whole), field)
            np.testing.assert_allclose(getattr(features_of(times), field), expected)


@pytest.mark.parametrize(
    ("times", "label"),
    (
        (np.array([]), "silent"),
        (metronome(100, 2), "silent"),
        (metronome(100, 3), "tonic"),
        (burster(spikes=2, num=2), "irregular"),  # two bursts
        (burster(spikes=2, num=3), "bursting"),  # six spikes, three bursts
        (burster(spikes=2, num=3)[1:], "irregular"),  # five spikes
        # Neighbouring ISIs differ by a factor of 1.75, and of 1.85.
        (burster(70 + 4 * 40, 5, 40), "irregular"),
        (burster(74 + 4 * 40, 5, 40), "bursting"),
        # 1.4 and 1.6 spikes per complete burst.
        (np.cumsum([50, 9, *5 * [100], 9, *2 * [100], 9, 100, 100, 9]), "irregular"),
        (np.cumsum([50, 9, 100, 9, 100, 9, *3 * [100], 9, 100, 9]), "bursting"),
    ),
)
def test_the_label_changes_where_the_rule_says(times, label):
    assert label_of(times) == label


@pytest.mark.parametrize(
    ("counts", "label"),
    (
        ((250, 4, 98), "irregular"),  # the only whole burst is the smallest
        ((2, 4, 3), "bursting"),
        (20 * (5,) + (40,), "bursting"),  # twenty others count for more
    ),
)
def test_bursts_that_may_be_cut_must_not_be_the_largest(counts, label):
    intervals = [[*(num - 1) * [10.0], 500.0] for num in counts]
    assert label_of(np.cumsum(np.concatenate(intervals)[:-1]), width=400) == label


def test_missed_and_spurious_spikes_leave_a_tonic_train_tonic():
    rng = np.random.default_rng(0)
    whole = np.cumsum(rng.normal(100, 5, 400))
    missed = whole[rng.random(400) > 0.08]
    spurious = np.sort(np.append(whole, rng.uniform(0, whole[-1], 12)))
    assert {label_of(x, width=512) for x in (missed, spurious)} == {"tonic"}


@pytest.mark.parametrize("times", (burster(num=40), metronome(100, 200)))
def test_a_long_pause_is_no_part_of_a_rhythm(times):
    paused = times + 50_000 * (times > times[-1] / 2)
    assert label_of(times, width=400) != "irregular"
    assert label_of(paused, width=400) == "irregular"


@pytest.mark.parametrize(("cv", "label"), ((0.149, "tonic"), (0.151, "irregular")))
def test_tonic_ends_at_its_coefficient_of_variation(cv, label):
    intervals = 100 * (1 + cv * np.where(np.arange(40) % 2, 1, -1))
    assert label_of(np.cumsum(intervals)) == label


@given(times=trains(), scale=st.floats(0.5, 20), start=st.floats(0, 1e5))
def test_features_scale_with_time_and_ignore_when_it_starts(times, scale, start):
    f, g = features_of(times), features_of(start + scale * times)
    assert f.label == g.label
    np.testing.assert_allclose(scale * f.isi_quartiles, g.isi_quartiles, rtol=1e-5)
    np.testing.assert_allclose(scale * f.period, g.period, rtol=1e-6)
    np.testing.assert_allclose(f.rate, scale * g.rate, rtol=1e-6)
    np.testing.assert_allclose([f.cv, f.cv2], [g.cv, g.cv2], rtol=1e-4, atol=1e-6)


# Batches, padding, precision, gradients


def batch():
    rng = np.random.default_rng(1)
    return [kind(rng) for kind in KINDS] + [np.array([]), burster()]


def test_to_the_last_bit_a_batch_gives_what_each_train_gives_alone():
    rows = pad_trains(20 * batch(), WIDTH).astype(np.float32)
    together = spike_features(rows)
    for i in range(len(batch())):
        of_batch = jax.tree.map(lambda x, i=i: x[i], together)
        assert_same(of_batch, spike_features(rows[i]), rtol=0, atol=0)
        assert_same(of_batch, features_of(batch()[i]), rtol=1e-4)


def test_leading_axes_are_kept():
    rows = pad_trains([*batch(), np.array([1.0])], WIDTH).reshape(2, 4, WIDTH)
    f = spike_features(rows)
    assert f.label.shape == f.period.shape == f.num_bursts.shape == (2, 4)
    assert f.isi_quartiles.shape == (2, 4, 3)
    assert_same(jax.tree.map(lambda x: x[1], f), spike_features(rows[1]))


def test_padding_never_changes_a_result():
    kept, width = batch(), 3 * WIDTH
    narrow, wide = pad_trains(kept, WIDTH), pad_trains(kept, width)
    assert_same(spike_features(narrow), spike_features(wide))


@pytest.mark.parametrize("width", (0, 1, 2))
def test_rows_too_short_for_intervals_are_silent(width):
    f = spike_features(np.arange(2.0 * width).reshape(2, width))
    assert jnp.all(f.label == 0) & jnp.all(f.num_spikes == width)
    assert jnp.all(jnp.isnan(f.mean_isi)) == (width < 2)
    assert jnp.all(jnp.isnan(f.cv)) & jnp.all(jnp.isnan(f.period))


@given(times=trains())
def test_host_and_device_arrays_agree(times):
    row = pad_trains([times], WIDTH)
    assert_same(spike_features(row), spike_features(jnp.asarray(row)))


def test_float32_stays_float32_and_is_accurate():
    for times in (tonic(np.random.default_rng(0)), burster(), batch()[1]):
        single, double = features_of(times, np.float32), features_of(times)
        assert single.rate.dtype == single.isi_quartiles.dtype == jnp.float32
        assert_same(single, double, rtol=1e-4)
    on_host = spike_features(burster().astype(np.float32))
    assert on_host.rate.dtype == jnp.float32


def test_long_recordings_on_the_host_lose_nothing_to_float32():
    # At 1e6 ms float32 resolves 0.06 ms, which the intervals must not inherit.
    times = 1e6 + burster(isi=2.1)
    with jax.enable_x64(False):
        f = spike_features(pad_trains([times], WIDTH)[0])
    assert f.intra_burst_isi.dtype == jnp.float32
    np.testing.assert_allclose(f.intra_burst_isi, 2.1, rtol=1e-5)
    np.testing.assert_allclose(f.period, 1000, rtol=1e-6)


def test_spikes_that_coincide_in_float32_do_no_harm():
    times = jnp.asarray([1.0, 1.0, 1.0, 50.0, 99.0, 180.0, jnp.inf], jnp.float32)
    f = spike_features(times)
    assert LABELS[int(f.label)] == "irregular"
    assert all(jnp.all(jnp.isfinite(x)) for x in (f.cv, f.cv2, f.lv, f.isi_quartiles))


@pytest.mark.parametrize(
    "kind", (pytest.param(poisson, marks=pytest.mark.slow), bursting)
)
def test_features_are_differentiable(kind):
    times = jnp.asarray(kind(np.random.default_rng(3))[:WIDTH])

    @jax.jit
    def summary(times):
        f = spike_features(jnp.append(times, jnp.inf))
        shape = jnp.stack([f.mean_isi, 100 * f.cv, 100 * f.cv2, 100 * f.lv])
        bursts = jnp.stack([f.period, f.intra_burst_isi, f.duty_cycle])
        bursts = jnp.where(jnp.isnan(bursts), 0, bursts)
        return jnp.concatenate([shape, f.isi_quartiles, bursts])

    check_grads(summary, (times,), order=1, modes=("fwd", "rev"), eps=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "times", ([3.0, 2.0], [1.0, np.nan, 2.0], [np.inf, 1.0], [-np.inf, 1.0], [np.nan])
)
def test_rows_on_the_host_that_are_out_of_order_are_refused_by_number(times):
    rows = [np.arange(4.0), np.array(times)]
    for several in (rows, [rows[0], np.append(times, np.inf)]):
        with pytest.raises(ValueError, match="train 1 "):
            spike_features(several)
    with pytest.raises(ValueError, match="train 0 "):
        spike_features(np.array(times))


# What comes from dicjax goes back in


def test_trains_in_any_form_have_the_same_features():
    times = [kind(np.random.default_rng(2)) for kind in KINDS]
    rows = pad_trains(times)
    expected = spike_features(rows)
    named = [SpikeTrain(x, name="unit") for x in times]
    run = Run(
        rows,
        np.isfinite(rows).sum(1),
        *np.array([[True], [False], [False]]).repeat(5, 1),
    )
    stored = types.SimpleNamespace(spike_times=tuple(times))
    for form in (times, tuple(named), rows.tolist(), list(rows), run):
        assert_same(spike_features(form), expected, rtol=0, atol=0)
    ragged = np.empty(5, object)
    ragged[:] = times
    for form in (ragged, stored):
        assert_same(spike_features(times_of(form)), expected, rtol=0, atol=0)
    one = jax.tree.map(lambda x: x[1], expected)
    assert_same(spike_features(named[1]), one, rtol=0, atol=0)
    assert_same(spike_features(times[1].tolist()), one, rtol=0, atol=0)
    assert spike_features([]).label.shape == (0,)
    for nothing in (None, 3.0, np.array(3.0)):
        with pytest.raises(ValueError):
            times_of(nothing)


def test_features_of_a_trajectory_are_a_pure_function():
    neuron = dj.hodgkin_huxley()
    g = jnp.asarray(neuron.default_g)

    def features(scale):
        solved = dj.solve(neuron, scale * g, ts, stimulus=dj.Step(10.0), max_spikes=8)
        return spike_features(solved), solved.spike_times

    ts = np.linspace(0.0, 60.0, 3)
    scales = jnp.array([1.0, 1.1])
    found, times = jax.jit(jax.vmap(features))(scales)
    assert found.num_spikes.min() > 2
    assert_same(found, spike_features(np.asarray(times)), rtol=1e-6)


def test_arrays_of_jax_stay_as_they_are_and_others_keep_their_precision():
    rows = pad_trains(batch(), WIDTH)
    for dtype in (np.float32, np.float64):
        device = jnp.asarray(rows, dtype)
        for times in (device, rows.astype(dtype)):
            found = spike_features(times)
            assert isinstance(found.rate, jax.Array)
            assert found.rate.dtype == dtype
            assert found.rate.devices() == device.devices()


def test_trains_known_on_the_host_are_measured_while_jax_traces_others():
    target = burster(isi=21.0)
    own = lambda x: spike_features(x).period / spike_features(target).period
    ratio = jax.jit(own)(jnp.asarray(burster(2000.0)))
    np.testing.assert_allclose(ratio, 2)


@pytest.mark.parametrize("at_once", (100, 1000))
def test_features_do_not_depend_on_the_pieces_that_trains_are_taken_in(
    monkeypatch, at_once
):
    times = [kind(np.random.default_rng(4)) for kind in KINDS for _ in range(5)]
    rows = pad_trains(times)
    whole = spike_features(rows)
    monkeypatch.setattr(trains_module, "AT_ONCE", at_once)
    assert_same(spike_features(rows), whole, rtol=0, atol=0)
    assert_same(spike_features(times), whole, rtol=0, atol=0)
    bad = [*times[:20], times[20][::-1]]
    with pytest.raises(ValueError, match="train 20 "):
        spike_features(bad)


def test_features_show_their_patterns_and_values():
    text = repr(spike_features(pad_trains(batch())))
    assert text.startswith("Features: 7 trains, 2 silent, 1 tonic, 2 bursting, ")
    assert "num_spikes: [40, 64, " in text
    many = repr(spike_features(np.arange(90.0).reshape(30, 3)))
    assert "30 trains, 30 tonic" in many
    assert "num_spikes: int32[30], 3 to 3" in many
    traced = []
    jax.jit(lambda x: traced.append(repr(spike_features(x))))(jnp.arange(5.0))
    assert "rate: f64[]" in traced[0]


# Against elephant, scipy and each other


@pytest.mark.parametrize("kind", (tonic, poisson, bursting, paused))
def test_statistics_agree_with_elephant(kind):
    times = kind(np.random.default_rng(7))
    f, isi = features_of(times), np.diff(times)
    theirs = [float(measure(isi)) for measure in (statistics.cv2, statistics.lv)]
    np.testing.assert_allclose([f.cv2, f.lv], theirs, rtol=1e-9)
    np.testing.assert_allclose(f.cv, statistics.cv(isi), rtol=1e-9)
    # One spike fewer than intervals: elephant divides spikes by the duration.
    open_ended = neo.SpikeTrain(
        times[:-1], units="ms", t_start=times[0], t_stop=times[-1]
    )
    rate = statistics.mean_firing_rate(open_ended).rescale(pq.Hz).item()
    np.testing.assert_allclose(f.rate, rate, rtol=1e-9)
