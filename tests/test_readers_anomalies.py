"""What is odd about trains: on recordings whose oddities are known, and made ones."""

import numpy as np
import pytest

import dicjax as dj
from dicjax.recordings.quality import DRIFT


def kinds(train):
    return [finding.kind for finding in dj.examine(train)]


def refractory(rng, num, mean=100.0, dead=3.0):
    return np.cumsum(dead + rng.exponential(mean - dead, num))


def test_each_real_recording_shows_what_is_known_of_it(data):
    found = {}
    for path in sorted((data / "recordings").glob("*.csv")):
        (train,) = dj.read_spike_trains(path)
        found[path.stem] = kinds(train)
    for train in dj.read_spike_trains(data / "recordings/pynapple_A8604-211122.nwb"):
        found[train.name] = kinds(train)
    odd = {name: what for name, what in found.items() if what}
    assert odd == {
        "gnrh_mouse_example": ["drift"],
        "neurowsatl_invitro_bursting": ["drift"],
        "stg_crab_A_baseline_LP": ["drift"],  # 17 spikes at first, 36 at last
        "stg_crab_A_baseline_PD": ["merged"],
        "191": ["merged", "drift"],  # down to 0.17 ms
        "206": ["changes"],  # slower in the first quarter
    }


def test_a_suggested_window_is_free_of_what_it_avoids(data):
    for name in ("gnrh_mouse_example", "stg_crab_A_baseline_LP"):
        (train,) = dj.read_spike_trains(data / "recordings" / f"{name}.csv")
        (finding,) = dj.examine(train)
        assert finding.window is not None
        start, stop = finding.window
        assert f"window({np.ceil(start):.0f}, {np.floor(stop):.0f})" in finding.message
        assert train.t_start <= start < stop <= train.t_stop
        assert stop - start > (train.t_stop - train.t_start) / 5
        assert kinds(train.window(start, stop)) == []


def test_steady_trains_of_one_cell_are_rarely_suspected():
    rng = np.random.default_rng(0)
    for num in (20, 100, 1000):
        odd = [kinds(refractory(rng, num)) for _ in range(100)]
        assert sum(map(bool, odd)) <= 5
        assert sum("merged" in what for what in odd) <= 1


def test_two_cells_in_one_train_are_found():
    rng = np.random.default_rng(0)
    pairs = [[refractory(rng, 1000) for _ in range(2)] for _ in range(20)]
    merged = [np.sort(np.concatenate(pair)) for pair in pairs]
    assert sum("merged" in kinds(train) for train in merged) >= 19


def test_a_cell_that_bursts_fast_is_not_taken_for_two():
    # As a ganglion cell at high light: 4 % of intervals below 2 ms, few below 1 ms.
    rng = np.random.default_rng(0)
    isi = np.where(rng.random(1000) < 0.1, 1.2 + rng.exponential(1.0, 1000), 40.0)
    assert np.mean(isi < 2) > 0.04 and kinds(np.cumsum(isi)) == []


def test_a_cell_that_falls_silent_is_found_and_cut_out():
    times = np.arange(1, 200) * 50.5
    (finding,) = dj.examine(dj.SpikeTrain(times, t_start=0.0, t_stop=30_000.0))
    assert finding.kind == "pause" and finding.window == (0.0, times[-1])
    late = np.append(times, times + 20_000.0 + np.arange(199))
    assert kinds(late) == ["pause"]


@pytest.mark.parametrize(
    "factor, is_found", ((1.1, False), (1.5, True), (1 / 1.5, True))
)
def test_drift_is_found_in_both_directions(factor, is_found):
    isi = 60.0 * np.linspace(1, factor**2, 300)
    (finding,) = dj.examine(np.cumsum(isi)) or (None,)
    assert (finding is not None) == is_found
    if finding:
        assert finding.kind == "drift" and finding.window is not None
        start, stop = finding.window
        assert kinds(dj.SpikeTrain(np.cumsum(isi)).window(start, stop)) == []
    assert DRIFT == 1.25


def test_times_out_of_order_are_named():
    times = np.arange(1, 41) * 50.125
    assert kinds(np.repeat(times, 2)) == ["repeats"]
    assert kinds(np.tile(times, 2)) == ["reset"]
    assert kinds(times[::-1]) == ["unsorted"]
    assert kinds(np.diff(times)) == ["repeats"]
    assert kinds(times[:3]) == kinds(times[:0]) == []
