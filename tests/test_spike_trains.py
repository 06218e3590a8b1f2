"""Spike trains on the host: what they refuse, their windows and their padding."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from dicjax.spikes.trains import as_train, as_trains, pad_trains, SpikeTrain


@pytest.mark.parametrize(
    ("times", "message"),
    (
        ([1.0, np.nan, 3.0], "Spike 1 .*'LP'.* nan ms.*finite"),
        ([1.0, np.inf], "Spike 1 .*'LP'.* inf ms.*finite"),
        ([-1.0, 2.0], "Spike 0 .*'LP'.* -1.0 ms.*non-negative"),
        ([1.0, 5.0, 4.0], "Spike 2 .*'LP'.* 4.0 ms.*increasing"),
        ([1.0, 5.0, 5.0], "Spike 2 .*'LP'.* 5.0 ms.*increasing"),
    ),
)
def test_a_spike_train_says_what_is_wrong_with_its_times(times, message):
    with pytest.raises(ValueError, match=message):
        SpikeTrain(np.asarray(times), name="LP")


@pytest.mark.parametrize("span", ({"t_start": 2.0}, {"t_stop": 2.0}))
def test_spikes_outside_the_recording_are_refused(span):
    with pytest.raises(ValueError, match="1.0 to 3.0 ms"):
        SpikeTrain(np.array([1.0, 3.0]), **span)


def test_a_spike_train_keeps_its_own_read_only_copy():
    times = np.array([1.0, 3.0, 4.0])
    train = SpikeTrain(times)
    times[0] = 2.0
    assert train.times[0] == 1.0
    assert (train.num_spikes, train.t_start, train.t_stop) == (3, 1.0, 4.0)
    with pytest.raises(ValueError, match="read-only"):
        train.times[0] = 2.0
    assert SpikeTrain(np.array([]), t_start=5.0).t_stop == 5.0


def test_a_window_keeps_the_spikes_within_it():
    train = SpikeTrain(10.0 * np.arange(20), "LP", "a.csv", t_start=0.0, t_stop=500.0)
    cut = train.window(20.0, 60.0)
    np.testing.assert_array_equal(cut.times, [20, 30, 40, 50, 60])
    assert (cut.name, cut.source, cut.t_start, cut.t_stop) == ("LP", "a.csv", 20, 60)
    assert train.window(-10.0, 1e9).t_stop == 500.0
    assert train.window(300.0, 400.0).num_spikes == 0
    with pytest.raises(ValueError, match="0.0 to 500.0 ms"):
        train.window(600.0, 700.0)


@given(rows=st.lists(st.lists(st.floats(0, 1e6), max_size=64), max_size=5))
def test_padding_keeps_every_spike_and_sorts(rows):
    padded = pad_trains([np.array(row) for row in rows])
    assert padded.shape == (len(rows), max([1, *(len(row) for row in rows)]))
    for row, times in zip(padded, rows, strict=True):
        np.testing.assert_array_equal(row[np.isfinite(row)], np.sort(times))
        assert not np.any(row[1:] < row[:-1])


def test_padding_takes_trains_and_padded_rows_alike():
    row = np.array([1.0, 2.0, np.inf])
    padded = pad_trains([SpikeTrain(np.array([1.0, 2.0])), row], 4)
    np.testing.assert_array_equal(padded[0], [1.0, 2.0, np.inf, np.inf])
    np.testing.assert_array_equal(padded[0], padded[1])


def test_padding_refuses_what_it_would_lose():
    with pytest.raises(ValueError, match="Train 1 .* 3 .*`max_spikes` is 2"):
        pad_trains([np.ones(1), np.arange(3.0)], 2)
    with pytest.raises(ValueError, match="Train 0 .* nan"):
        pad_trains([np.array([np.nan, 1.0])])


TIMES = np.arange(1.0, 13.0)


@pytest.mark.parametrize(
    ("bad", "rule"),
    (
        (TIMES[::-1], "increasing"),
        (np.append(TIMES, 12.0), "strictly increasing"),
        (TIMES - 5, "non-negative"),
        (np.append(TIMES, np.nan), "finite"),
        (np.append(-np.inf, TIMES), "finite"),
        (np.append(np.inf, TIMES), "increasing"),
        (TIMES[:4], "4 spikes"),
        (np.zeros(0), "0 spikes"),
    ),
)
def test_every_train_of_many_is_checked_and_refused_by_number_and_name(bad, rule):
    trains = [TIMES, SpikeTrain(TIMES, name="LP"), bad, TIMES]
    with pytest.raises(ValueError, match=f"train 2 .*{rule}|{rule}.* train 2"):
        as_trains(trains)
    if bad.size:
        rows = np.full((3, 14), np.inf)
        rows[0, :12] = rows[1, :12] = TIMES
        rows[2, : bad.size] = bad
        with pytest.raises(ValueError, match=f"train 2 .*{rule}|{rule}.* train 2"):
            as_trains(rows)
    with pytest.raises(ValueError, match=r"train 1 \('LP'\)"):
        as_trains([TIMES, SpikeTrain(TIMES[:3], name="LP")])
    with pytest.raises(ValueError):
        as_train(bad)


def test_one_train_is_taken_from_whatever_holds_just_one():
    padded = np.append(TIMES, [np.inf, np.inf])
    for form in (TIMES, padded, padded[None], [SpikeTrain(TIMES)], TIMES.tolist()):
        np.testing.assert_array_equal(as_train(form).times, TIMES)
    for several in ([TIMES, TIMES], np.stack([TIMES, TIMES])):
        with pytest.raises(ValueError, match="one"):
            as_train(several)
