"""Stamps with faults: what is refused, what is cleaned on request, and the counts."""

import h5py
import numpy as np
import pytest

import dicjax as dj


RNG = np.random.default_rng(0)
TIMES = np.cumsum(8 + RNG.exponential(90, 400)).round(3)


def saved(path, header="t_ms", **columns):
    """A file with one column, or with one column per neuron."""
    if not columns:
        return path
    names = ",".join(columns) if len(columns) > 1 else header
    rows = zip(*(np.asarray(x).tolist() for x in columns.values()), strict=True)
    lines = [names, *(",".join(map(repr, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def doubled(share=0.05, lag=0.2):
    twice = np.sort(RNG.choice(TIMES.size, int(share * TIMES.size), replace=False))
    return np.sort(np.concatenate([TIMES, TIMES[twice] + lag])), len(twice)


@pytest.mark.parametrize("share, lag", ((0.05, 0.2), (0.003, 0.2), (0.05, 0.45)))
def test_spikes_that_were_detected_twice_are_found_and_dropped(tmp_path, share, lag):
    times, num = doubled(share, lag)
    (finding,) = dj.examine(times)
    assert (finding.kind, finding.clean) == ("doubles", "doubles")
    assert finding.message.startswith(f"{num} of {times.size} spikes")
    path = saved(tmp_path / "cell.csv", a=times)
    with pytest.warns(UserWarning, match=rf"0.5 ms .*cell \({num}\)"):
        (train,) = dj.read_spike_trains(path, clean="doubles")
    assert np.array_equal(train.times, TIMES)
    assert dj.examine(train) == []


def test_a_single_double_does_not_pass(tmp_path):
    (finding,) = dj.examine(np.sort(np.append(TIMES, TIMES[200] + 0.2)))
    assert finding.kind == "doubles"


@pytest.mark.parametrize("share", (0.026, 0.3))
def test_coincident_stamps_are_doubles(tmp_path, share):
    times, num = doubled(share, 0.0)
    path = saved(tmp_path / "cell.csv", a=times)
    with pytest.raises(ValueError, match=f'{num} of .*clean="doubles"'):
        dj.read_spike_trains(path)
    with pytest.warns(UserWarning, match=rf"\({num}\)"):
        (train,) = dj.read_spike_trains(path, clean=["doubles"])
    assert np.array_equal(train.times, TIMES)


def test_stamps_out_of_order_are_sorted_on_request(tmp_path):
    path = saved(tmp_path / "cell.csv", a=RNG.permutation(TIMES))
    with pytest.raises(ValueError, match='clean="order"'):
        dj.read_spike_trains(path)
    with pytest.warns(UserWarning, match=r"sorted stamps.*\(\d+\)"):
        (train,) = dj.read_spike_trains(path, clean="order")
    assert np.array_equal(train.times, TIMES)


def test_trials_are_not_advised_to_be_sorted(tmp_path):
    trials = [np.sort(RNG.uniform(-1000, 1000, 20)).round(3) for _ in range(10)]
    for times in (np.concatenate(trials), np.concatenate([x + 1000 for x in trials])):
        with pytest.raises(ValueError, match="starts over 9 times.*trials") as error:
            dj.read_spike_trains(saved(tmp_path / "cell.csv", a=times))
        assert "order" not in str(error.value)


def test_only_what_is_used_is_checked(tmp_path):
    bad = np.append(TIMES[:-1], 3.0)
    path = saved(tmp_path / "cells.csv", a_ms=TIMES, b_ms=bad)
    (train,) = dj.read_spike_trains(path, unit_id="a_ms")
    assert np.array_equal(train.times, TIMES)
    with pytest.raises(ValueError, match="unit b_ms"):
        dj.read_spike_trains(path)
    good, late = dj.read_spike_trains(path, window=(1000, 20_000))
    assert np.array_equal(good.times, late.times)
    assert (late.t_start, late.t_stop) == (1000.0, 20_000.0)


def test_stamps_that_begin_below_zero_are_counted_from_their_start(tmp_path):
    path = saved(tmp_path / "cell.csv", a=(TIMES - 236.5).round(3))
    with pytest.warns(UserWarning, match="begin below zero"):
        (train,) = dj.read_spike_trains(path)
    np.testing.assert_allclose(train.times, TIMES - TIMES[0], atol=1e-9)
    with pytest.warns(UserWarning, match="dropped negative stamps"):
        (train,) = dj.read_spike_trains(path, clean="negative")
    assert train.times[0] == (TIMES - 236.5)[TIMES > 236.5][0].round(3)


def test_a_mark_of_no_spike_is_no_time(tmp_path):
    path = saved(tmp_path / "cell.csv", a=np.append(-1.0, TIMES))
    with pytest.raises(ValueError, match='spike 0 is at -1.*clean="negative"'):
        dj.read_spike_trains(path)
    (train,) = dj.read_spike_trains(path, window=(0, 1e5))
    assert np.array_equal(train.times, TIMES)
    with pytest.warns(UserWarning, match=r"\(1\)"):
        (train,) = dj.read_spike_trains(path, clean="negative")
    assert np.array_equal(train.times, TIMES)


@pytest.mark.parametrize(
    "header, per, start",
    (("t_ms", 1.0, 1.66e12), ("t_s", 1e3, 1.66e9), ("t_us", 1e-3, 1.66e15)),
)
def test_unix_time_is_counted_from_the_start_of_the_session(
    tmp_path, header, per, start
):
    path = saved(tmp_path / "cell.csv", header, a=start + TIMES / per)
    with pytest.warns(UserWarning, match="counted from its start, at 166"):
        (train,) = dj.read_spike_trains(path)
    np.testing.assert_allclose(train.times, TIMES - TIMES[0], atol=1e-3)
    assert train.t_start == 0.0


def test_neurons_of_a_session_keep_their_clock(tmp_path):
    later = 1.2e9 + 1e3 * np.stack([TIMES, TIMES + 50.0])
    path = saved(tmp_path / "cells.csv", a_us=later[0].round(), b_us=later[1].round())
    with pytest.warns(UserWarning, match="counted from its start"):
        first, second = dj.read_spike_trains(path)
    np.testing.assert_allclose(second.times - first.times, 50.0, atol=2e-3)


@pytest.mark.filterwarnings("ignore:.*counted from its start")
def test_an_overflow_of_32_bits_is_named_and_counted_on(tmp_path):
    samples = np.round(TIMES * 30 + 2**31 - 300_000)
    wrapped = (samples + 2**31) % 2**32 - 2**31
    path = saved(tmp_path / "cell.csv", "spike_samples", a=wrapped.astype(int))
    with pytest.raises(ValueError, match='32 bits.*clean="overflow"'):
        dj.read_spike_trains(path, unit="samples@30000")
    with pytest.warns(UserWarning, match=r"32 bits overflow.*\(1\)"):
        (train,) = dj.read_spike_trains(path, clean="overflow", unit="samples@30000")
    np.testing.assert_allclose(np.diff(train.times), np.diff(TIMES), atol=0.05)


def test_pauses_are_left_out_on_request(tmp_path):
    parts = [TIMES + 200_000.0 * i for i in range(4)]
    path = saved(tmp_path / "cell.csv", a=np.concatenate(parts))
    with pytest.warns(UserWarning, match=r"pauses of the recording: cell \(3\)"):
        (train,) = dj.read_spike_trains(path, clean="pauses")
    assert train.observed.shape == (4, 2)
    assert dj.examine(train) == []


def test_nothing_is_cleaned_that_is_unknown(tmp_path):
    with pytest.raises(ValueError, match="`clean` .*doubles.*'dust'"):
        dj.read_spike_trains(saved(tmp_path / "cell.csv", a=TIMES), clean="dust")


def test_nwb_says_when_units_were_observed(tmp_path):
    path, parts = tmp_path / "epochs.nwb", [TIMES + 200_000.0 * i for i in range(3)]
    ends = np.array([[part[0] - 5, part[-1] + 5] for part in parts])
    outside = np.append(np.concatenate(parts), ends[-1, 1] + 3)
    with h5py.File(path, "w") as file:
        units = file.create_group("units")
        units["spike_times"], units["spike_times_index"] = outside / 1e3, [outside.size]
        units["obs_intervals"], units["obs_intervals_index"] = ends / 1e3, [3]
    (train,) = dj.read_spike_trains(path)
    np.testing.assert_allclose(train.observed[:, 0], ends[:, 0])
    assert train.t_stop == pytest.approx(ends[-1, 1] + 3)  # where a spike is
    assert dj.examine(train) == []
    assert float(dj.spike_features(train).rate) == pytest.approx(
        float(dj.spike_features(TIMES).rate), rel=0.01
    )
