"""Trains that were recorded with pauses: what was not observed is no silence."""

import numpy as np
import pytest

import dicjax as dj
from dicjax.inference.posterior import stretches_of
from dicjax.spikes import end_to_end


def epochs(times, num, pause):
    """A train cut into `num` parts, `pause` ms apart, and when it was observed."""
    parts = np.array_split(times, num)
    shifts = pause * np.arange(num)
    moved = [part + shift for part, shift in zip(parts, shifts, strict=True)]
    return np.concatenate(moved), np.array([part[[0, -1]] for part in moved])


def regular(num, seed=0):
    return np.cumsum(125 + 3 * np.random.default_rng(seed).standard_normal(num))


def bursting(num):
    return np.cumsum(np.tile([31.0, 33.0, 34.0, 36.0, 650.0], num)) + 5.0


@pytest.mark.parametrize(
    "times, names",
    (
        (regular(1800), ("rate", "cv", "cv2", "lv")),
        (bursting(120), ("period", "intra_burst_isi", "spikes_per_burst", "rate")),
    ),
)
@pytest.mark.parametrize("num", (2, 12))
def test_features_are_those_of_the_train_without_its_pauses(times, names, num):
    cut, observed = epochs(times, num, 80_000.0)
    whole = dj.spike_features(dj.SpikeTrain(times))
    found = dj.spike_features(dj.SpikeTrain(cut, observed=observed))
    assert int(found.label) == int(whole.label)
    assert int(found.num_spikes) == times.size
    for name in names:
        assert float(getattr(found, name)) == pytest.approx(
            float(getattr(whole, name)), rel=0.03
        )
    ignorant = dj.spike_features(dj.SpikeTrain(cut))
    assert float(ignorant.rate) < 0.8 * float(whole.rate)


def test_bursts_that_a_pause_cuts_are_left_out():
    times, gap = bursting(20), 7  # within the second burst
    parts = [times[:gap], times[gap:] + 5000.0]
    observed = np.array([part[[0, -1]] for part in parts])
    cut = dj.spike_features(dj.SpikeTrain(np.concatenate(parts), observed=observed))
    whole = dj.spike_features(dj.SpikeTrain(times))
    assert int(whole.num_bursts) - int(cut.num_bursts) == 1
    assert float(cut.period) == pytest.approx(float(whole.period))
    assert float(cut.spikes_per_burst) == 5


def test_features_of_several_trains_are_those_of_each():
    cut, observed = epochs(regular(300), 3, 9000.0)
    trains = [dj.SpikeTrain(cut, observed=observed), dj.SpikeTrain(bursting(30))]
    together = dj.spike_features([*trains, regular(90)])
    for i, train in enumerate(trains):
        alone = dj.spike_features(train)
        assert float(together.cv[i]) == float(alone.cv)
        assert float(together.lv[i]) == float(alone.lv)


def test_no_interval_reaches_across_a_pause():
    times, observed = [1.0, 2.0, 4.0, 100.0, 103.0], np.array([[0, 5], [90, 110.0]])
    train = dj.SpikeTrain(np.array(times), observed=observed)
    assert train.intervals.tolist() == [1.0, 2.0, 3.0]
    assert (train.t_start, train.t_stop, train.duration) == (0.0, 110.0, 25.0)
    assert train.longest.tolist() == [1.0, 2.0, 4.0]
    assert dj.SpikeTrain(np.array(times)).observed.tolist() == [[1.0, 103.0]]


def test_windows_keep_what_was_observed_within_them():
    cut, observed = epochs(regular(300), 3, 9000.0)
    train = dj.SpikeTrain(cut, observed=observed)
    part = train.window(observed[0, 0] + 1000, observed[1, 0] + 1000)
    assert part.observed.shape == (2, 2)
    assert part.duration == pytest.approx(observed[0, 1] - observed[0, 0])
    assert part.intervals.max() < 200
    with pytest.raises(ValueError, match="Nothing was recorded"):
        train.window(observed[0, 1] + 1000, observed[1, 0] - 1000)


@pytest.mark.parametrize(
    "observed, options, words",
    (
        ([[0, 2], [3, 9]], {}, "within what was observed"),
        ([[0, 5], [4, 9]], {}, "rows of start and stop"),
        ([[0, 9, 10]], {}, "rows of start and stop"),
        ([[0, np.nan]], {}, "rows of start and stop"),
        ([[0, 9]], {"t_start": 0.5}, "`t_start`"),
    ),
)
def test_what_was_observed_must_fit(observed, options, words):
    with pytest.raises(ValueError, match=words):
        dj.SpikeTrain(np.array([1.0, 2.5]), observed=np.array(observed), **options)


@pytest.mark.parametrize("num", (2, 12, 200))
def test_stretches_to_read_reach_across_no_pause(num):
    cut, observed = epochs(regular(2000), num, 80_000.0)
    (piece,) = end_to_end([dj.SpikeTrain(cut, observed=observed), regular(500)])
    owner, begins, counts = stretches_of(piece, 160, 8)
    assert np.bincount(owner).tolist() == [8, 8]
    for i, begin, count in zip(owner, begins, counts, strict=True):
        first = piece.starts[i] + begin
        assert 10 <= count <= 160
        assert np.diff(piece.times[first : first + count]).max() < 200


@pytest.mark.slow
def test_the_encoder_reads_no_interval_across_a_pause():
    times = regular(1200)
    cut, observed = epochs(times, 12, 80_000.0)
    train = dj.SpikeTrain(cut, observed=observed)
    both = dj.infer([dj.SpikeTrain(times), dj.SpikeTrain(cut)])
    whole, ignorant = np.asarray(both.median)
    for trains in (train, [train]):
        posterior = dj.infer(trains)
        assert np.abs(np.asarray(posterior.median) - whole).max() < 0.3
        assert posterior.in_distribution.all()
    assert np.abs(ignorant - whole).max() > 1


def test_nothing_odd_is_found_in_a_steady_train_that_paused():
    cut, observed = epochs(regular(1800), 12, 80_000.0)
    assert dj.examine(dj.SpikeTrain(cut, observed=observed)) == []
    (finding,) = dj.examine(cut)
    assert (finding.kind, finding.clean) == ("pause", "pauses")
    assert "11 silences" in finding.message


def test_drift_is_judged_without_pauses():
    times = np.cumsum(60 * np.linspace(1, 2, 400))
    cut, observed = epochs(times, 2, 1e6)
    (finding,) = dj.examine(dj.SpikeTrain(cut, observed=observed))
    assert finding.kind == "drift" and finding.window is not None
    part = dj.SpikeTrain(cut, observed=observed).window(*finding.window)
    assert dj.examine(part) == []


def test_a_burster_with_long_bursts_is_not_taken_for_one_that_paused():
    isi = np.concatenate([np.full(29, 20.0), [3000.0]])
    assert dj.examine(np.cumsum(np.tile(isi, 30))) == []
