"""Matrices of numbers in `.mat`, `.npy`, `.npz` and text: what trains are in them."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from test_readers_matlab import version_5, version_7_3

from dicjax.recordings.readers import read_spike_trains


RNG = np.random.default_rng(0)
TRAINS = [np.cumsum(RNG.gamma(4, 30, num)) for num in (300, 200, 90)]  # ms


def npy(path, **variables):
    (array,) = variables.values()
    np.save(path.with_suffix(".npy"), array)


def npz(path, **variables):
    np.savez(path.with_suffix(".npz"), **variables)


def csv(path, **variables):
    (array,) = variables.values()
    np.savetxt(path.with_suffix(".csv"), array, "%.10g", ",")


WRITERS = {".mat": version_5, "7.3.mat": version_7_3, ".npy": npy, ".npz": npz}


@pytest.fixture(params=[*WRITERS, ".csv"])
def read(request, tmp_path):
    return reader(request.param, tmp_path)


@pytest.fixture(params=WRITERS)
def read_array(request, tmp_path):
    return reader(request.param, tmp_path)


@pytest.fixture(params=(".mat", "7.3.mat"))
def read_mat(request, tmp_path):
    return reader(request.param, tmp_path)


def reader(kind, folder):
    def read(options, **variables):
        path = folder / ("cell." + kind.rpartition(".")[2])
        (WRITERS | {".csv": csv})[kind](path, **variables)
        return read_spike_trains(path, **options)

    return read


def assert_same(trains, expected, names=None):
    assert len(trains) == len(expected)
    for train, times in zip(trains, expected, strict=True):
        np.testing.assert_allclose(train.times, times)
    if names:
        found = [train.name.rpartition("_")[2] for train in trains]
        assert found == names


def by_id(order):
    ids = np.repeat([3, 7, 8], [len(x) for x in TRAINS])
    rows = np.stack([ids, np.concatenate(TRAINS)], axis=1)
    return rows if order is None else rows[np.argsort(rows[:, order], kind="stable")]


@pytest.mark.parametrize("order", (0, 1))
@pytest.mark.parametrize("columns", ([0, 1], [1, 0]))
def test_a_matrix_of_ids_and_times_is_grouped(read, order, columns):
    trains = read({"unit": "ms"}, spks=by_id(order)[:, columns])
    found = {train.name.rpartition("_")[2]: train for train in trains}
    assert_same([found[name] for name in "378"], TRAINS)


def test_ids_and_times_may_be_rows(read_array):
    assert_same(read_array({"unit": "ms"}, spks=by_id(0).T), TRAINS, ["3", "7", "8"])


def test_numbers_of_rows_beside_times_are_no_neuron(read):
    rows = np.stack([np.arange(1.0, 301), TRAINS[0]], axis=1)
    assert_same(read({"unit": "ms"}, spks=rows), TRAINS[:1])


@pytest.mark.filterwarnings("ignore:.*padding")
@pytest.mark.parametrize("blank", (np.nan, 0.0))
def test_padding_at_the_end_of_columns_is_left_out(read, blank):
    padded = np.full((300, 3), blank)
    for j, times in enumerate(TRAINS):
        padded[: len(times), j] = times
    assert_same(read({"unit": "ms"}, spikes=padded), TRAINS, ["1", "2", "3"])


@pytest.mark.filterwarnings("ignore:.*padding")
@pytest.mark.parametrize("blank", (np.nan, 0.0))
def test_padding_at_the_end_of_rows_is_left_out(read_array, blank):
    padded = np.full((3, 300), blank)
    for j, times in enumerate(TRAINS):
        padded[j, : len(times)] = times
    assert_same(read_array({"unit": "ms"}, spikes=padded), TRAINS, ["1", "2", "3"])


def test_trials_aligned_to_a_stimulus_are_counted_from_the_first_time(read_array):
    padded = np.full((20, 60), np.nan)
    for row in padded:
        num = RNG.integers(20, 60)
        row[:num] = np.sort(RNG.uniform(-1000, 3000, num))
    expected = [row[np.isfinite(row)] - np.nanmin(padded) for row in padded]
    with pytest.warns(UserWarning, match="begin below zero"):
        assert_same(read_array({"unit": "ms"}, trials=padded), expected)


def test_zeros_and_ones_are_a_raster_in_bins(read_array):
    bins = RNG.random((4, 3000)) < 0.02
    for raster in (bins, bins.T.astype(np.uint8), bins.astype(float)):
        with pytest.raises(ValueError, match="samples@1000"):
            read_array({}, raster=raster)
        trains = read_array({"unit": "samples@1000"}, raster=raster)
        assert_same(trains, [np.flatnonzero(row) for row in bins])
        assert all(train.t_stop == 3000 for train in trains)


def test_trials_of_units_in_bins_are_trains_by_trial_and_unit(read_array):
    bins = RNG.random((3, 2, 3000)) < 0.02  # trials, units, bins
    with pytest.raises(ValueError, match="samples@1000"):
        read_array({}, raster=bins.astype(np.uint8))
    trains = read_array({"unit": "samples@500"}, raster=bins.astype(np.uint8))
    assert_same(trains, [2.0 * np.flatnonzero(row) for row in bins.reshape(6, -1)])
    names = [train.name.removeprefix("raster_") for train in trains]
    assert [name[-3:] for name in names] == ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2"]


@pytest.mark.parametrize("kind", (".mat", "7.3.mat", ".npz"))
@pytest.mark.parametrize(
    "start, width, unit",
    ((-999, 1, "ms"), (0, 2, "ms"), (-1, 1e-3, "s"), (0, 1000, "us")),
)
def test_the_times_of_bins_say_their_unit(kind, start, width, unit, tmp_path):
    per = {"ms": 1.0, "s": 1e3, "us": 1e-3}[unit]
    axis, bins = start + np.arange(2000) * width, RNG.random((5, 2000)) < 0.03
    said = {"train": bins.astype(np.uint8), "t": axis, "direction": np.arange(5) % 2}
    read = reader(kind, tmp_path)
    if start < 0:
        with pytest.warns(UserWarning, match="begin below zero"):
            trains = read({}, **said)
    else:
        trains = read({}, **said)
    since = min(start, 0)
    assert_same(trains, [(axis[row] - since) * per for row in bins])


@pytest.mark.parametrize("width", (1, 0.02, 20))
def test_times_of_bins_in_an_unclear_unit_are_asked_about(read_mat, width):
    axis, bins = np.arange(4000) * width, RNG.random((2, 4000)) < 0.03
    with pytest.raises(ValueError, match="give the true unit"):
        read_mat({}, train=bins.astype(np.uint8), t=axis)


def test_the_label_of_the_times_of_bins_states_their_unit(read_mat):
    axis, bins = np.arange(1, 2001), RNG.random((2, 2000)) < 0.03
    trains = read_mat({}, train=bins.astype(np.uint8), time_ms=axis)
    assert_same(trains, [axis[row] for row in bins])


def test_matrices_of_other_numbers_are_refused(read_array):
    for matrix in (
        RNG.normal(size=(300, 3)),
        np.cumsum(RNG.random((300, 3)), axis=0),  # in order, but as long as each other
        RNG.normal(size=(300, 2)),
        RNG.integers(0, 9, (300, 4)),
    ):
        with pytest.raises(ValueError, match=r"300(, | × )\d"):
            read_array({}, rates=matrix)


def test_a_matrix_with_a_row_per_spike_is_asked_for_its_columns(read_array):
    times = TRAINS[0]
    ids, amplitude = RNG.integers(1, 5, 300), RNG.normal(-80, 9, 300)
    matrix = np.stack([times, ids, amplitude], axis=1)
    span = f"from {times.min():g} to {times.max():g}"
    for table, side in ((matrix, "column"), (matrix.T, "row")):
        said = rf"{side} 1 rises {span}, {side} 2 has few whole numbers from 1 to 4"
        with pytest.raises(ValueError, match=said + r".*two columns, of units and"):
            read_array({}, spks=table)


def test_pickled_lists_of_trains_are_refused_with_the_way_to_save_them(
    tmp_path, monkeypatch
):
    held = np.empty(3, object)
    held[:] = TRAINS
    np.save(tmp_path / "cell.npy", held, allow_pickle=True)
    np.savez(tmp_path / "cell.npz", spikes=held)
    monkeypatch.chdir(tmp_path)
    for name in ("cell.npy", "cell.npz"):
        with pytest.raises(ValueError, match="Python objects") as refused:
            read_spike_trains(name)
        _, way = str(refused.value).split("per unit: ")
        exec(way.removesuffix("."), {"np": np})
        assert_same(read_spike_trains("trains.npz", unit="ms"), TRAINS)


# ---- MATLAB alone


def test_trials_of_a_raster_are_in_the_times_of_its_axis(read_mat):
    axis, bins = np.arange(0, 4000, 2), RNG.random((5, 2000)) < 0.03
    said = {"train": bins.astype(np.uint8), "t": axis, "direction": np.arange(5) % 2}
    trains = read_mat({"unit": "ms"}, **said)
    assert_same(trains, [axis[row] for row in bins], list("12345"))
    trains = read_mat({}, **said, units="ms")
    assert_same(trains, [axis[row] for row in bins])


def test_channels_beside_trains_name_them(read_mat):
    bins = (RNG.random((3000, 3)) < 0.02).astype(np.uint8)
    said = {"spikeMatrix": bins, "channels": np.array([31, 41, 52]), "fs": 1000.0}
    assert_same(
        read_mat({}, **said), [np.flatnonzero(x) for x in bins.T], ["31", "41", "52"]
    )


def test_a_sparse_raster_is_read(tmp_path):
    raster = scipy.sparse.csc_matrix(RNG.random((60_000, 4)) < 0.002, dtype=float)
    said = {"spikeMatrix": raster, "channels": np.array([31, 41, 51, 61]), "fs": 1e3}
    scipy.io.savemat(tmp_path / "cell.mat", said)
    places = [np.flatnonzero(raster[:, [j]].toarray()) for j in range(4)]
    trains = read_spike_trains(tmp_path / "cell.mat")
    assert_same(trains, places, ["31", "41", "51", "61"])
    assert all(train.t_stop == 60_000 for train in trains)


def test_a_sparse_raster_of_version_7_3_is_read(tmp_path):
    import h5py

    raster = scipy.sparse.csc_matrix(RNG.random((60_000, 4)) < 0.002, dtype=float)
    version_7_3(tmp_path / "cell.mat", fs=1000.0)
    with h5py.File(tmp_path / "cell.mat", "r+") as file:
        group = file.create_group("spikeMatrix")
        group.attrs["MATLAB_sparse"] = np.uint64(60_000)
        group["data"] = np.ones(raster.nnz)
        group["ir"], group["jc"] = raster.indices, raster.indptr
    trains = read_spike_trains(tmp_path / "cell.mat")
    assert_same(trains, [np.flatnonzero(raster[:, [j]].toarray()) for j in range(4)])


@pytest.mark.parametrize("damage", ("ir", "jc"))
def test_a_sparse_matrix_that_contradicts_itself_is_refused(tmp_path, damage):
    import h5py

    version_7_3(tmp_path / "cell.mat", fs=1000.0)
    with h5py.File(tmp_path / "cell.mat", "r+") as file:
        group = file.create_group("spikeMatrix")
        group.attrs["MATLAB_sparse"] = np.uint64(50)
        parts = {"data": np.ones(3), "ir": [1, 2, 3], "jc": [0, 1, 3]}
        parts[damage] = [0, 2, 77]
        for name, part in parts.items():
            group[name] = part
    with pytest.raises(ValueError, match="cell.mat is not a MATLAB file"):
        read_spike_trains(tmp_path / "cell.mat")


@pytest.mark.parametrize("kind", (".mat", "7.3.mat", ".npz"))
def test_vectors_beside_times_are_understood_by_their_names(kind, tmp_path):
    read, ms = reader(kind, tmp_path), {"unit": "ms"}
    times, _, short = TRAINS
    samples = (times * 30).round()
    (train,) = read(ms, LP=times, amplitude=short)
    assert np.array_equal(train.times, times)
    (train,) = read({}, time_s=times / 1e3, spike_samples=samples)
    np.testing.assert_allclose(train.times, times)
    ids = np.arange(300) % 2
    even, _ = read(ms, times=times, cluster=ids)
    assert np.array_equal(even.times, times[::2])
    for label in ("spike_clusters", "channel", "unitID"):
        even, odd = read(ms, **{"spike_times": times, label: ids})
        assert np.array_equal(even.times, times[::2]) and odd.name == "1"
    (train,) = read(ms, row=np.arange(300), LP=times)
    assert np.array_equal(train.times, times)
