"""Inputs that `python -m scripts.fuzz` found, each as small as its kind can be."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import scipy.sparse

import dicjax as dj
from dicjax.output import read_population


TRAIN = np.arange(1, 41) * 50.125


@pytest.mark.parametrize("odd", ("1e999,5", ",5", "+,5", "9" * 5000 + ",5"))
def test_a_comma_behind_no_whole_number_is_asked_about(tmp_path, odd):
    path = tmp_path / "cell.csv"
    path.write_text("\n".join(["0,1", odd, "2,1", "3,1"]))
    with pytest.raises(ValueError, match=r"cell.csv: '0,1' may be two cells"):
        dj.read_spike_trains(path)


def test_labels_of_another_shape_than_times_are_refused(tmp_path):
    path = tmp_path / "cell.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("spikes/v1")
        group["timestamps"], group["node_ids"] = TRAIN, np.ones((40, 1))
    with pytest.raises(ValueError, match="cell.h5 is not an HDF5 file of SONATA"):
        dj.read_spike_trains(path)


def test_an_empty_sparse_matrix_is_no_raster(tmp_path):
    path = tmp_path / "cell.mat"
    scipy.io.savemat(path, {"x": scipy.sparse.csc_array((0, 40)), "t": TRAIN})
    (train,) = dj.read_spike_trains(path, unit="ms")
    assert np.array_equal(train.times, TRAIN)


@pytest.mark.parametrize("rate", (0.0, 1e-9, np.inf, np.nan))
def test_a_sampling_rate_that_is_none_is_refused(tmp_path, rate):
    path = tmp_path / "cell.npz"
    spikes = {"spike_indexes_seg0": TRAIN * 8, "spike_labels_seg0": np.ones(40, int)}
    about = {"unit_ids": [1], "num_segment": [1], "sampling_frequency": [rate]}
    np.savez(path, **spikes, **about)
    with pytest.raises(ValueError, match="cell.npz is not a sorting of spikeinterface"):
        dj.read_spike_trains(path)


def test_words_where_a_toolbox_writes_numbers_are_no_times(tmp_path):
    path = tmp_path / "cell.mat"
    cells = np.empty(2, object)
    cells[:] = ["µ", TRAIN]
    result = {"params": {"fs": "fast", "unit": "s"}}
    fields = {"spikeTimes": cells, "spikeDetectionResult": result, "channels": cells}
    scipy.io.savemat(path, fields)
    (train,) = dj.read_spike_trains(path)
    assert train.name == "2"


def test_the_reason_why_a_table_is_not_read_has_no_control_characters(tmp_path):
    path = tmp_path / "models.parquet"
    pq.write_table(pa.table({"gNa": [1.0, 2.0]}), path)
    sound = path.read_bytes()
    reasons = set()
    for at in range(len(sound) - 200, len(sound) - 8):
        path.write_bytes(sound[:at] + b"\x1f" + sound[at + 1 :])
        try:
            read_population(path)
        except ValueError as error:
            reasons.add(str(error))
    assert reasons and all(map(str.isprintable, reasons))


@pytest.mark.parametrize("num", (10**9, 10**30))
def test_a_folder_that_states_many_segments_is_refused_at_once(tmp_path, num):
    info = {"unit_ids": [1], "num_segments": num, "sampling_frequency": 3e4}
    (tmp_path / "numpysorting_info.json").write_text(json.dumps(info))
    kinds = [("sample_index", "i8"), ("unit_index", "i8"), ("segment_index", "i8")]
    np.save(tmp_path / "spikes.npy", np.zeros(40, kinds))
    with pytest.raises(ValueError, match="is too large"):
        dj.read_spike_trains(tmp_path)
