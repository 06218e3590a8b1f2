"""Firing patterns of real recordings, as they are and with flaws."""

import h5py
import numpy as np
import pytest

from dicjax.spikes.features import spike_features
from dicjax.spikes.patterns import LABELS
from dicjax.spikes.trains import pad_trains, SpikeTrain


@pytest.mark.parametrize(
    ("name", "period", "spread", "spikes"),
    (
        ("B_baseline", 607, 13, 5),
        ("A_baseline", 920, 75, 4),
        ("A_60min_decentralised", 3105, 86, 5),
    ),
)
def test_recorded_pyloric_neurons_burst(data, name, period, spread, spikes):
    f = recorded(data, f"stg_crab_{name}_LP.csv")
    assert LABELS[int(f.label)] == "bursting"
    assert abs(f.period - period) < spread
    assert abs(f.spikes_per_burst - spikes) < 0.5


def recorded(data, name):
    times = np.loadtxt(data / "recordings" / name, skiprows=1, delimiter=",")
    return spike_features(pad_trains([SpikeTrain(times)], 5000)[0])


def test_two_cells_recorded_as_one_still_burst_with_their_rhythm(data):
    f = recorded(data, "stg_crab_A_baseline_PD.csv")
    assert LABELS[int(f.label)] == "bursting"
    np.testing.assert_allclose(f.period, 958, rtol=0.01)


@pytest.mark.parametrize(
    ("name", "label"),
    (
        ("stg_crab_A_baseline_tonic_unit_IN9.csv", "tonic"),
        ("retinal_ganglion_cell_low_light.csv", "irregular"),
        ("retinal_ganglion_cell_high_light.csv", "irregular"),
        ("gnrh_mouse_example.csv", "irregular"),
    ),
)
def test_other_recordings_have_the_label_of_their_kind(data, name, label):
    assert LABELS[int(recorded(data, name).label)] == label


def test_units_of_a_behaving_animal_are_irregular(data):
    with h5py.File(data / "recordings" / "pynapple_A8604-211122.nwb") as file:
        times = 1000 * np.asarray(file["units/spike_times"])
        ends = np.asarray(file["units/spike_times_index"])
    labels = spike_features(np.split(times, ends[:-1])).label
    assert [LABELS[int(i)] for i in labels] == ["irregular"] * 3


FLAWS = {
    "1 % spurious spikes": lambda t, rng: np.sort(
        np.append(t, rng.uniform(t[0], t[-1], rng.poisson(0.01 * t.size)))
    ),
    "5 % missed spikes": lambda t, rng: t[rng.random(t.size) > 0.05],
    "2 ms of jitter": lambda t, rng: np.sort(t + rng.normal(0, 2, t.size)),
    "half of the time": lambda t, rng: half_of(t, t[0] + rng.random() * np.ptp(t) / 2),
}
UNSTEADY = "retina_wave_mouse_P"  # which comes and goes


def half_of(times, start):
    return times[(times >= start) & (times <= start + np.ptp(times) / 2)]


@pytest.mark.parametrize("flaw", FLAWS)
def test_flaws_of_recordings_leave_their_label(data, flaw):
    rng, kept = np.random.default_rng(0), {}
    folders = (data / "recordings", data / "many_neurons")
    for path in (x for folder in folders for x in folder.glob("*.csv")):
        times = np.genfromtxt(path, skip_header=1)
        copies = [FLAWS[flaw](times, rng) for _ in range(20)]
        found = spike_features([times, *map(np.unique, copies)])
        kept[path.stem] = np.mean(found.label[1:] == found.label[0])
    wrong = {name: share for name, share in kept.items() if share < 0.9}
    assert len(kept) > 20 and set(wrong) <= {UNSTEADY}
