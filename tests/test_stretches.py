"""Steady stretches: on made trains whose changes are known, and on real recordings."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_trains import seeds
from runs import dicjax, write_csv

import dicjax as dj
from dicjax.recordings import pattern_shares
from dicjax.recordings.stretches import cut_to_best
from dicjax.sweeps.config import read_config
from dicjax.sweeps.inputs import read_inputs


def tonic(rng, num, mean=200.0):
    return mean * rng.normal(1, 0.08, num).clip(0.6)


def irregular(rng, num, mean=200.0):
    return 3 + rng.exponential(mean - 3, num)


def bursting(rng, num, period=1000.0):
    """Intervals of whole bursts of five spikes."""
    within = 20 * rng.normal(1, 0.05, (num // 5, 4)).clip(0.7)
    pauses = period * rng.normal(1, 0.05, num // 5) - within.sum(axis=1)
    return np.column_stack([within, pauses]).ravel()


KINDS = {"tonic": tonic, "irregular": irregular, "bursting": bursting}


def train_of(*parts):
    return dj.SpikeTrain(np.cumsum(np.concatenate(parts)))


def ends(*parts):
    """Times of the changes between parts."""
    return np.cumsum([part.sum() for part in parts])[:-1]


def bounds(train):
    return [x.stop for x in dj.steady_stretches(train)][:-1]


def changing(seed):
    """A train of two or three kinds, of which none is like the one before it."""
    rng = np.random.default_rng(seed)
    names = rng.permutation([*KINDS])[: rng.integers(2, 4)]
    return train_of(*(KINDS[name](rng, 200) for name in names))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num", (200, 1000))
def test_a_steady_train_is_one_stretch(kind, num):
    rng = np.random.default_rng(0)
    trains = [train_of(KINDS[kind](rng, num)) for _ in range(20)]
    found = [dj.steady_stretches(train) for train in trains]
    assert sum(len(stretches) > 1 for stretches in found) <= 1
    for train, (whole, *_) in zip(trains, found, strict=True):
        assert whole.pattern == kind and whole.start == train.t_start


@pytest.mark.parametrize(
    "kinds",
    (
        ("tonic", "irregular"),
        ("irregular", "bursting"),
        ("tonic", "bursting", "irregular"),
        ("tonic", "bursting", "tonic"),
    ),
)
def test_changes_of_pattern_are_found_where_they_are(kinds):
    rng, right = np.random.default_rng(0), 0
    for _ in range(10):
        parts = [KINDS[kind](rng, 300) for kind in kinds]
        train = train_of(*parts)
        stretches = dj.steady_stretches(train)
        if tuple(x.pattern for x in stretches) == kinds:
            away = np.abs([x.stop for x in stretches[:-1]] - ends(*parts))
            right += bool((away < 0.02 * train.duration).all())
    assert right >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_rate_is_found_where_it_is(kind):
    rng = np.random.default_rng(0)
    before = KINDS[kind](rng, 400)
    after = KINDS[kind](rng, 400) / 2.5
    (bound,) = bounds(train_of(before, after))
    assert abs(bound - before.sum()) < 0.03 * (before.sum() + after.sum())


def test_a_drift_is_parted_into_stretches_in_which_little_changes():
    train = train_of(tonic(np.random.default_rng(0), 1000) * np.linspace(1, 3, 1000))
    stretches = dj.steady_stretches(train)
    assert 2 <= len(stretches) <= 6
    assert min(x.steadiness for x in stretches) > 0.65


def test_a_lone_gap_changes_nothing_and_a_long_pause_does():
    isi = tonic(np.random.default_rng(0), 500)
    isi[200] *= 12
    assert len(dj.steady_stretches(np.cumsum(isi))) == 1
    isi[200] = 0.2 * isi.sum()
    first, pause, last = dj.steady_stretches(np.cumsum(isi))
    assert (first.pattern, pause.pattern, last.pattern) == ("tonic", "silent", "tonic")
    assert pause.duration == pytest.approx(isi[200])


def test_a_tonic_train_that_is_interrupted_offers_what_is_tonic():
    rng = np.random.default_rng(0)
    parts = [kind(rng, num) for kind, num in 6 * [(tonic, 400), (irregular, 60)]]
    train = train_of(*parts)
    shares = pattern_shares(dj.steady_stretches(train))
    assert dj.best_stretch(train).pattern == "tonic" and shares["tonic"] > 0.7


def test_a_cell_that_falls_silent_is_used_until_then():
    times = np.cumsum(tonic(np.random.default_rng(0), 300))
    train = dj.SpikeTrain(times, t_start=0.0, t_stop=2 * times[-1])
    stretches = dj.steady_stretches(train)
    assert [x.pattern for x in stretches] == ["tonic", "silent"]
    assert (stretches[0].start, stretches[0].stop) == (0.0, times[-1])


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0.01, 100), st.floats(0, 1e6))
def test_stretches_move_with_time(seed, scale, shift):
    train = changing(seed)
    moved = dj.SpikeTrain(scale * train.times + shift)
    found, again = dj.steady_stretches(train), dj.steady_stretches(moved)
    assert [x.num_spikes for x in found] == [x.num_spikes for x in again]
    assert [x.pattern for x in found] == [x.pattern for x in again]
    stops = np.array([x.stop for x in found])
    np.testing.assert_allclose([x.stop for x in again], scale * stops + shift)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_a_stretch_that_is_cut_out_is_found_whole(seed):
    train = changing(seed)
    for stretch in dj.steady_stretches(train):
        (again,) = dj.steady_stretches(train.window(stretch.start, stretch.stop))
        assert again == stretch


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_stretches_cover_what_was_observed_and_no_more(seed):
    train = changing(seed)
    half, gap = train.times[train.num_spikes // 2], 1e5
    late = train.times > half
    times = np.where(late, train.times + gap, train.times)
    ends = [[0, half + 1], [half + gap, times[-1] + 50]]
    split = dj.SpikeTrain(times, observed=np.array(ends))
    stretches = dj.steady_stretches(split)
    for (start, stop), (a, b) in zip(
        split.observed, ((0, half + 1), (half + gap, np.inf)), strict=True
    ):
        own = [x for x in stretches if start <= x.start and x.stop <= stop]
        assert own and own[0].start == start and own[-1].stop == stop
        assert all(x.stop == y.start for x, y in zip(own[:-1], own[1:], strict=True))
        assert a <= start < stop <= b
    assert sum(x.duration for x in stretches) == pytest.approx(split.duration)


def test_a_train_that_is_steady_but_for_unobserved_times_is_taken_whole():
    rng = np.random.default_rng(0)
    one, other = np.cumsum(tonic(rng, 200)), np.cumsum(tonic(rng, 200)) + 1e6
    observed = np.array([[0, one[-1]], [1e6, other[-1]]])
    train = dj.SpikeTrain(np.append(one, other), observed=observed)
    assert len(dj.steady_stretches(train)) == 2
    assert cut_to_best(train) is train
    assert dj.examine(train) == []


@pytest.mark.parametrize("times", ([], [5.0], [5.0, 6.0], [1.0, 2.0, 4.0, 8.0]))
def test_trains_of_few_spikes_are_one_stretch(times):
    stretches = dj.steady_stretches(dj.SpikeTrain(np.array(times)))
    assert [x.num_spikes for x in stretches] == ([len(times)] if times else [])


def test_no_spikes_have_no_best_stretch():
    with pytest.raises(ValueError, match="no spikes"):
        dj.best_stretch(np.zeros(0))


def test_a_shorter_regular_stretch_is_preferred_to_an_irregular_one():
    rng = np.random.default_rng(0)
    train = train_of(tonic(rng, 300), irregular(rng, 400))
    assert dj.best_stretch(train).pattern == "tonic"
    train = train_of(tonic(rng, 100), irregular(rng, 900))
    assert dj.best_stretch(train).pattern == "irregular"


def test_a_million_spikes_take_seconds():
    rng = np.random.default_rng(0)
    train = train_of(irregular(rng, 500_000, 4.0), irregular(rng, 500_000, 10.0))
    started = time.process_time()
    assert len(dj.steady_stretches(train)) == 2
    assert time.process_time() - started < 60


def test_a_change_is_pointed_out_with_the_stretch_to_use():
    rng = np.random.default_rng(0)
    parts = irregular(rng, 80), tonic(rng, 400), irregular(rng, 80)
    train = train_of(*parts)
    (finding,) = dj.examine(train)
    best = dj.best_stretch(train)
    assert finding.kind == "changes" and finding.window == (best.start, best.stop)
    assert finding.message.startswith("The train is tonic for ")
    remedies = dj.advice_of(finding.message).remedies
    assert remedies[0] == dj.Remedy("window", "auto")
    assert dj.examine(train.window(best.start, best.stop)) == []


def test_a_motor_unit_is_used_where_it_fires_steadily(data):
    path = data / "many_neurons/motor_unit_human_a.csv"
    with pytest.warns(UserWarning, match="used where it is steady, from 13196 to"):
        (train,) = dj.read_spike_trains(path, window="auto")
    assert 12e3 < train.t_start < 16e3 and 58e3 < train.t_stop < 63e3
    (whole,) = dj.read_spike_trains(path)
    assert round(pattern_shares(dj.steady_stretches(whole))["tonic"], 2) == 0.83


@pytest.mark.parametrize(
    ("name", "pattern", "share"),
    (
        ("purkinje_slice_ctl", "tonic", 1.0),  # one gap of 2 s in 298 s
        ("hipsc_neuron_b", "bursting", 1.0),
        ("punit_electric_fish_a", "irregular", 1.0),
        ("cockroach_AL_c", "irregular", 1.0),
        ("hippocampus_culture", "irregular", 1.0),
        ("ca1_pyramidal_place", "bursting", 0.39),  # at rest, after running
    ),
)
def test_real_recordings_are_parted_as_people_would(data, name, pattern, share):
    (train,) = dj.read_spike_trains(data / f"many_neurons/{name}.csv")
    best = dj.best_stretch(train)
    assert best.pattern == pattern
    assert best.duration / train.duration == pytest.approx(share, abs=0.05)


def test_commands_take_the_steady_stretch_and_say_so(tmp_path, capsys):
    rng = np.random.default_rng(0)
    train = train_of(irregular(rng, 80), tonic(rng, 300, 100.0))
    recording = write_csv(tmp_path / "recording.csv", train.times.tolist())
    best = dj.best_stretch(train)
    out = tmp_path / "features.csv"
    assert dicjax("features", recording, "--window", "auto", "--out", out) == 0
    said = capsys.readouterr().err
    assert f"from {best.start:.0f} to {best.stop:.0f} ms" in said
    names, values = (line.split(",") for line in out.read_text().splitlines())
    row = dict(zip((x.strip('"') for x in names), values, strict=True))
    assert float(row["window_start"]) == pytest.approx(best.start)
    assert float(row["share_tonic"]) == 1 and row["label"] == '"tonic"'
    assert dicjax("features", recording, "--out", out) == 0
    assert "--window auto" in capsys.readouterr().err
    assert dicjax("features", recording, "--window", "atuo") == 2


@pytest.mark.slow
def test_generate_writes_the_stretch_into_its_manifest(tmp_path):
    rng = np.random.default_rng(0)
    train = train_of(irregular(rng, 80), tonic(rng, 300, 100.0))
    recording = write_csv(tmp_path / "recording.csv", train.times.tolist())
    out = tmp_path / "out"
    how = ("--window", "auto", "--members", 2, "--budget", 512, "--out", out)
    assert dicjax("generate", recording, *how) == 0
    about = json.loads((out / "manifest.json").read_text())
    best = dj.best_stretch(train)
    assert about["settings"]["window_ms"] == pytest.approx([best.start, best.stop])


def test_a_sweep_takes_the_stretch_of_each_recording(tmp_path):
    rng = np.random.default_rng(0)
    trains = [train_of(irregular(rng, 80), tonic(rng, 300, 100.0)) for _ in range(2)]
    for i, train in enumerate(trains):
        write_csv(tmp_path / f"cell{i}.csv", train.times.tolist())
    config = tmp_path / "sweep.toml"
    head = 'job = "generate"\nseed = 1\n[targets]\nrecordings = ["*.csv"]\n'
    config.write_text(head + 'unit = "ms"\nwindow = "auto"\n')
    with pytest.warns(UserWarning, match="used where it is steady"):
        targets = read_inputs(read_config(config))["targets"].to_pylist()
    for row, train in zip(targets, trains, strict=True):
        best = dj.best_stretch(train)
        assert (row["t_start"], row["t_stop"]) == (best.start, best.stop)
    config.write_text(head + 'unit = "ms"\nwindow = "all"\n')
    with pytest.raises(ValueError, match="window"):
        read_config(config)


def test_a_window_in_words_must_be_auto(tmp_path):
    recording = write_csv(tmp_path / "recording.csv", range(10, 500, 10))
    with pytest.raises(ValueError, match="\"auto\", not 'all'"):
        dj.read_spike_trains(recording, window="all")  # pyright: ignore
